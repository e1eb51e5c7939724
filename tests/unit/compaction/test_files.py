from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from raypruning.compaction import files
from raypruning.compaction.compact import compact
from raypruning.compaction.plan import ChannelPlan, Channels, Check, Source
from raypruning.compaction.shapes import ranges
from raypruning.compaction.sizes import size_of
from raypruning.core.records import ModelChoice
from raypruning.errors import DataError, SpecError
from tests.unit.compaction.networks import build, filter_masks, images

ROOT = Path(__file__).parents[3]


def write(folder: Path, name: str, *, image_size: int) -> torch.nn.Module:
    """Export a network by hand; returns the smaller one."""
    model = build(name, image_size=image_size)
    small = compact(model, filter_masks(model), images(2, 3, image_size, image_size))
    weights = files.weights_bytes(small.model)
    size = {"in_channels": 3, "image_size": image_size}
    plan = ChannelPlan(
        model=ModelChoice(name=name),
        num_classes=10,
        **size,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        source=Source(sweep="s", probe="p", method="ft", ratio=0.5, budget=1, seed=0),
        channels=Channels(
            num_outputs=small.num_outputs, num_dead=small.num_dead, num_removed=small.num_removed, kept=small.kept
        ),
        check=Check(max_difference=0.0, num_images=2),
        before=size_of(model, **size),
        after=size_of(small.model, **size),
        layers=small.shapes,
        weights_sha256=files.sha256(weights),
    )
    folder.mkdir()
    (folder / files.WEIGHTS).write_bytes(weights)
    (folder / files.PLAN).write_text(plan.model_dump_json(indent=1))
    return small.model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    folder = tmp_path_factory.mktemp("exported") / "resnet20"
    return folder, write(folder, "resnet20", image_size=32)


# regnet: groups of another number; squeezenet: a convolution gives the logits; densenet: norms of concatenations;
# mnasnet: insists on a version in what it loads.
NETWORKS = ["resnet20", "densenet22", "regnet_y_400mf", "squeezenet1_1", "mnasnet0_5"]

LOAD = """
import sys
import numpy, torch
from raypruning import load_exported
for name in sys.argv[1:]:
    model = load_exported(name)
    logits = model(torch.from_numpy(numpy.load("images.npy")))
    assert not model.training and not logits.requires_grad
    numpy.save(name + ".npy", logits.numpy())
"""


@pytest.fixture(scope="module")
def logits_of_a_fresh_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By network: what a process that loads all exports gets for some images, and what the smaller network gave."""
    folder = tmp_path_factory.mktemp("loaded")
    inputs = images(2, 3, 32, 32)
    np.save(folder / "images.npy", inputs.numpy())
    with torch.no_grad():
        expected = {name: write(folder / name, name, image_size=32)(inputs).numpy() for name in NETWORKS}
    command = [sys.executable, "-W", "error", "-c", LOAD, *NETWORKS]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    return {name: (np.load(folder / f"{name}.npy"), expected[name]) for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_exported_network_loads_in_a_fresh_process_with_the_same_logits(name: str, logits_of_a_fresh_process):
    found, expected = logits_of_a_fresh_process[name]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_loading_leaves_the_random_numbers_alone(exported):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    files.load_exported(exported[0])
    assert torch.equal(torch.rand(2), expected)


def test_folder_without_a_network_says_so(tmp_path: Path):
    with pytest.raises(DataError, match="no exported network"):
        files.load_exported(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (files.WEIGHTS, lambda data: data[:-4] + b"abcd", "damaged"),
        (
            files.PLAN,
            lambda data: data.replace(b'"num_classes": 10', b'"num_classes": "ten"'),
            "damaged at num_classes",
        ),
        (files.PLAN, lambda data: data.replace(b'"resnet20"', b'"resnet18"'), "exported from another version"),
        (files.PLAN, lambda data: data.replace(b'"resnet20"', b'"resnet21"'), "no model is called 'resnet21'"),
    ],
)
def test_damaged_export_is_refused(exported, tmp_path: Path, name: str, change, message: str):
    for path in exported[0].iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(change(data) if path.name == name else data)
    with pytest.raises((DataError, SpecError), match=message):
        files.load_exported(tmp_path)


def test_ranges_are_written_as_people_do():
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert ranges([]) == ""
