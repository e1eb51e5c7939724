"""The background thread, with a place to write to that keeps what it gets in a list. Needs no MLflow."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from raypruning.core.identity import make_training
from raypruning.core.populations import Losses, PopulationNumber
from raypruning.core.records import (
    Cost,
    Curve,
    DataChoice,
    Failure,
    ModelChoice,
    Probe,
    ProbeResult,
    Recipe,
    SweepResults,
    SweepSpec,
)
from raypruning.runtime.trackers import BackgroundTracker, NullTracker, Read

SPEC = SweepSpec(
    name="small",
    model=ModelChoice(name="lenet5"),
    data=DataChoice(name="digits"),
    methods=(),
    budgets=(0,),
    recipe=Recipe(epochs=1, learning_rate=0.1),
)


def result(seed: int) -> ProbeResult:
    training = make_training(
        model=SPEC.model, data=SPEC.data, data_fingerprint="data", recipe=SPEC.recipe, epochs=1, seed=seed
    )
    curve = Curve(model="lenet5", dataset="digits", method="dense", budget=0, seed=seed)
    failure = Failure(kind="E", message="m")
    return ProbeResult(probe=Probe(curve=curve, ratio=0, training=training), status="failed", failure=failure)


RESULTS = [result(seed) for seed in range(3)]
SWEEP = SweepResults(
    spec=SPEC,
    tasks=(),
    data_fingerprint="data",
    probes=tuple(RESULTS),
    potentials=(),
    summaries=(),
    excess_errors=(),
    cost=Cost(num_probes=0, num_trained=0, num_evaluated=0, num_failed=0, epochs=0, seconds={}, wall_seconds=0),
    storage="/s",
)


class Page:
    """A view that remembers, and refuses what it is told to."""

    def __init__(self, *, refused: Sequence[str] = (), gate: threading.Event | None = None) -> None:
        self.shown: list[str] = []
        self.refused = set(refused)
        self.gate = gate

    def show_probe(self, result: ProbeResult) -> None:
        if self.gate is not None:
            assert self.gate.wait(60)
        if result.probe.id in self.refused:
            raise ValueError(f"no room for {result.probe.id}")
        if result.probe.id not in self.shown:
            self.shown.append(result.probe.id)

    def show_answer(self, results: SweepResults, curve: Curve) -> None:
        self.shown.append(curve.label)

    def upload(self, training_id: str, read: Read) -> None:
        raise AssertionError("no checkpoint here")

    def show_losses(self, results: SweepResults, losses: Losses) -> None:
        self.shown.append(f"{len(losses.numbers)} numbers, {len(losses.files)} files")

    def describe(self, results: SweepResults) -> None:
        self.shown.append("words")

    def interrupt(self) -> None:
        self.shown.append("interrupted")

    def distrust(self) -> None: ...


def tracker_of(page: Page, *, num_outages: int = 0) -> BackgroundTracker:
    outages = iter(range(num_outages))

    def open_page(spec: SweepSpec) -> Page:
        for outage in outages:
            raise ConnectionError(f"outage {outage} of http://secret@place")
        return page

    return BackgroundTracker(
        open_page,
        name="The place",
        hide={"secret@": ""},
        is_outage=lambda error: isinstance(error, OSError),
    )


def read(training_id: str) -> dict[str, bytes]:
    raise AssertionError(training_id)


PROBES = [result.probe.id for result in RESULTS]
ANSWER = [*(result.probe.curve.label for result in RESULTS), "words"]


def test_everything_is_shown_in_order() -> None:
    page = Page()
    tracker = tracker_of(page)
    tracker.start(SPEC)
    for each in RESULTS:
        tracker.log_probe(each)
    tracker.finish(SWEEP, checkpoints=["failed, so without files", PROBES[0]], read=read)
    assert page.shown == PROBES + ANSWER
    assert tracker.problems == ()


def test_what_was_lost_is_shown_between_the_curves_and_the_words() -> None:
    page = Page()
    losses = Losses((PopulationNumber("wt", 2, 0.9, "cka", 0.5),), {"lost.html": b"page"})
    tracker_of(page).finish(SWEEP, checkpoints=[], read=read, losses=losses)
    assert page.shown == [*PROBES, *ANSWER[:-1], "1 numbers, 1 files", "words"]


def test_logging_returns_while_the_place_is_busy() -> None:
    page = Page(gate=threading.Event())
    tracker = tracker_of(page)
    tracker.start(SPEC)
    tracker.log_probe(RESULTS[0])
    assert page.shown == []
    assert page.gate is not None
    page.gate.set()
    tracker.finish(SWEEP, checkpoints=[], read=read)
    assert page.shown == PROBES + ANSWER


def test_short_outage_is_outlasted() -> None:
    page = Page()
    tracker = tracker_of(page, num_outages=2)
    tracker.finish(SWEEP, checkpoints=[], read=read)
    assert page.shown == PROBES + ANSWER
    assert tracker.problems == ()


def test_lasting_outage_is_warned_of_once_and_told_without_the_password(caplog: pytest.LogCaptureFixture) -> None:
    page = Page()
    tracker = tracker_of(page, num_outages=1000)
    tracker.start(SPEC)
    for each in RESULTS:
        tracker.log_probe(each)
    tracker.finish(SWEEP, checkpoints=[], read=read)
    assert page.shown == []
    assert len([record for record in caplog.records if record.name == "raypruning.mlflow"]) == 1
    assert tracker.problems
    assert all("prune-cli track" in problem and "secret" not in problem for problem in tracker.problems)


def test_refused_probe_is_the_only_one_missing() -> None:
    page = Page(refused=[PROBES[1]])
    tracker = tracker_of(page)
    tracker.finish(SWEEP, checkpoints=[], read=read)
    assert page.shown == [PROBES[0], PROBES[2], *ANSWER]
    (problem,) = tracker.problems
    assert problem.startswith(f"The place lacks probe {PROBES[1]}: no room for {PROBES[1]}.")


def test_interrupted_sweep_is_marked_after_what_was_pending() -> None:
    page = Page()
    tracker = tracker_of(page)
    tracker.start(SPEC)
    tracker.log_probe(RESULTS[0])
    tracker.close()
    assert page.shown == [PROBES[0], "interrupted"]


def test_closing_what_was_never_started_does_nothing() -> None:
    page = Page()
    tracker_of(page).close()
    assert page.shown == []


def test_null_tracker_takes_everything_and_has_no_problems() -> None:
    tracker = NullTracker()
    tracker.start(SPEC)
    tracker.log_probe(RESULTS[0])
    tracker.finish(SWEEP, checkpoints=[], read=read)
    tracker.close()
    assert tracker.problems == ()
