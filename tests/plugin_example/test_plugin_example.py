"""A method from a package of its own is found, listed and used like ours, and is what its paper says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from raypruning.methods.method import Method
from raypruning.methods.prune import make_masks
from raypruning.models.resolve import build_model
from raypruning.testing.method_contract import MethodContract
from tests.plugin_example.raypruning_lamp import lamp

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULE = "raypruning_lamp"


class TestLamp(MethodContract):
    """What any method must do."""

    @pytest.fixture
    def method(self) -> Method:
        return lamp({})


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python that has the package as an installer would lay it out: a module and its metadata."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    (site / f"{MODULE}.py").write_text((HERE / f"{MODULE}.py").read_text())
    metadata = site / f"{MODULE}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


def prune_cli(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_an_installed_method_is_listed_with_its_package(installed):
    listed = prune_cli("list", "methods", environment=installed)
    assert listed.returncode == 0, listed.stderr
    line = next(line for line in listed.stdout.splitlines() if line.startswith("lamp "))
    assert "raypruning-lamp" in line


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def test_an_installed_method_is_used_by_a_sweep(installed, tmp_path: Path, executor: str):
    """Also on a Ray worker, which finds the package by itself: only the method's name is sent to it."""
    ran = prune_cli(
        *("sweep", "lenet5", "--dataset", "digits", "--method", "lamp", "--executor", executor),
        *("--delta", "0.1", "--seed", "0", "--budget", "1", "--task", "nominal", "--search", "grid"),
        *("--set", "search.ratios=[0.5, 0.9]", "--set", "recipe.epochs=2"),
        *("--set", "data.train_images=100", "--set", "data.test_images=100"),
        *("--storage", str(tmp_path), "--tracking-uri", "none", "--json"),
        environment=installed,
    )
    assert ran.returncode in (0, 3), ran.stderr
    probes = [probe for probe in json.loads(ran.stdout)["probes"] if probe["method"] == "lamp"]
    assert [probe["status"] for probe in probes] == ["done", "done"]
    assert [probe["checkpoint"]["num_nonzero"] for probe in probes] == [10_920, 2_184]  # Of 21 840.


def test_a_method_that_is_not_installed_is_not_known():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = prune_cli("sweep", "lenet5", "--method", "lamp", "--dry-run", environment=environment)
    assert ran.returncode == 2
    assert ran.stderr.startswith("prune-cli: no method is called 'lamp'") and ran.stderr.count("\n") == 1


def test_the_example_is_short():
    """What the documentation promises: a method is one small file."""
    lines = (HERE / f"{MODULE}.py").read_text().splitlines()
    assert len(lines) < 40


def test_lamp_keeps_the_weights_that_its_definition_scores_highest():
    torch.manual_seed(0)
    model = build_model("lenet5", num_classes=10, in_channels=1, image_size=28, options={})
    masks = make_masks(lamp({}), model, 0.7, example_NCHW=torch.zeros(1, 1, 28, 28), seed=0)

    parameters = {name: value.detach().double().numpy().ravel() for name, value in model.named_parameters()}
    weights = {name: value for name, value in parameters.items() if name.endswith("weight")}
    # By the definition: w^2 over the sum of all squares in the layer that are not smaller.
    scores = np.concatenate([[w**2 / (v[v**2 >= w**2] ** 2).sum() for w in v] for v in weights.values()])
    kept = np.concatenate([masks[name].numpy().ravel() for name in weights])
    num_removed = round(0.7 * 21_840)
    assert (~kept).sum() == num_removed
    assert scores[~kept].max() < scores[kept].min()
