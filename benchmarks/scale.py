"""Two thousand probes through the real searcher, store and tracker: what a sweep costs its driver.

    python benchmarks/scale.py [--probes 2000] [--gpus 1000] [--folder DIR]

Part one runs a sweep whose probes are known answers: a worker commits made-up weights and predictions and goes home, so
that all the time there is belongs to us: plan, search, Ray Tune, store, MLflow. It prints the driver's CPU time for
each probe and its memory as the sweep grows, and how long `report` and `list runs` take afterwards.

Part two asks where the time of a thousand GPUs goes: the same plan and the same rule for what is asked next, probes
that take as long as training does, an event for each that ends. Nothing is run; the clock is simulated. Source of the
epochs: Lost in Pruning, appendix, ResNet-101 (90); seconds an epoch and between probes are arguments.
"""

# P probes

from __future__ import annotations

import argparse
import heapq
import itertools
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from raypruning.app.results import collect, write_record
from raypruning.app.sweep import write_report
from raypruning.core.plan import Plan, next_probes
from raypruning.core.ports import ProbeJob, ProbeOutcome
from raypruning.core.records import (
    Checkpoint,
    DataChoice,
    Evaluation,
    MethodChoice,
    ModelChoice,
    Probe,
    ProbeResult,
    Recipe,
    Resources,
    SearchSpec,
    SweepSpec,
    Task,
    TrainingResult,
)
from raypruning.runtime.dispatcher import Dispatcher
from raypruning.runtime.mlflow_tracker import MlflowTracker
from raypruning.runtime.store import ObjectStore, open_store

NUM_IMAGES = 1000
RATIOS = tuple(round(1 - 0.85**step, 6) for step in range(1, 21))
MEASURED_EVERY = 100


# -- probes of known answers -----------------------------------------------------------------------------------------


def plan_of(num_probes: int) -> Plan:
    """A grid sweep of so many pruned probes, twenty a curve, over two methods and as many seeds as it takes."""
    num_seeds = max(1, round(num_probes / (2 * len(RATIOS))))
    spec = SweepSpec(
        name="scale",
        model=ModelChoice(name="lenet5"),
        data=DataChoice(name="strokes"),
        methods=(MethodChoice(name="wt"), MethodChoice(name="ft")),
        tasks=("nominal", "noise/uniform/0.1"),
        seeds=tuple(range(num_seeds)),
        budgets=(1,),
        search=SearchSpec(strategy="grid", ratios=RATIOS, low=RATIOS[0], high=RATIOS[-1]),
        recipe=Recipe(epochs=1, learning_rate=0.1),
    )
    tasks = tuple(
        Task(name=name, dataset="strokes", nominal="nominal", num_examples=NUM_IMAGES, fingerprint=f"{index:016x}")
        for index, name in enumerate(spec.tasks)
    )
    return Plan(spec=spec, data_fingerprint="d" * 64, tasks=tasks)


def num_wrong(probe: Probe, task: Task) -> int:
    """The known answer: an error that rises with the ratio, faster on the second task."""
    return round(NUM_IMAGES * min(0.9, 0.02 + 0.3 * probe.ratio ** (8 if task.nominal == task.name else 4)))


def commit(store: ObjectStore, job: ProbeJob) -> ProbeOutcome:
    """What a worker leaves behind, at once."""
    probe = job.probe
    checkpoint = Checkpoint(
        uri="",
        sha256="",
        num_bytes=0,
        ratio_asked=probe.ratio,
        ratio_reached=probe.ratio,
        num_nonzero=round((1 - probe.ratio) * 10_000),
        num_params=10_000,
        num_prunable=10_000,
        macs=1,
        macs_dense=1,
    )
    result = TrainingResult(training=probe.training, checkpoint=checkpoint)
    store.commit_training(result, weights={"weight": np.zeros(10_000, np.float32)}, masks={})
    for task in job.tasks:
        wrong = num_wrong(probe, task)
        predictions = {
            "predicted": (np.arange(NUM_IMAGES) < wrong).astype(np.uint16),
            "label": np.zeros(NUM_IMAGES, np.uint16),
            "log_probability": np.full(NUM_IMAGES, -0.1, np.float16),
            "is_top5": np.ones(NUM_IMAGES, bool),
        }
        evaluation = Evaluation(
            training=probe.id,
            task=task.name,
            task_fingerprint=task.fingerprint,
            error=wrong / NUM_IMAGES,
            num_examples=NUM_IMAGES,
            num_wrong=wrong,
            loss=0.1,
            predictions="",
            sha256="",
        )
        store.commit_evaluation(evaluation, predictions=predictions)
    return ProbeOutcome(training=probe.id, was_trained=True)


class Growth(NamedTuple):
    """The driver after so many probes.

    Attributes:
        loop_seconds: CPU time of the thread that runs Tune's loop and the search: what a probe waits for.
        all_seconds: of the whole process, MLflow's thread in the background included.
    """

    num: int
    loop_seconds: float
    all_seconds: float
    memory_mb: float


def run_sweep(plan: Plan, folder: Path) -> list[Growth]:
    """The sweep, its record, its report and MLflow; how the driver grew on the way."""
    from raypruning.runtime.ray_tune import ProbeTrainable, RayExecutor

    class KnownAnswers(ProbeTrainable):
        def step(self) -> dict[str, Any]:
            job = ProbeJob.model_validate_json(self.config["job"])
            outcome = commit(open_store(self.config["storage"]), job)
            return {"outcome": outcome.model_dump_json(), "done": True}

    store = open_store(str(folder))
    tracker = MlflowTracker(f"sqlite:///{folder}/mlflow.db")
    tracker.start(plan.spec)
    grown: list[Growth] = []
    process = psutil.Process()

    def on_result(result: ProbeResult, dispatcher: Dispatcher) -> None:
        tracker.log_probe(result)
        if len(dispatcher.results) % MEASURED_EVERY == 0:
            everything, memory = process.cpu_times(), process.memory_info().rss
            used = time.thread_time(), everything.user + everything.system
            grown.append(Growth(len(dispatcher.results), *used, memory / 2**20))

    executor = RayExecutor(
        storage=str(folder), resources=Resources(), max_concurrent=None, address=None, log_path=folder / "ray.log"
    )
    executor.trainable = KnownAnswers
    run: dict[str, Any] = {"tracking_uri": tracker.uri, "failed": []}
    write_record(store, plan, run)
    dispatcher = Dispatcher(
        plan, store, make_job=lambda probe, tasks, attempt: ProbeJob(probe=probe, tasks=tasks), on_result=on_result
    )
    executor.drive(dispatcher)
    assert all(
        one.evaluations[task.name].num_wrong == num_wrong(one.probe, task)
        for one in dispatcher.results.values()
        for task in plan.tasks
    )
    answer = collect(plan, dispatcher.results, store, run=run)
    tracker.finish(answer, checkpoints=(), read=store.training_files)
    assert not tracker.problems, tracker.problems
    write_report(store, answer)
    return grown


def seconds_of(words: list[str]) -> float:
    """Wall time of a command."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cli", *words], check=True, capture_output=True)
    return time.perf_counter() - began


# -- a thousand GPUs ---------------------------------------------------------------------------------------------------


class Fleet(NamedTuple):
    """Where the time of a fleet went, in fractions of it.

    Attributes:
        hours: that the sweep took.
        busy: training and evaluating.
        waiting: idle because the search waits for what runs.
        starting: between two probes of a GPU.
    """

    hours: float
    busy: float
    waiting: float
    starting: float


def simulate(plan: Plan, *, num_gpus: int, seconds_of_probe: Callable[[Probe], float], gap: float) -> Fleet:
    """The plan on so many GPUs, one probe each. What is asked next is asked by the plan itself."""
    results: dict[str, ProbeResult] = {}
    running: list[tuple[float, str, Probe]] = []
    asked: set[str] = set()
    queue: list[Probe] = []
    clock = busy = starting = 0.0
    while True:
        queue += [probe for probe in next_probes(plan, results) if probe.id not in asked]
        asked |= {probe.id for probe in queue}
        while queue and len(running) < num_gpus:
            probe = queue.pop(0)
            takes = seconds_of_probe(probe)
            busy, starting = busy + takes, starting + gap
            heapq.heappush(running, (clock + gap + takes, probe.id, probe))
        if not running:
            break
        clock, _, done = heapq.heappop(running)
        results[done.id] = known_result(done, plan)
        while running and running[0][0] <= clock:
            _, _, done = heapq.heappop(running)
            results[done.id] = known_result(done, plan)
    whole = clock * num_gpus
    return Fleet(clock / 3600, busy / whole, 1 - (busy + starting) / whole, starting / whole)


def known_result(probe: Probe, plan: Plan) -> ProbeResult:
    """What a finished probe tells the search."""
    evaluations = {
        task.name: Evaluation(
            training=probe.id,
            task=task.name,
            task_fingerprint=task.fingerprint,
            error=num_wrong(probe, task) / NUM_IMAGES,
            num_examples=NUM_IMAGES,
            num_wrong=num_wrong(probe, task),
            loss=0.1,
            predictions="",
            sha256="",
        )
        for task in plan.tasks
    }
    return ProbeResult(
        probe=probe, status="done", evaluations=evaluations, standard_errors=dict.fromkeys(evaluations, 0.003)
    )


def fleets(num_gpus: int, *, seconds_an_epoch: float, gap: float) -> list[tuple[str, int, Fleet]]:
    """Sweeps as people would start them, on a fleet."""
    base = plan_of(1)
    found = []
    for name, search in (
        ("grid of 20", {"strategy": "grid", "ratios": RATIOS}),
        ("bisect", {"strategy": "bisect"}),
        ("bisect, k = 8", {"strategy": "bisect", "probes_per_round": 8}),
        ("model", {"strategy": "model"}),
        ("model, k = 8", {"strategy": "model", "probes_per_round": 8}),
    ):
        for num_seeds in (3, 30):
            spec = base.spec.model_copy(
                update={
                    "seeds": tuple(range(num_seeds)),
                    "budgets": (90,),
                    "recipe": base.spec.recipe.model_copy(update={"epochs": 90}),
                    "search": SearchSpec.model_validate({"low": 0.3, "high": 0.96, **search}),
                }
            )
            plan = Plan(spec=spec, data_fingerprint=base.data_fingerprint, tasks=base.tasks)
            fleet = simulate(
                plan,
                num_gpus=num_gpus,
                seconds_of_probe=lambda probe: seconds_an_epoch * max(1, probe.training.epochs),
                gap=gap,
            )
            found.append((f"{name}, 2 methods x {num_seeds} seeds", num_gpus, fleet))
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probes", type=int, default=2000)
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--seconds-an-epoch", type=float, default=120.0, help="of the fleet's network on one GPU")
    parser.add_argument("--gap", type=float, default=0.2, help="seconds between two probes of a GPU")
    parser.add_argument("--folder", type=Path, help="storage to fill; a temporary one if not given")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, {platform.machine()}, {psutil.cpu_count()} cores")
    print(f"command: python benchmarks/{' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "store"
        folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        grown = run_sweep(plan_of(arguments.probes), folder)
        wall = time.perf_counter() - began
        print("| probes | of the last 100, each: loop, ms | with MLflow's thread, ms | memory, MB |\n|--:|--:|--:|--:|")
        for before, after in itertools.pairwise(grown):
            each = [1000 * (b - a) / MEASURED_EVERY for a, b in zip(before[1:3], after[1:3], strict=True)]
            print(f"| {after.num} | {each[0]:.1f} | {each[1]:.1f} | {after.memory_mb:.0f} |")
        first, last = grown[0], grown[-1]
        loop, both = (1000 * (b - a) / (last.num - first.num) for a, b in zip(first[1:3], last[1:3], strict=True))
        print(
            f"\n{last.num} probes in {wall:.0f} s; {loop:.1f} ms of CPU for each in the driver's loop (wanted: below "
            f"50), {both:.1f} ms with MLflow's thread"
        )
        settled = [one for one in grown if one.num >= 500]
        if len(settled) > 1:
            slope = statistics.linear_regression([o.num for o in settled], [o.memory_mb for o in settled]).slope
            print(f"memory after the first 500: {1000 * slope:+.0f} MB for each 1 000 probes")
        for words in (["report", "scale"], ["list", "runs"]):
            times = [seconds_of([*words, "--storage", str(folder)]) for _ in range(3)]
            print(f"prune-cli {' '.join(words)}: {min(times):.1f} to {max(times):.1f} s (n = 3; wanted: below 3)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    print("\n| sweep | GPUs | hours | busy | waiting for the search | between probes |\n|---|--:|--:|--:|--:|--:|")
    for num_gpus in (16, 128, arguments.gpus):
        for name, num, fleet in fleets(num_gpus, seconds_an_epoch=arguments.seconds_an_epoch, gap=arguments.gap):
            print(
                f"| {name} | {num} | {fleet.hours:.1f} | {100 * fleet.busy:.1f} % | {100 * fleet.waiting:.1f} % "
                f"| {100 * fleet.starting:.2f} % |"
            )


if __name__ == "__main__":
    main()
