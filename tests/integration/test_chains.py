"""Iterative and gradual sweeps from the command to the answer."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from raypruning.runtime.store import open_store
from tests.integration.commands import Ran, run_sweep
from tests.integration.stored import commits

LENET5 = [
    *("lenet5", "--seed", "0", "--budget", "1", "--method", "wt", "--task", "nominal", "--delta", "0.05"),
    *("--set", "data.train_images=400", "--set", "data.test_images=300", "--set", "recipe.epochs=2"),
    *("--set", "recipe.warmup_epochs=0", "--resolution", "0.3"),
]
FOUR_LINKS = [*LENET5, "--schedule", "iterative", "--set", "schedule.ratios=[0.3, 0.6, 0.8, 0.95]"]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    ran = run_sweep(*FOUR_LINKS, storage=tmp_path_factory.mktemp("chain"))
    assert ran.exit_code in (0, 3), ran.stderr
    return ran


def pruned(ran: Ran) -> list[dict]:
    return [probe for probe in ran.answer["probes"] if probe["method"] != "dense"]


def test_four_links_of_lenet5_begin_each_from_the_one_before(chain: Ran):
    parent = next(probe for probe in chain.answer["probes"] if probe["method"] == "dense")
    links = [probe for probe in pruned(chain) if probe["place"] == "link"]
    assert [link["ratio_asked"] for link in links] == [0.3, 0.6, 0.8, 0.95][: len(links)]
    assert [link["start"] for link in links] == [parent["training"], *(link["training"] for link in links[:-1])]
    assert [link["schedule"] for link in links] == ["iterative"] * len(links)
    store = open_store(str(chain.storage), read_only=True)
    for before, after in pairwise(links):
        masks = store.masks(after["training"])
        assert all((~masks[name])[~mask].all() for name, mask in store.masks(before["training"]).items())


def test_the_same_command_again_trains_nothing_and_answers_the_same(chain: Ran):
    before = commits(chain.storage)
    again = run_sweep(*FOUR_LINKS, storage=chain.storage)
    assert commits(chain.storage) == before
    assert again.answer["potentials"] == chain.answer["potentials"]


def test_links_are_the_same_networks_for_a_sweep_that_walks_further(chain: Ran, tmp_path: Path):
    longer = [*LENET5, "--schedule", "iterative", "--set", "schedule.ratios=[0.3, 0.6, 0.8, 0.9, 0.97]"]
    before = commits(chain.storage)
    ran = run_sweep(*longer, "--name", "longer", storage=chain.storage)
    shared = {probe["training"] for probe in pruned(chain)[:3]}
    assert shared <= {probe["training"] for probe in pruned(ran)}
    assert {key: commits(chain.storage)[key] for key in before} == before


def test_report_names_links_and_branches_wherever_probes_are_listed(chain: Ran, prune_cli, tmp_path: Path):
    options = ["--storage", chain.storage, "--csv", tmp_path / "csv", "--html", tmp_path / "page.html"]
    ran = prune_cli("report", "lenet5", *options)
    assert ran.code == 0
    assert "pruned in a chain of 4 links, 1 epoch of retraining for each link" in " ".join(ran.out.split())
    rows = list(csv.DictReader((tmp_path / "csv" / "probes.csv").read_text().splitlines()))
    places = [row["place"] for row in rows]
    assert places[:2] == ["", ""] and places[2] == "link" and set(places[2:]) <= {"link", "branch"}
    assert rows[3]["start"] == rows[2]["training"]
    page = (tmp_path / "page.html").read_text()
    assert "in the chain" in page and ">link<" in page.replace("\n", "")


def test_all_probes_finds_the_links_and_branches_of_a_chain(chain: Ran, prune_cli):
    ran = prune_cli("report", "lenet5", "--storage", chain.storage, "--all-probes", "--json")
    found = {probe["training"]: probe["place"] for probe in ran.answer["probes"] if probe["method"] != "dense"}
    assert found.items() >= {probe["training"]: probe["place"] for probe in pruned(chain)}.items()


def test_a_chain_that_was_cleaned_to_its_potentials_shows_the_same_ones(chain: Ran, prune_cli, tmp_path: Path):
    storage = Path(shutil.copytree(chain.storage, tmp_path / "store"))
    assert prune_cli("clean", "--keep", "potential", "--storage", storage).code == 0
    assert len(commits(storage)) < len(commits(chain.storage))
    shown = prune_cli("report", "lenet5", "--storage", storage, "--json").answer["potentials"]
    wanted = ("method", "ratio", "next_ratio", "status")
    assert [[one[key] for key in wanted] for one in shown] == [
        [one[key] for key in wanted] for one in chain.answer["potentials"]
    ]


def test_what_rewinding_goes_back_to_stays_when_cleaned_and_goes_when_started_over(prune_cli, tmp_path: Path):
    rewinding = [*FOUR_LINKS, "--set", "schedule.rewind_epochs=1", "--max-probes", "2"]
    run_sweep(*rewinding, storage=tmp_path)
    before = commits(tmp_path)
    assert len(before) == 2 + 2 + 1
    prune_cli("clean", "--storage", tmp_path)
    assert commits(tmp_path) == before
    run_sweep(*rewinding, "--fresh", storage=tmp_path)
    after = commits(tmp_path)
    assert after.keys() == before.keys() and all(after[key] > before[key] for key in before)


def test_dry_run_of_a_chain_bounds_what_it_then_takes(chain: Ran, prune_cli, tmp_path: Path):
    options = ["--executor", "inline", "--tracking-uri", "none", "--storage", tmp_path, "--dry-run", "--json"]
    ran = prune_cli("sweep", *FOUR_LINKS, *options)
    assert ran.code == 0, ran.err
    assert ran.answer["num_dense"] == 2
    assert len(pruned(chain)) <= ran.answer["num_pruned"] <= 4 + 5
    assert ran.answer["num_epochs"] == 2 + 1 + ran.answer["num_pruned"]


@pytest.mark.parametrize("executor", ["inline"])
def test_gradual_sweep_from_scratch_answers(executor: str, tmp_path: Path):
    options = ["--schedule", "gradual", "--set", "schedule.from_scratch=true", "--set", "schedule.frequency=2"]
    ran = run_sweep(*LENET5, *options, "--max-probes", "2", storage=tmp_path, executor=executor)
    assert ran.exit_code in (0, 3), ran.stderr
    assert [probe["start"] for probe in pruned(ran)] == [None] * len(pruned(ran))
    assert all(probe["ratio_reached"] == pytest.approx(probe["ratio_asked"], abs=1e-4) for probe in pruned(ran))
    control = ran.answer["probes"][1]
    assert (control["method"], control["budget"], control["start"]) == ("dense", 1, None)


def test_two_methods_that_differ_in_a_parameter_have_two_curves(tmp_path: Path):
    options = ["--method", "wt:skip=conv1", "--max-probes", "2"]
    ran = run_sweep(*LENET5, *options, storage=tmp_path)
    assert ran.exit_code in (0, 3), ran.stderr
    assert {one["method"] for one in ran.answer["potentials"]} == {"wt", "wt:skip=conv1"}
    assert json.loads((tmp_path / "sweeps" / "lenet5" / "report.json").read_text())["potentials"]
    assert "wt:skip=conv1" in (tmp_path / "sweeps" / "lenet5" / "report.html").read_text()


def test_chain_with_a_known_answer_finds_it(sweep, known_sweep: Path):
    # In order, 60 weights of 100 cost nothing, every further one a point: five points allow 65.
    schedule = ["--schedule", "iterative", "--set", "schedule.ratios=[0.3, 0.6, 0.8, 0.9]"]
    ran = sweep(known_sweep, *schedule, "--method", "known-in-order", "--resolution", "0.01")
    assert ran.exit_code == 0, ran.stderr
    found = {one["task"]: (one["ratio"], one["next_ratio"], one["status"]) for one in ran.answer["potentials"]}
    assert found == {"nominal": (0.65, 0.66, "closed"), "known-shift": (0.6, 0.61, "closed")}
    starts = {probe["training"]: probe for probe in ran.answer["probes"]}
    branches = [probe for probe in ran.answer["probes"] if probe["place"] == "branch"]
    assert {starts[branch["start"]]["ratio_asked"] for branch in branches} == {0.6}
