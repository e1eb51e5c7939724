"""Texts that change only on purpose: the help of each command, and what each shipped sweep asks for first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raypruning.app.request import SweepRequest, resolve_request
from raypruning.app.sweep_files import sweep_names
from raypruning.core.bounds import max_pruned_probes
from raypruning.core.plan import Plan, next_probes, walk
from raypruning.core.records import Checkpoint, Evaluation, ProbeResult, Task, TrainingResult
from raypruning.tasks.task import describe_task
from raypruning.testing.made_up import made_up_dataset
from tests.test_architecture import FLAGS

GOLDEN = Path(__file__).parent / "golden"

# With that of all, "", and of each group.
COMMANDS = ("", *dict.fromkeys(part for command in FLAGS for part in (command.partition(" ")[0], command)))

Compare = Callable[[str, str], None]


def help_file(command: str) -> str:
    return f"{command.replace(' ', '_') or 'prune-cli'}.txt"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command or "prune-cli")
def test_help_of_a_command_is_the_recorded_one(
    command: str, prune_cli: Callable, golden: Compare, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "120")
    ran = prune_cli(*command.split(), "--help")
    text = "\n".join(line.rstrip() for line in ran.out.splitlines()) + "\n"
    golden(f"help/{help_file(command)}", text)
    assert ran.code == 0


@pytest.mark.parametrize("name", sweep_names())
def test_plan_of_a_shipped_sweep_is_the_recorded_one(name: str, golden: Compare):
    golden(f"plans/{name}.json", json.dumps(plan_as_json(plan_of(name)), indent=1) + "\n")


@pytest.mark.parametrize(
    ("folder", "opened"),
    [
        ("help", {help_file(command) for command in COMMANDS}),
        ("plans", {f"{name}.json" for name in sweep_names()}),
    ],
)
def test_every_golden_file_is_opened_by_a_test(folder: str, opened: set[str]):
    assert {path.name for path in (GOLDEN / folder).iterdir()} == opened


def plan_of(name: str) -> Plan:
    """The plan of a shipped sweep as typed on a fresh machine, over data of a made-up fingerprint."""
    spec = resolve_request(SweepRequest(target=name, gpus_per_probe=0.0), environment={}).spec
    dataset = made_up_dataset(name=spec.data.name, fingerprint="f" * 64, num_test=10_000)
    tasks = tuple(describe_task(task, dataset) for task in spec.tasks)
    return Plan(spec=spec, data_fingerprint="f" * 64, tasks=tasks)


def plan_as_json(plan: Plan) -> dict[str, object]:
    parents = next_probes(plan, {})
    results = {probe.id: _done(probe, plan.tasks) for probe in parents}
    controls = [probe for probe in next_probes(plan, results) if probe.curve.is_dense]
    return {
        "name": plan.spec.name,
        "spec": plan.spec.model_dump(mode="json"),
        "max_pruned_probes": max_pruned_probes(plan),
        "parents": [{"id": probe.id, "seed": probe.curve.seed, "epochs": probe.training.epochs} for probe in parents],
        "controls": [{"id": probe.id, "seed": probe.curve.seed, "epochs": probe.training.epochs} for probe in controls],
        "curves": {
            curve.label: [{"id": probe.id, "ratio": probe.ratio} for probe in walk(plan, curve, results).missing]
            for curve in plan.curves
        },
    }


def _done(probe, tasks: tuple[Task, ...]) -> ProbeResult:
    """A parent that was trained: only that it exists counts here."""
    checkpoint = Checkpoint(
        uri="",
        sha256="",
        num_bytes=0,
        ratio_asked=0.0,
        ratio_reached=0.0,
        num_nonzero=1,
        num_params=1,
        num_prunable=1,
        macs=1,
        macs_dense=1,
    )
    evaluations = {
        task.name: Evaluation(
            training=probe.id,
            task=task.name,
            task_fingerprint=task.fingerprint,
            error=0.0,
            num_examples=task.num_examples,
            num_wrong=0,
            loss=0.0,
            predictions="",
            sha256="",
        )
        for task in tasks
    }
    result = TrainingResult(training=probe.training, checkpoint=checkpoint)
    return ProbeResult(probe=probe, status="done", result=result, evaluations=evaluations)
