"""The page "what was lost" of a sweep: a part for each way of losing something, with a sentence to conclude."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from raypruning.core.records import SweepResults
from raypruning.reporting.answer import answer_context, answer_sentences
from raypruning.reporting.drawing import DARK, LIGHT, Panel
from raypruning.reporting.pages import environment


class Part(NamedTuple):
    """One way of losing something.

    Attributes:
        how: how to read the figures.
        conclusion: what to conclude, in one sentence; empty where it was not looked at.
        command: what to type to see all of it, or to have it at all.
    """

    title: str
    how: str
    conclusion: str
    panels: Sequence[Panel]
    command: str


def render_lost_html(results: SweepResults, parts: Sequence[Part], *, report_page: str = "") -> str:
    """The page, self-contained. The same results give the same bytes.

    Args:
        report_page: address of the sweep's report, as seen from this one; no link if empty.
    """
    figures = {part.title: [Markup(one.svg) for one in part.panels] for part in parts}
    return (
        environment()
        .get_template("lost.html.j2")
        .render(
            light=LIGHT,
            dark=DARK,
            name=results.spec.name,
            note=results.spec.note,
            context=answer_context(results),
            answer=answer_sentences(results)[0],
            report_page=report_page,
            parts=[part for part in parts if part.conclusion],
            missing=[part for part in parts if not part.conclusion],
            figures=figures,
        )
    )
