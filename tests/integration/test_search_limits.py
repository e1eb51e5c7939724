"""Limits and strategies of whole sweeps in this process, with an answer that is known: see known_answer."""

from __future__ import annotations

import pytest

from tests.integration.commands import Ran
from tests.integration.stored import commits

DELTAS = ("--delta", "0.02", "--delta", "0.05", "--delta", "0.1")


def spec_of(ran: Ran) -> dict:
    return ran.answer["sweep"]


def test_up_to_four_thresholds_are_bisected_and_more_are_modelled(sweep, known_sweep):
    assert spec_of(sweep(known_sweep, "--max-probes", "2"))["search"]["strategy"] == "bisect"
    ran = sweep(known_sweep, "--name", "more", *DELTAS)
    assert spec_of(ran)["search"]["strategy"] == "model"
    asked = [probe["ratio_asked"] for probe in ran.answer["probes"] if probe["method"] == "known-in-order"]
    assert len(asked) <= 8
    for one in ran.answer["potentials"]:
        allowed = {0.02: 2, 0.05: 5, 0.1: 10}[one["delta"]]
        first = {"known-in-order": (60, 55), "known-backwards": (0, 5)}[one["method"]]
        truth = (first[one["task"] != "nominal"] + allowed) / 100
        assert one["ratio"] <= truth < (one["next_ratio"] or 1.0)


def test_a_modelled_sweep_resumed_with_half_of_its_networks_asks_and_answers_the_same(sweep, known_sweep):
    whole = sweep(known_sweep, *DELTAS)
    for key in sorted(commits(whole.storage))[::2]:
        (whole.storage / "trainings" / key / "training.json").unlink()
    again = sweep(known_sweep, *DELTAS)
    assert again.answer["potentials"] == whole.answer["potentials"]
    assert [one["training"] for one in again.answer["probes"]] == [one["training"] for one in whole.answer["probes"]]


def test_a_deadline_ends_a_run_early_with_what_is_known_and_the_same_command_goes_on(
    sweep, known_sweep, monkeypatch: pytest.MonkeyPatch
):
    # Every probe takes five minutes by this clock.
    clock = iter(range(0, 10**9, 300))
    monkeypatch.setattr("raypruning.app.sweep.time.time", lambda: 2e9 + next(clock))
    monkeypatch.setattr("raypruning.app.request.parse_deadline", lambda text, now: 2e9 + 3600)
    cut = sweep(known_sweep, "--deadline", "60m")
    assert cut.exit_code == 3
    assert any("the deadline ended this run before the search was through" in line for line in cut.answer["warnings"])
    assert "open" in {one["status"] for one in cut.answer["potentials"]}
    monkeypatch.undo()
    done = sweep(known_sweep)
    assert done.exit_code == 0 and {one["status"] for one in done.answer["potentials"]} == {"closed"}
    kept = {probe["training"] for probe in cut.answer["probes"]}
    assert kept < {probe["training"] for probe in done.answer["probes"]}
    assert not any("deadline" in line for line in done.answer["warnings"])


def test_a_resolution_finer_than_a_parameter_is_refused(sweep, known_sweep):
    ran = sweep(known_sweep, "--resolution", "0.01")
    assert ran.exit_code == 2
    assert "finer than one of the network's 100 parameters: write --resolution 0.0103 or more" in ran.stderr


def test_probes_per_round_auto_is_taken_once_and_recorded(sweep, known_sweep, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raypruning.app.concurrency.local_room", lambda resources: 7)
    first = sweep(known_sweep, "--probes-per-round", "auto")
    assert spec_of(first)["search"]["probes_per_round"] == 3  # seven workers, two curves
    monkeypatch.setattr("raypruning.app.concurrency.local_room", lambda resources: 64)
    again = sweep(known_sweep, "--probes-per-round", "auto")
    assert spec_of(again)["search"]["probes_per_round"] == 3
    assert again.answer["cost"]["num_trained"] == 0
