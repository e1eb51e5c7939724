"""Halve the open brackets of every threshold at once; a probe serves all of them.

With one threshold and one probe a round this is classic bisection on -log(1 - ratio). The ends of the range are asked
for last, and only if the potential turns out to lie at one: most searches never need them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from raypruning.core.records import SearchSpec
from raypruning.core.search.axis import position, ratio_at
from raypruning.core.search.brackets import Bracket, bracket, is_narrow, missing_end
from raypruning.core.search.strategy import Known


def next_ratios(search: SearchSpec, known: Known) -> tuple[float, ...]:
    """Up to `probes_per_round` ratios that halve the most open brackets; none when all are closed or stuck.

    A failed probe is never asked for again and moves no bracket: one that only it could narrow stays open.
    """
    brackets = [bracket(outcomes, top=search.high) for outcomes in known.outcomes]
    spans = Counter(span for one in brackets if (span := _open_span(one, search=search)) is not None)
    measured = known.asked
    if search.probes_per_round == 1:
        chosen = _best_halving(spans, exclude=measured)
    else:
        chosen = _even_sections(spans, num=search.probes_per_round, exclude=measured)
    if chosen:
        return chosen
    ends = sorted({end for one in brackets if (end := missing_end(one, search=search)) is not None} - measured)
    return tuple(ends[: search.probes_per_round])


def _open_span(one: Bracket, *, search: SearchSpec) -> tuple[float, float] | None:
    """The interval inside the search's range still to be halved; None when it is narrow enough."""
    inside = one._replace(low=max(one.low, search.low))
    if one.high <= search.low or is_narrow(inside, resolution=search.resolution):
        return None
    return position(inside.low), position(inside.high)


def _best_halving(spans: Mapping[tuple[float, float], int], *, exclude: Collection[float]) -> tuple[float, ...]:
    """The midpoint that leaves the least of all spans, counted by their thresholds. Ties: the lower ratio."""

    def gain(u: float) -> float:
        return sum(count * min(u - a, b - u) / (b - a) for (a, b), count in spans.items() if a < u < b)

    midpoints = [u for a, b in spans if ratio_at(u := (a + b) / 2) not in exclude]
    # Rounded, so that a last bit that differs between platforms decides nothing.
    best = min(midpoints, key=lambda u: (-round(gain(u), 9), u), default=None)
    return () if best is None else (ratio_at(best),)


def _even_sections(
    spans: Mapping[tuple[float, float], int], *, num: int, exclude: Collection[float]
) -> tuple[float, ...]:
    """`num` ratios that cut spans into even sections: each goes to the span with the most width left, by thresholds."""
    cuts = dict.fromkeys(spans, 0)
    while cuts:
        for _ in range(num):
            cuts[min(cuts, key=lambda s: (-round(spans[s] * (s[1] - s[0]) / (cuts[s] + 1), 9), s))] += 1
        sections = {ratio_at(a + (b - a) * i / (n + 1)) for (a, b), n in cuts.items() for i in range(1, n + 1)}
        if chosen := sections - set(exclude):
            return tuple(sorted(chosen))
        # Every one of these probes failed. The spans they cut are stuck, which must not starve the others.
        cuts = {span: 0 for span, n in cuts.items() if n == 0}
    return ()
