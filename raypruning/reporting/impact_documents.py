"""What pruning does to each class, as one JSON object and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from raypruning.analysis.class_impact import ClassImpact, Impact, PopulationImpact, Spread, mean_loss
from raypruning.reporting.impact import conclusion, headlines

JSON = dict[str, object]


def impact_json(found: Impact) -> JSON:
    """One object for `--json`. Losses are fractions and positive where something fell."""
    return {
        "sweep": found.sweep,
        "storage": found.storage,
        "model": found.model,
        "dataset": found.dataset,
        "correction": found.correction,
        "level": found.level,
        "conclusion": conclusion(found),
        "headlines": [
            {**_key(one.population), "text": one.text, "share_of_accuracy_kept": one.kept} for one in headlines(found)
        ],
        "populations": [_population(found, one) for one in found.populations],
        "tasks_left_out": list(found.left_out),
    }


def _key(one: PopulationImpact) -> JSON:
    return {
        "task": one.task,
        "method": one.method,
        "budget": one.budget,
        "ratio": one.ratio,
        "ratio_reached": one.ratio_reached,
    }


def _population(found: Impact, one: PopulationImpact) -> JSON:
    return {
        **_key(one),
        "test": one.test,
        "seeds_dense": list(one.seeds_dense),
        "seeds_pruned": list(one.seeds_pruned),
        "accuracy_dense": one.accuracy_dense._asdict(),
        "accuracy_pruned": one.accuracy_pruned._asdict(),
        "accuracy_lost": one.accuracy_lost,
        "num_classes_lost": len(one.lost),
        "num_classes_gained": len(one.gained),
        "mean_loss_of_lost": mean_loss(one.lost),
        "mean_loss_of_gained": mean_loss(one.gained),
        "never_found": [each.label for each in one.never_found],
        "missed_by_some": [each.label for each in one.missed_by_some],
        "collapsed": [each.label for each in one.collapsed],
        "classes": [_class(found, each) for each in one.worst_first],
    }


def _class(found: Impact, one: ClassImpact) -> JSON:
    return {
        "name": _name(found, one),
        **one._asdict(),
        "dense": one.dense._asdict(),
        "pruned": one.pruned._asdict(),
        "interval": one.interval.model_dump(mode="json") if one.interval else None,
        "seeds_without": list(one.seeds_without),
    }


def _name(found: Impact, one: ClassImpact) -> str:
    return found.class_names[one.label] if one.label < len(found.class_names) else ""


def impact_csv(found: Impact) -> str:
    """A row for each task, population and class. The first six columns are those of the PIE study, with its test.

    They are empty where there were too few networks for it.
    """
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for one in found.populations:
        for each in one.classes:
            row = _row(found, one, each)
            if writer is None:
                writer = csv.DictWriter(text, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
    return text.getvalue()


def _row(found: Impact, one: PopulationImpact, each: ClassImpact) -> Mapping[str, object]:
    return {
        "class": each.label,
        "pruning_fraction": one.ratio,
        "baseline_mean_recall": each.dense.mean,
        "variant_mean_recall": each.pruned.mean,
        "pvalue_recall_norm": each.study_p_value,
        "statistic_recall_norm": each.study_statistic,
        "class_name": _name(found, each),
        "task": one.task,
        "method": one.method,
        "budget": one.budget,
        "ratio_reached": one.ratio_reached,
        "num_images": each.num_images,
        "num_dense": each.dense.num,
        "num_pruned": each.pruned.num,
        **_spread("baseline_recall", each.dense),
        **_spread("variant_recall", each.pruned),
        "baseline_mean_accuracy": one.accuracy_dense.mean,
        "variant_mean_accuracy": one.accuracy_pruned.mean,
        "recall_lost": each.lost,
        "recall_lost_beyond_accuracy": each.lost_beyond,
        "test": each.test,
        "statistic": each.statistic,
        "p_value": each.p_value,
        "p_adjusted": each.p_adjusted,
        "correction": found.correction,
        "effect_size": each.effect_size,
        "interval_of": "recall_lost" if one.is_paired else "recall_lost_beyond_accuracy",
        "interval_low": each.interval.low if each.interval else None,
        "interval_high": each.interval.high if each.interval else None,
        "interval_confidence": each.interval.confidence if each.interval else None,
        "images_lost": each.num_lost,
        "images_gained": each.num_gained,
        "verdict": each.verdict,
    }


def _spread(name: str, spread: Spread) -> JSON:
    return {
        f"{name}_sd": spread.sd,
        f"{name}_min": spread.low,
        f"{name}_max": spread.high,
        f"{name}_num_zero": spread.num_zero,
    }
