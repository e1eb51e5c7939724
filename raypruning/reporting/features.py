"""What `prune-cli features` says: a sentence to conclude, text for a terminal, a JSON object, a CSV table, numbers."""

# M networks, S sources of pixels, N images

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from raypruning.analysis.features import (
    LEVEL,
    WHOLE,
    Difference,
    Estimate,
    Features,
    FeaturesRecord,
    HeatMap,
    Look,
    forwards_of,
    heat_map,
    looks,
    separate_index,
    shared,
)
from raypruning.core.populations import PopulationNumber
from raypruning.reporting import wording
from raypruning.reporting.text import aligned, wrapped

JSON = dict[str, object]
CSV_COLUMNS = (
    "sweep",
    "method",
    "budget",
    "seed",
    "pixels_of",
    "judged_by",
    "ratio_of_pixels",
    "ratio_of_judge",
    "keep",
    "confidence",
    "standard_error",
    "num_images",
)


def conclusion(found: Features) -> str:
    """What to conclude, in one sentence. Confidences are in the true class."""
    every = looks(found)
    last = every[-1]
    by_parent_S = found.confidence_SMN[:, 0].mean(axis=1)
    ratio, own = wording.percent(last.network.ratio_reached), confidence(last.by_parent.mean)
    random = confidence(by_parent_S[len(found.record.networks)])
    gives = f"At {ratio} removed, the pixels that the pruned network relies on give the parent a confidence of {own}"
    separate = separate_index(found.record.networks)
    if separate is None:
        return f"{gives}, against {random} for random ones: {_beyond_random(last.beyond_random)}."
    against = (
        f"against {confidence(by_parent_S[separate])} for those of a separate network and {random} for random ones"
    )
    return f"{gives}, {against}: {_beyond_separate(last.beyond_separate)}{_closest(every)}."


def _beyond_separate(one: Difference | None) -> str:
    if one is None or not is_told(one):
        return "these images do not tell whether it is nearer to its parent than a network of another seed"
    return "it still looks at what its parent looks at" if one.mean > 0 else "it looks at other pixels"


def _beyond_random(one: Difference) -> str:
    if not is_told(one):
        return "these images cannot tell its pixels from random ones"
    return "they are not random to the parent" if one.mean > 0 else "to the parent they are worse than random"


def _closest(every: Sequence[Look]) -> str:
    """Up to which smaller ratio networks look where the parent looks; empty where the last one does, or none."""
    closer = [one.beyond_separate is not None and is_told(one.beyond_separate, above=True) for one in every]
    if closer[-1]:
        return ""
    up_to = next((index for index, is_closer in enumerate(closer) if not is_closer), len(closer))
    if not up_to:
        return ""
    ratio = wording.percent(every[up_to - 1].network.ratio_reached)
    return f"; up to {ratio} removed, it looks where its parent looks"


def is_told(one: Difference, *, above: bool = False) -> bool:
    """Whether the images tell a difference from none; with `above`, from none or less."""
    return one.p_value <= LEVEL and (one.mean > 0 or not above)


def numbers(found: Features) -> list[PopulationNumber]:
    """Of every pruned network: confidences in the true class, and the fraction of pixels shared with the parent."""
    record = found.record
    return [
        PopulationNumber(record.method, record.budget, one.network.ratio_reached, f"features/{name}", value)
        for one in looks(found)
        for name, value in (
            ("own_pixels", one.own.mean),
            ("pixels_judged_by_parent", one.by_parent.mean),
            ("pixels_of_parent", one.of_parent.mean),
            ("shared_with_parent", one.shared.mean),
        )
    ]


def confidence(value: float) -> str:
    """Such as `0.35`."""
    return f"{value:.2f}"


# -- text ------------------------------------------------------------------------------------------------------------


def features_text(found: Features, *, storage_flag: str = "") -> str:
    """The conclusion, the heat map, the pruned networks beside their parent, and what explains them.

    Args:
        storage_flag: what a command needs to find the storage, such as ` --storage FOLDER`.
    """
    record = found.record
    table = heat_map(found)
    blocks = [
        wrapped(f"{record.sweep}: {context(record)}"),
        wrapped(conclusion(found)),
        ["Confidence in the true class. Rows: whose pixels; columns: who sees them.", *_heat_rows(table)],
        ["Pruned networks beside their parent", *aligned(look_rows(found))],
        [line for note in notes(found, table, storage_flag=storage_flag) for line in wrapped(note, indent="  ")],
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def context(record: FeaturesRecord) -> str:
    """What was looked at and how, in one line."""
    retraining = wording.epochs(record.budget)
    return (
        f"{record.method}, {retraining}, seed {record.seed}; {wording.count(record.num_images, 'test image')}, "
        f"{record.num_kept} of {wording.thousands(record.num_pixels)} pixels kept; {record.question.selector.label}"
    )


def _heat_rows(table: HeatMap) -> list[str]:
    rows = [["", *table.judges]]
    for source, row_M in zip(table.sources, table.mean_SM, strict=True):
        rows.append([source, *map(confidence, row_M)])
    return aligned(rows)


def look_rows(found: Features) -> list[list[str]]:
    """A head, and a row for each pruned network."""
    has_separate = separate_index(found.record.networks) is not None
    heads = ["removed", "own pixels", "parent on them", "on parent's", "shared"]
    rows = [[*heads, "beyond separate", "p"] if has_separate else heads]
    for one in looks(found):
        row = [
            wording.percent(one.network.ratio_reached),
            confidence(one.own.mean),
            confidence(one.by_parent.mean),
            confidence(one.of_parent.mean),
            wording.percent(one.shared.mean),
        ]
        if one.beyond_separate is not None:
            row += [_signed(one.beyond_separate), _p(one.beyond_separate.p_value)]
        rows.append(row)
    return rows


def notes(found: Features, table: HeatMap, *, storage_flag: str = "") -> list[str]:
    """What explains the numbers, and what was not looked at."""
    record = found.record
    networks = record.networks
    separate = separate_index(networks)
    largest = float(table.standard_error_SM.max()) if record.num_images > 1 else math.nan
    chance = wording.percent(record.num_kept / record.num_pixels)
    lines = []
    if math.isnan(largest):
        lines.append("One image: how far these numbers hold for others is unknown.")
    else:
        lines.append(f"Standard errors over images are at most {confidence(largest)}.")
    told = f"shared: of the kept pixels, those that the parent keeps as well; {chance} by chance"
    if separate is not None:
        told += f", {wording.percent(shared(found, separate, 0).mean)} of the separate network's"
    lines.append(f"{told}.")
    if separate is None:
        lines.append(
            "One seed: there is no separate network to compare with. To have one, type: "
            f"prune-cli sweep {record.sweep} --population 2{storage_flag}"
        )
    else:
        lines.append(
            "beyond separate: how much surer the parent is on them than on the pixels of the separate network (the "
            f"parent of seed {networks[separate].seed}); p of a paired t-test over images"
            + (", adjusted for all ratios (Holm)." if len(networks) > 3 else ".")
        )
    lines.append(
        "A network keeps pixels for the class that it sees itself. Where that is a wrong one, they speak against the "
        "true class to everybody: own pixels show how often."
    )
    return lines


def _signed(one: Difference) -> str:
    digits = f"{abs(one.mean):.2f}"
    sign = "" if float(digits) == 0 else "+" if one.mean > 0 else wording.MINUS
    error = "" if math.isnan(one.standard_error) else f" ± {one.standard_error:.2f}"
    return f"{sign}{digits}{error}"


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}"


# -- JSON and CSV ----------------------------------------------------------------------------------------------------


def features_json(found: Features) -> JSON:
    """One object for `--json`. Pruned networks are flat: who they are stands beside what was measured."""
    record, table = found.record, heat_map(found)
    return {
        **record.model_dump(mode="json", exclude={"format", "networks", "question", "class_names", "pictures"}),
        **record.question.selector.model_dump(mode="json"),
        "data_fingerprint": record.question.data_fingerprint,
        "images": list(record.question.images),
        "num_kept": record.num_kept,
        "forwards_per_image": forwards_of(record.question.selector, record.num_pixels),
        "conclusion": conclusion(found),
        "networks": [one.model_dump(mode="json") for one in record.networks],
        "heat_map": {
            "pixels_of": list(table.sources),
            "judged_by": list(table.judges),
            "confidence": table.mean_SM.tolist(),
            "standard_error": [[_or_none(value) for value in row] for row in table.standard_error_SM.tolist()],
        },
        "looks": [_look(one) for one in looks(found)],
    }


def _look(one: Look) -> JSON:
    separate = one.beyond_separate
    return {
        **one.network.model_dump(mode="json", exclude={"role"}),
        "own": _estimate(one.own),
        "judged_by_parent": _estimate(one.by_parent),
        "of_parent": _estimate(one.of_parent),
        "shared_with_parent": _estimate(one.shared),
        "beyond_separate": _difference(separate) if separate else None,
        "beyond_random": _difference(one.beyond_random),
    }


def _estimate(one: Estimate) -> JSON:
    return {"mean": one.mean, "standard_error": _or_none(one.standard_error)}


def _difference(one: Difference) -> JSON:
    return {"mean": one.mean, "standard_error": _or_none(one.standard_error), "p_value": one.p_value}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def features_csv(found: Features) -> str:
    """The heat map, a line for each cell."""
    record, table = found.record, heat_map(found)
    ratios: list[float | None] = [one.ratio_reached for one in record.networks]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    of_sweep = (record.sweep, record.method, record.budget, record.seed)
    for source, row, error_row, ratio in zip(
        table.sources, table.mean_SM, table.standard_error_SM, [*ratios, None, None], strict=True
    ):
        for judge, mean, error, of_judge in zip(table.judges, row, error_row, ratios, strict=True):
            keep = 1.0 if source == WHOLE else record.keep
            measured = (keep, float(mean), _or_none(float(error)), record.num_images)
            writer.writerow((*of_sweep, source, judge, ratio, of_judge, *measured))
    return text.getvalue()
