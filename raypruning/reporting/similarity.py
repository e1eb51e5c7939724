"""What `prune-cli similarity` shows: a sentence, tables, one JSON object, a CSV file, numbers and figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from raypruning.analysis.similarity import Churn, Estimate, Lead, Likeness, Similarity
from raypruning.core.populations import PopulationNumber
from raypruning.core.records import DENSE, Interval
from raypruning.reporting import wording
from raypruning.reporting.similarity_plots import churn_tasks, spread_places

JSON = dict[str, object]
SEPARATE = "separate"
_MAX_LEVELS = 8
# Characters that columns take, with the space between.
_LEVEL, _MEAN_AND_LEAD, _TASK, _CKA = 7, 25, 20, 15


# -- what to conclude --------------------------------------------------------------------------------------------------


def conclusion(found: Similarity) -> str:
    """One sentence: up to which ratio pruned networks stay closer to their parents than a separate network does."""
    kinds = _by_kind(found)
    under = f"Over noise from 0 to {found.amplitudes[-1]:g}" if len(found.amplitudes) > 1 else "Without noise"
    if found.control is None:
        texts = [f"{_percent(row[-1].mean_matching)} at {_removed(row[-1])}{_with(row[0], found)}" for row in kinds]
        return (
            f"{under}, pruned networks agree with their parent on {wording.listing(texts)}; whether a separate network "
            "would agree on more is not known, since the sweep has one parent."
        )
    texts = [_verdict(row, _with(row[0], found)) for row in kinds]
    separate = _percent(found.control.mean_matching)
    return (
        f"{under}, a separately trained network agrees with the parent on {separate} of images; pruned networks stay "
        f"closer than that {wording.listing(texts)}."
    )


def _verdict(row: Sequence[Likeness], method: str) -> str:
    """Of one method and budget: ratios are tested in order, up to the first that is not closer."""
    verdicts = [one.lead.verdict if one.lead else "undecided" for one in row]
    num = next((index for index, verdict in enumerate(verdicts) if verdict != "closer"), len(row))
    if num == len(row):
        return f"at every measured ratio{method} (still {_at(row[-1])})"
    beyond = _at(row[num]) + (", too near to tell" if verdicts[num] == "undecided" else "")
    if num == 0:
        return f"at no measured ratio{method} ({beyond})"
    last = row[num - 1]
    return f"up to {_removed(last)}{method} ({_percent(last.mean_matching)}; {beyond})"


def _at(one: Likeness) -> str:
    return f"{_percent(one.mean_matching)} at {_percent(one.ratio_reached)}"


def _with(one: Likeness, found: Similarity) -> str:
    name = _name(one, found)
    return f" with {name}" if name else ""


def control_hint(found: Similarity, *, storage_flag: str = "") -> str:
    """What to type where there is no control; empty where there is one."""
    if found.control is not None:
        return ""
    return (
        "no control: the sweep has one parent, so no separately trained network. To get one: "
        f"prune-cli sweep {found.sweep} --population 2{storage_flag}"
    )


def _by_kind(found: Similarity) -> list[list[Likeness]]:
    """Populations of the same method and budget, ratios ascending."""
    rows: dict[tuple[str, int], list[Likeness]] = {}
    for one in found.populations:
        rows.setdefault((one.method, one.budget), []).append(one)
    return list(rows.values())


def _name(one: Likeness, found: Similarity) -> str:
    """Method and budget, as far as they tell populations apart."""
    parts = [one.method] if len({other.method for other in found.populations}) > 1 else []
    if len({other.budget for other in found.populations}) > 1:
        parts.append(wording.count(one.budget, "epoch"))
    return ", ".join(parts)


def _removed(one: Likeness) -> str:
    return f"{wording.percent(one.ratio_reached)} removed"


def _percent(fraction: float) -> str:
    return wording.percent(fraction)


# -- tables ------------------------------------------------------------------------------------------------------------


class SimilarityReport:
    """The whole answer for a terminal: print it with a rich Console."""

    def __init__(self, found: Similarity) -> None:
        self._found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the parts."""
        found = self._found
        names = max(len("  ".join(_labels(one, found))) for one in _rows(found))
        room = options.max_width - names
        yield Text.assemble((found.sweep, "bold"), "  ", (context(found), "dim"))
        yield Text(conclusion(found))
        yield Text()
        yield Text("Matching predictions: % of images to which both give the same class", style="bold")
        yield self._noise("matching", decimals=1, scale=100.0, room=room)
        yield from (Text(line, style="dim") for line in noise_notes(found))
        yield Text()
        yield Text("Distance of their softmax outputs, 0 to 1.41", style="bold")
        yield self._noise("distance", decimals=3, scale=1.0, room=room)
        yield Text()
        yield from self._others(room)

    @property
    def _first(self) -> list[str]:
        return ["removed", *(["network"] if _name(self._found.populations[0], self._found) else [])]

    def _noise(self, quantity: str, *, decimals: int, scale: float, room: int) -> Table:
        found = self._found
        shown = spread_places(len(found.amplitudes), limit=min(_MAX_LEVELS, (room - _MEAN_AND_LEAD) // _LEVEL))
        heads = [f"{found.amplitudes[index]:g}" for index in shown]
        table = _table(self._first, [*heads, "mean", "lead"])
        for one in _rows(found):
            values = [getattr(level, quantity) for level in one.levels]
            mean = sum(value.value for value in values) / len(values)
            cells = [f"{scale * values[index].value:.{decimals}f}" for index in shown]
            lead = _lead(one.lead, quantity, scale=scale, decimals=decimals)
            table.add_row(*_labels(one, found), *cells, f"{scale * mean:.{decimals}f}", lead)
        return table

    def _others(self, room: int) -> Iterator[Text | Table]:
        found = self._found
        names = [churn.task for churn in found.populations[0].churn]
        shown = churn_tasks(found.populations, limit=max(1, (room - _CKA) // _TASK))
        # In two lines where they are long: cells are short.
        table = _table(self._first, [*(names[index].replace("/", "/\n", 1) for index in shown), "CKA"])
        for one in _rows(found):
            cells = [_churn(one.churn[index]) for index in shown]
            table.add_row(*_labels(one, found), *cells, _cka_text(one.cka))
        yield Text("Churn: % of images to which both give different classes, and the 90 % interval", style="bold")
        yield table
        what = f"{wording.count(found.num_features, 'number')} that {found.features} is given"
        error = ", ± standard error over seeds" if found.populations[0].cka.standard_error is not None else ""
        yield Text(f"CKA: linear, of the {what}, 0 to 1{error}.", style="dim")
        if len(shown) < len(names):
            more = wording.count(len(names) - len(shown), "more task")
            yield Text(f"{more}, with less churn, in --csv and --json.", style="dim")


def context(found: Similarity) -> str:
    """What was measured, in a few words."""
    images = wording.count(found.images, "test image")
    if found.images < found.num_test_images:
        images = f"{wording.thousands(found.images)} of {wording.count(found.num_test_images, 'test image')}"
    return (
        f"{found.model} on {found.dataset}, {wording.count(len(found.seeds), 'seed')}, {images}, "
        f"{wording.count(found.draws, 'draw')} of noise"
    )


def noise_notes(found: Similarity) -> list[str]:
    """How sure the numbers under noise are, and what the columns mean."""
    errors = [level.matching.standard_error or 0.0 for one in _rows(found) for level in one.levels]
    over = "images and seeds" if len(found.seeds) > 1 else "images"
    notes = [
        f"Columns: noise level. Standard errors over {over}: at most {100 * max(errors):.2f} points in "
        f"{wording.count(len(errors), 'number')}."
    ]
    if found.control is not None:
        pairs = found.control
        notes.append(
            f"{SEPARATE}: parents of different seeds, {wording.count(_num_pairs(pairs), 'pair')}. "
            "lead: how much closer to its parent a pruned network is than a separate one, ± standard error; "
            "* the sign is sure at 95 %."
        )
        if len(found.seeds) == 2:
            notes.append(f"{SEPARATE} is a single pair: how much pairs differ is not known, and not in its errors.")
    return notes


def _num_pairs(one: Likeness) -> int:
    num = len(one.seeds)
    return num * (num - 1) // 2 if one.method == DENSE else num


def _rows(found: Similarity) -> list[Likeness]:
    return [*found.populations, *([found.control] if found.control else [])]


def _labels(one: Likeness, found: Similarity) -> list[str]:
    name = _name(found.populations[0], found)
    if one.method == DENSE:
        return [SEPARATE, *([""] if name else [])]
    return [wording.percent(one.ratio_reached), *([_name(one, found)] if name else [])]


def _lead(lead: Lead | None, quantity: str, *, scale: float, decimals: int) -> str:
    if lead is None:
        return ""
    value: Estimate = getattr(lead, quantity)
    sign = "+" if value.value > 0 else wording.MINUS
    mark = "*" if quantity == "matching" and lead.verdict != "undecided" else " "
    return f"{sign}{abs(scale * value.value):.{decimals}f} ± {scale * (value.standard_error or 0):.{decimals}f}{mark}"


def _churn(one: Churn) -> str:
    low, high = one.interval.low, one.interval.high
    return f"{100 * one.rate.value:.1f}  {100 * low:.1f} to {100 * high:.1f}"


def _cka_text(one: Estimate) -> str:
    return f"{one.value:.3f}" + (f" ± {one.standard_error:.3f}" if one.standard_error is not None else "")


def _table(text: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for head in text:
        table.add_column(Text(head), no_wrap=True)
    for head in numbers:
        table.add_column(Text(head), justify="right", no_wrap=True)
    return table


# -- files -------------------------------------------------------------------------------------------------------------


def similarity_json(found: Similarity, *, storage_flag: str = "") -> JSON:
    """One object for `--json`: the record, with what to conclude."""
    return {
        "conclusion": conclusion(found),
        "hint": control_hint(found, storage_flag=storage_flag) or None,
        **found.model_dump(mode="json"),
    }


class SimilarityRow(NamedTuple):
    """A line of the CSV file.

    Attributes:
        method: `separate` for the control.
        quantity: matching, distance, lead_matching, lead_distance, churn or cka.
        at: the noise level or the task; empty where neither.
        low, high: ends of an interval; for churn alone.
    """

    method: str
    budget: int
    ratio_asked: float
    ratio_reached: float
    pairs: int
    quantity: str
    at: str
    value: float
    standard_error: float | None
    sd: float | None
    low: float | None = None
    high: float | None = None


def similarity_rows(found: Similarity) -> list[SimilarityRow]:
    """Every number, one a line."""
    return [
        SimilarityRow(
            method=SEPARATE if one.method == DENSE else one.method,
            budget=one.budget,
            ratio_asked=one.ratio,
            ratio_reached=one.ratio_reached,
            pairs=_num_pairs(one),
            quantity=quantity,
            at=at,
            value=value.value,
            standard_error=value.standard_error,
            sd=value.sd,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
        )
        for one in _rows(found)
        for quantity, at, value, interval in _quantities(one)
    ]


def _quantities(one: Likeness) -> Iterator[tuple[str, str, Estimate, Interval | None]]:
    """Name, noise level or task, and what was found."""
    for level in one.levels:
        yield "matching", f"{level.amplitude:g}", level.matching, None
        yield "distance", f"{level.amplitude:g}", level.distance, None
    if one.lead:
        yield "lead_matching", "", one.lead.matching, None
        yield "lead_distance", "", one.lead.distance, None
    for churn in one.churn:
        yield "churn", churn.task, churn.rate, churn.interval
    yield "cka", "", one.cka, None


def similarity_csv(found: Similarity) -> str:
    """`similarity_rows` as a file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SimilarityRow._fields)
    writer.writerows(similarity_rows(found))
    return text.getvalue()


def numbers(found: Similarity) -> list[PopulationNumber]:
    """For MLflow. The control's names begin with `separate`, so that nobody takes them for the parent's own."""
    result = []
    for one in _rows(found):
        before = f"{SEPARATE}/" if one.method == DENSE else ""
        named: dict[str, float] = {}
        for level in one.levels:
            named[f"similarity/matching_eps{level.amplitude:g}"] = level.matching.value
            named[f"similarity/distance_eps{level.amplitude:g}"] = level.distance.value
        if one.lead:
            named["similarity/lead"] = one.lead.matching.value
        named |= {f"churn/{churn.task}": churn.rate.value for churn in one.churn}
        named["similarity/cka"] = one.cka.value
        result += [
            PopulationNumber(one.method, one.budget, one.ratio_reached, f"{before}{name}", value)
            for name, value in named.items()
        ]
    return result
