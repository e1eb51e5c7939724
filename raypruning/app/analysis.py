"""Potentials and excess errors of a sweep with all that tells how sure they are, from stored predictions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from raypruning.analysis.bootstrap import Resampler, interval_of, intervals_of, mean_over_seeds, resampled_potentials
from raypruning.analysis.certified import certified, resampled_upper_bound
from raypruning.analysis.estimates import estimate_of, fitted_ratios, mean_estimate
from raypruning.analysis.metrics import Metric, metric_of, standard_error
from raypruning.analysis.paired import CONFIDENCE, Discordance, discordance, images_needed, is_within
from raypruning.core.excess import excess_errors
from raypruning.core.plan import Plan
from raypruning.core.potential import Threshold, potential
from raypruning.core.records import Curve, Estimate, ExcessError, Potential, PotentialSummary, ProbeResult
from raypruning.core.search.strategy import Loss
from raypruning.runtime.store import ObjectStore


class Measured(NamedTuple):
    """Of one network on one task.

    Attributes:
        errors_R: its error in each resample of the test images.
        loss: against its parent, on all images.
        discordance: with its parent; None where errors are no counts of images.
    """

    errors_R: np.ndarray
    loss: Loss
    discordance: Discordance | None


class _Answers(NamedTuple):
    """Of one network, by image: its influence on the error, and, where errors count images, whether it is wrong."""

    influence_N: np.ndarray
    wrong_N: np.ndarray | None

    @classmethod
    def of(cls, metric: Metric, arrays: Mapping[str, np.ndarray]) -> _Answers:
        wrong_N = metric.statistics(arrays)[:, 0].astype(bool) if metric.counts else None
        return cls(metric.influence(arrays), wrong_N)


class Analysis:
    """Of a plan's curves, reading each network's predictions on a task once.

    Args:
        by_curve: results that count, of each curve.
        parents: of each seed; None where there is no result.
        cut_short: curves whose search a limit ended.
    """

    def __init__(
        self,
        plan: Plan,
        store: ObjectStore,
        by_curve: Mapping[Curve, Sequence[ProbeResult]],
        parents: Mapping[int, ProbeResult | None],
        *,
        cut_short: Collection[Curve] = (),
    ) -> None:
        self._plan, self._store, self._by_curve, self._parents = plan, store, by_curve, parents
        self._cut_short = cut_short
        self._tasks = {task.name: task for task in plan.tasks}
        self._networks = {
            result.probe.id: result
            for results in (*by_curve.values(), parents.values())
            for result in results
            if result is not None and result.is_done
        }
        self._resampler = Resampler()
        self._measured: dict[str, dict[str, Measured]] = {}
        self._resampled: dict[tuple[Curve, Threshold], np.ndarray] = {}
        self._fitted: dict[tuple[Curve, str], np.ndarray] = {}

    def potentials(self) -> tuple[Potential, ...]:
        """One for each curve, task and delta."""
        found = []
        for curve in self._by_curve:
            results, dense = self._by_curve[curve], self._parents[curve.seed]
            for threshold in self._plan.thresholds:
                one = potential(
                    curve,
                    threshold,
                    results=results,
                    dense=dense,
                    search=self._plan.search,
                    num_examples=self._tasks[threshold.task].num_examples,
                    is_cut_short=curve in self._cut_short,
                )
                found.append(self._with_certainty(one, threshold, results, dense))
        return tuple(found)

    def summaries(self, potentials: Iterable[Potential]) -> tuple[PotentialSummary, ...]:
        """Potentials over seeds."""
        groups: dict[tuple[str, str, int, float], list[Potential]] = {}
        for one in potentials:
            groups.setdefault((one.curve.method, one.task, one.curve.budget, one.delta), []).append(one)
        return tuple(self._summary(group) for group in groups.values())

    def excess_errors(self) -> tuple[ExcessError, ...]:
        """One for each measured probe and shifted task."""
        found, samples = [], []
        for curve in self._by_curve:
            dense = self._parents[curve.seed]
            for result in self._by_curve[curve]:
                if dense is None or not (result.is_done and dense.is_done):
                    continue
                for one in excess_errors(result, dense, tasks=self._plan.tasks):
                    lost_R = {
                        name: self.measured(result, name).errors_R - self.measured(dense, name).errors_R
                        for name in (one.task, one.nominal)
                    }
                    samples.append(lost_R[one.task] - lost_R[one.nominal])
                    found.append(one)
        return tuple(
            one.model_copy(update={"interval": interval})
            for one, interval in zip(found, intervals_of(samples), strict=True)
        )

    def measured(self, result: ProbeResult, task_name: str) -> Measured:
        """What is known of a network on a task. All networks at once, for one product of matrices."""
        if task_name not in self._measured:
            self._measured[task_name] = self._measure(task_name)
        return self._measured[task_name][result.probe.id]

    def _measure(self, task_name: str) -> dict[str, Measured]:
        task = self._tasks[task_name]
        metric = metric_of(task.metric)
        predictions = {key: self._store.predictions(one.evaluations[task_name]) for key, one in self._networks.items()}
        errors_RP = self._resampler.errors(metric, list(predictions.values()), images=task.images)
        # Of each parent once: a hundred networks may be compared with it.
        of_parent = {
            dense.probe.id: _Answers.of(metric, predictions[dense.probe.id])
            for dense in self._parents.values()
            if dense is not None and dense.is_done
        }
        found = {}
        for (key, arrays), errors_R in zip(predictions.items(), errors_RP.T, strict=True):
            result = self._networks[key]
            dense = self._parents[result.probe.curve.seed]
            assert dense is not None and dense.is_done  # No pruned network was asked for without its parent.
            parent, own = of_parent[dense.probe.id], _Answers.of(metric, arrays)
            lost = result.evaluations[task_name].error - dense.evaluations[task_name].error
            error = standard_error(own.influence_N, parent.influence_N)
            pair = None
            if own.wrong_N is not None and parent.wrong_N is not None:
                pair = discordance(parent.wrong_N, own.wrong_N)
            found[key] = Measured(errors_R, Loss(lost, error), pair)
        return found

    def _with_certainty(
        self, one: Potential, threshold: Threshold, results: Sequence[ProbeResult], dense: ProbeResult | None
    ) -> Potential:
        done = [result for result in results if result.is_done]
        if dense is None or not dense.is_done or not done:
            return one
        task, delta = threshold
        of_task = self._tasks[task]
        samples = resampled_potentials(
            np.stack([self.measured(result, task).errors_R for result in done], axis=1),
            self.measured(dense, task).errors_R,
            [result.ratio_reached for result in done],
            delta=delta,
            num_images=of_task.num_examples,
            counts=metric_of(of_task.metric).counts,
        )
        self._resampled[one.curve, threshold] = samples
        within = [self._is_certain(result, dense, threshold) for result in done]
        index = certified([result.ratio_reached for result in done], within)
        return one.model_copy(
            update={
                "interval": interval_of(samples),
                "certified": 0.0 if index is None else done[index].ratio_reached,
                "certified_confidence": CONFIDENCE,
                "estimate": self._estimate(one.curve, threshold, done),
                "num_needed": self._num_needed(one, done, threshold),
            }
        )

    def _is_certain(self, result: ProbeResult, dense: ProbeResult, threshold: Threshold) -> bool:
        """Whether the upper bound of the loss is within delta."""
        task, delta = threshold
        found = self.measured(result, task)
        if found.discordance is not None:
            return is_within(found.discordance, delta)
        return resampled_upper_bound(found.errors_R - self.measured(dense, task).errors_R) <= delta

    def _estimate(self, curve: Curve, threshold: Threshold, done: Sequence[ProbeResult]) -> Estimate:
        """Where the curve fitted to all networks of a curve crosses delta."""
        task, deltas = threshold.task, self._plan.spec.deltas
        if (curve, task) not in self._fitted:
            losses = [(result.ratio_reached, self.measured(result, task).loss) for result in done]
            self._fitted[curve, task] = fitted_ratios(losses, deltas, search=self._plan.search)
        return estimate_of(self._fitted[curve, task][:, deltas.index(threshold.delta)])

    def _num_needed(self, one: Potential, done: Sequence[ProbeResult], threshold: Threshold) -> int | None:
        """Images that certify a network like that at the potential, or like the smallest if only dense is within."""
        at = next((result for result in done if result.probe.id == one.training), None)
        chosen = at or min(done, key=lambda result: result.ratio_reached)
        pair = self.measured(chosen, threshold.task).discordance
        return None if pair is None else images_needed(pair.rate, threshold.delta)

    def _summary(self, group: Sequence[Potential]) -> PotentialSummary:
        first = group[0]
        known = [one.ratio for one in group if one.ratio is not None]
        key = Threshold(first.task, first.delta)
        samples = [self._resampled[one.curve, key] for one in group if (one.curve, key) in self._resampled]
        estimates = [one.estimate for one in group if one.estimate is not None]
        proven = [one.certified for one in group if one.certified is not None]
        needed = [one.num_needed for one in group if one.num_needed is not None]
        return PotentialSummary(
            method=first.curve.method,
            task=first.task,
            budget=first.curve.budget,
            delta=first.delta,
            n=len(group),
            num_known=len(known),
            mean=float(np.mean(known)) if known else None,
            sd=float(np.std(known, ddof=1)) if len(known) > 1 else None,
            low=min(known, default=None),
            high=max(known, default=None),
            interval=interval_of(mean_over_seeds(samples)) if samples else None,
            certified=min(proven, default=None),
            estimate=mean_estimate(estimates) if estimates else None,
            num_needed=max(needed, default=None),
            num_at_top=sum(one.status == "at_top" for one in group),
            num_open=sum(one.status == "open" for one in group),
            num_not_monotone=sum(one.status == "not_monotone" for one in group),
        )
