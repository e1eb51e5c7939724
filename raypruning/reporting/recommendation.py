"""What `prune-cli recommend` shows: as text for a terminal of 80 columns, and as one JSON object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from raypruning.analysis.paired import POWER
from raypruning.analysis.recommendation import (
    Choice,
    Network,
    Recommendation,
    TaskLoss,
    Unresolved,
    best,
    differences,
    unresolved,
    weakest_potentials,
)
from raypruning.core.records import Curve, Potential
from raypruning.reporting import wording
from raypruning.reporting.notes import probe_label
from raypruning.reporting.text import aligned, wrapped

JSON = dict[str, object]
LEVEL = 0.05  # of the adjusted p-values that are called a difference
_LABEL = 12
_MAX_NAMED = 3


# -- text ------------------------------------------------------------------------------------------------------------


def recommendation_text(found: Recommendation, *, storage_flag: str = "") -> str:
    """The answer, its proof task by task, the choices around it, and what is undecided.

    Args:
        storage_flag: what a command needs to find the storage, such as ` --storage FOLDER`.
    """
    network = found.network
    blocks = [_answer(found)]
    if network is not None and found.chosen is not None:
        blocks.append(_shipped(found, network, storage_flag=storage_flag))
        blocks.append(_table(found, network))
        blocks.append(_choices(found, found.chosen, network))
    elif network is not None:
        blocks.append(_table(found, network))
        blocks.append(_ways_out(found, network))
    blocks.append(_undecided(found))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def export_command(found: Recommendation, network: Network, *, storage_flag: str = "") -> str:
    """What to type to get the network."""
    return f"prune-cli export {found.sweep} --probe {network.training}{storage_flag}"


def _answer(found: Recommendation) -> list[str]:
    what = f"at most {wording.points(found.delta)} on {_number_of(found.tasks)}, with {_percent(found.confidence)}"
    if found.chosen is not None:
        return wrapped(f"{found.sweep}: a network that loses {what} confidence")
    if found.nearest is not None:
        return wrapped(f"{found.sweep}: no pruned network is proven to lose {what} confidence")
    return wrapped(f"{found.sweep}: no pruned network was measured, so none can be recommended")


def _shipped(found: Recommendation, network: Network, *, storage_flag: str) -> list[str]:
    return [
        *_row("ship", f"{_named(network)} removed"),
        *_row("network", network.training),
        # Not wrapped, to be copied.
        f"{'checkpoint':<{_LABEL}}{found.storage}/{network.uri}",
        f"{'export':<{_LABEL}}{export_command(found, network, storage_flag=storage_flag)}",
    ]


def _table(found: Recommendation, network: Network) -> list[str]:
    p_values = differences(network)
    rows = [("task", "loss", "at most", "images", "lost", "gained", "p")]
    for one in network.losses:
        pair = one.discordance
        counts = (f"{pair.lost}", f"{pair.gained}") if pair else ("", "")
        p = _p(p_values[one.task]) if one.task in p_values else ""
        mark = " *" if one.bound > found.delta else ""
        rows.append((one.task, _points(one.loss), _points(one.bound), wording.thousands(one.num), *counts, p + mark))
    title = f"Loss in points, and images lost and gained, against the parent of seed {network.curve.seed}"
    if found.chosen is None:
        title = f"{_named(network)}: {title[0].lower()}{title[1:]}"
    notes = [_level_note(found)]
    if any(one.bound > found.delta for one in network.losses):
        notes.append(f"*  not proven to be within {wording.points(found.delta)}.")
    if p_values:
        notes.append(_difference_note(p_values))
    return [*wrapped(title), *aligned(rows), *(line for note in notes for line in wrapped(note, indent=" " * 3))]


def _level_note(found: Recommendation) -> str:
    num = len(found.choices)
    if num == 1:
        return (
            f"at most: upper bound of the true loss, at {_percent(found.level)}. All tasks at once need no correction."
        )
    return (
        f"at most: upper bound of the true loss. The level is shared out over {num} curves, each tested at "
        f"{_percent(found.level)} (Bonferroni); all tasks at once need no correction."
    )


def _difference_note(p_values: Mapping[str, float]) -> str:
    told = [task for task, p in p_values.items() if p <= LEVEL]
    which = f"told from its parent on {_listed(told)}" if told else "on no task told from its parent"
    adjusted = f", Holm-adjusted over {len(p_values)} tasks" if len(p_values) > 1 else ""
    return f"p: exact McNemar test{adjusted}. The network is {which} (p at most {LEVEL:g})."


def _choices(found: Recommendation, chosen: Choice, shipped: Network) -> list[str]:
    lines = _limit(chosen, shipped)
    if chosen.tighter is not None:
        text = f"{wording.percent(chosen.tighter.ratio)} removed: loses at most {_unsigned(chosen.tighter.worst.bound)}"
        lines += _row("tighter", f"{text} points on any task, and removes {_less(chosen.tighter, shipped)}")
    else:
        lines += _row("tighter", "nothing smaller was measured on this curve")
    if found.cheaper is not None and found.cheaper.certified is not None:
        other = found.cheaper.certified
        lines += _row("cheaper", f"{_named(other)}: removes {_less(other, shipped)}")
    elif any(one.curve.budget < shipped.curve.budget for one in found.choices):
        lines += _row("cheaper", "no smaller budget has a certified network")
    if chosen.looser is not None:
        failures = _failures(chosen.looser, delta=found.delta, num=len(found.tasks))
        lines += _row("looser", f"{wording.percent(chosen.looser.ratio)} removed {failures}")
    else:
        lines += _row("looser", "nothing larger was measured on this curve")
    return [*lines, *_others(found, shipped), *_measured(found, shipped.curve)]


def _limit(chosen: Choice, shipped: Network) -> list[str]:
    if chosen.looser is not None:
        return _row("limited by", f"{chosen.looser.worst.task}, the worst at the next larger ratio")
    return _row("limited by", f"{shipped.worst.task}, with the largest bound; no larger ratio was measured")


def _ways_out(found: Recommendation, network: Network) -> list[str]:
    """Where nothing is certified: at which delta or ratio something would be."""
    failures = _failures(network, delta=found.delta, num=len(found.tasks))
    lines = _row("nearest", f"{_named(network)} removed {failures}")
    beyond = [one.task for one in network.failing(found.delta) if one.loss > found.delta]
    if beyond:
        text = (
            f"a ratio below {wording.percent(network.ratio)}, the smallest measured on this curve, may be within: the "
            f"measured loss is above delta on {_listed(beyond)}, where more images hardly help"
        )
        lines += _row("smaller", text)
    return [*lines, *_measured(found, network.curve)]


def _failures(network: Network, *, delta: float, num: int) -> str:
    failing = network.failing(delta)
    shown = [f"{one.task} (lost {_points(one.loss)}, at most {_points(one.bound)})" for one in failing]
    return (
        f"fails on {len(failing)} of {wording.count(num, 'task')}: {_listed(shown)}; "
        f"certified from --delta {delta_needed(network):g} on"
    )


def delta_needed(network: Network) -> float:
    """The smallest delta, to four decimals, that a network is proven to keep on every task."""
    return math.ceil(network.worst.bound * 10_000) / 10_000


def _others(found: Recommendation, shipped: Network) -> list[str]:
    by_method: dict[str, list[Choice]] = {}
    for one in found.choices:
        by_method.setdefault(one.curve.method, []).append(one)
    texts = []
    for method, choices in by_method.items():
        if method != shipped.curve.method:
            top = best(choices)
            texts.append(f"{method} {wording.percent(top.ratio)}" if top else f"{method} nothing")
    return _row("others", f"{wording.listing(texts)} certified at most") if texts else []


def _measured(found: Recommendation, curve: Curve) -> list[str]:
    weakest = weakest_potentials(found.potentials)
    if not weakest:
        return []
    top = max(weakest, key=lambda one: weakest[one])
    text = (
        f"the potential, without proof, on the weakest task: {wording.percent(weakest.get(curve, 0.0))} on this curve"
    )
    if top != curve and weakest[top] > weakest.get(curve, 0.0):
        text += f", {wording.percent(weakest[top])} at most, by {top.label}"
    return _row("measured", text)


def _undecided(found: Recommendation) -> list[str]:
    lines = []
    small = _unresolved(found)
    if small:
        needs = [
            f"{one.task} (has {wording.thousands(one.num)} images, needs {wording.thousands(one.num_needed)})"
            for one in sorted(small, key=lambda one: -one.num_needed / one.num)
        ]
        text = (
            f"{wording.count(len(small), 'test set')} too small to tell a loss of {wording.points(found.delta)} from "
            f"none in {_percent(POWER)} of cases: {_listed(needs)}"
        )
        lines += _row("undecided", text)
    open_ones = [one for one in found.potentials if one.status == "open"]
    if open_ones:
        lines += _row("open", _open_text(found, open_ones))
    if found.failed:
        names = _listed([probe_label(one) for one in found.failed])
        lines += _row("failed", f"{wording.count(len(found.failed), 'probe')} measured nothing: {names}")
    return lines


def _unresolved(found: Recommendation) -> list[Unresolved]:
    beyond = found.beyond
    return unresolved(beyond, delta=found.delta, confidence=found.level) if beyond else []


def _open_text(found: Recommendation, open_ones: Sequence[Potential]) -> str:
    num_curves = len({one.curve for one in open_ones})
    return (
        f"{len(open_ones)} of {wording.count(len(found.potentials), 'measured potential')}, on "
        f"{wording.count(num_curves, 'curve')}: the search left ratios unmeasured there, at this delta"
    )


def _named(network: Network) -> str:
    return f"{network.curve.label} at {wording.percent(network.ratio)}"


def _less(other: Network, shipped: Network) -> str:
    return f"{_unsigned(shipped.ratio - other.ratio)} points less"


def _number_of(tasks: Sequence[str]) -> str:
    return tasks[0] if len(tasks) == 1 else f"each of {len(tasks)} tasks"


def _listed(names: Sequence[str]) -> str:
    more = [f"{len(names) - _MAX_NAMED} more"] if len(names) > _MAX_NAMED else []
    return wording.listing([*names[:_MAX_NAMED], *more])


def _points(fraction: float) -> str:
    return wording.signed_points(fraction, decimals=2)


def _unsigned(fraction: float) -> str:
    return _points(fraction).lstrip("+")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g} %"


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}"


def _row(label: str, text: str) -> list[str]:
    return wrapped(f"{label:<{_LABEL}}{text}", indent=" " * _LABEL)


# -- JSON ------------------------------------------------------------------------------------------------------------


def recommendation_json(found: Recommendation, *, storage_flag: str = "") -> JSON:
    """One object for `--json`. Networks are flat: the fields of their curve stand beside their own."""
    chosen = found.chosen
    shipped = chosen.certified if chosen else None
    weakest = weakest_potentials(found.potentials)
    limit = found.beyond or shipped
    return {
        "sweep": found.sweep,
        "storage": found.storage,
        "delta": found.delta,
        "confidence": found.confidence,
        "confidence_of_each_curve": found.level,
        "num_curves": len(found.choices),
        "tasks": list(found.tasks),
        "recommended": None
        if shipped is None
        else {**_network(found, shipped), "export": export_command(found, shipped, storage_flag=storage_flag)},
        "limited_by": limit.worst.task if limit else None,
        "tighter": _network(found, chosen.tighter if chosen else None),
        "cheaper": _network(found, found.cheaper.certified if found.cheaper else None),
        "looser": _network(found, chosen.looser if chosen else None),
        "nearest": _network(found, found.nearest.looser if found.nearest else None),
        "curves": [
            {
                **one.curve.model_dump(mode="json"),
                "certified": one.ratio,
                "training": one.certified.training if one.certified else None,
                "measured": weakest.get(one.curve),
            }
            for one in found.choices
        ],
        "unresolved": [one._asdict() for one in _unresolved(found)],
        "open": [
            {**one.curve.model_dump(mode="json"), "task": one.task} for one in found.potentials if one.status == "open"
        ],
        "failed": [
            {**one.probe.curve.model_dump(mode="json"), "training": one.probe.id, "ratio_asked": one.probe.ratio}
            for one in found.failed
        ],
    }


def _network(found: Recommendation, network: Network | None) -> JSON | None:
    if network is None:
        return None
    p_values = differences(network)
    return {
        **network.curve.model_dump(mode="json"),
        "ratio": network.ratio,
        "training": network.training,
        "checkpoint": network.uri,
        "fails_on": [one.task for one in network.failing(found.delta)],
        "delta_needed": delta_needed(network),
        "losses": [{**_loss(one), "p_value": p_values.get(one.task)} for one in network.losses],
    }


def _loss(one: TaskLoss) -> JSON:
    pair = one.discordance
    return {
        "task": one.task,
        "num_examples": one.num,
        "loss": one.loss,
        "upper_bound": one.bound,
        "lost": pair.lost if pair else None,
        "gained": pair.gained if pair else None,
    }
