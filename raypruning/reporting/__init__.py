"""What a person sees of a sweep: terminal tables, plots, one HTML page, Markdown, JSON, CSV and pandas frames.

Everything here is a function of `SweepResults`, and nothing here reads a store. Where to look:

    wording.py             how a number is written
    answer.py, notes.py    what the numbers say: standings, the weakest task, the sentence; marks, warnings, cost
    frames.py              pandas frames, for a notebook, the plots and the CSV files
    tables.py, live.py     the terminal: a finished sweep, several, and one that goes on
    documents.py, files.py Markdown and JSON; files a person asked for
    drawing.py, plots.py, mean_curve.py    SVG figures
    html.py, probe_table.py, templates/    the page
    comparison.py, comparison_plots.py     several sweeps side by side
"""
