"""What a person sees of a sweep: terminal tables, plots, one HTML page, Markdown, JSON, CSV and pandas frames.

Everything here is a function of `SweepResults`, and nothing here reads a store. Where to look:

    answer.py      what the numbers say: standings, the weakest task, the sentence on top of a report
    wording.py     how a number is written
    frames.py      pandas frames, for a notebook, the plots and the CSV files
    tables.py      rich tables, for the terminal
    documents.py   Markdown, JSON and CSV
    compare.py     several sweeps side by side
    plots.py       SVG figures
    html.py        the page
"""
