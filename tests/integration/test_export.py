"""From a sweep of seconds to a smaller network in a folder, and back in a process that has no store."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from raypruning.app import export as export_module
from raypruning.compaction.compact import masked_copy
from raypruning.compaction.plan import build_bare
from raypruning.core.records import ModelChoice
from raypruning.runtime.store import open_store

ROOT = Path(__file__).parents[2]
TINY_FT = [
    *("--method", "ft", "--dataset", "strokes", "--task", "nominal", "--seed", "0", "--budget", "1"),
    *("--gpus-per-probe", "0", "--set", "data.train_images=200", "--set", "data.test_images=300"),
    *("--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0", "--executor", "inline", "--tracking-uri", "none"),
    # A network that hardly learns loses nothing: every ratio is within half of the images.
    *("--set", "search.low=0.3", "--set", "search.high=0.8", "--resolution", "0.5", "--delta", "0.5"),
]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, prune_cli) -> Path:
    folder = tmp_path_factory.mktemp("export") / "store"
    ran = prune_cli("sweep", "lenet5", *TINY_FT, "--storage", folder, "--quiet")
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def export(storage: Path, prune_cli, tmp_path: Path):
    def run(*words: object):
        return prune_cli("export", "lenet5", "--storage", storage, "--output", tmp_path / "out", *words)

    return run


def masked_network(storage: Path, probe: str) -> torch.nn.Module:
    store = open_store(str(storage), read_only=True)
    model = build_bare(ModelChoice(name="lenet5"), num_classes=10, in_channels=1, image_size=28)
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in store.weights(probe).items()})
    return masked_copy(model, {name: torch.from_numpy(value.copy()) for name, value in store.masks(probe).items()})


def test_exported_network_equals_the_one_at_the_potential_without_the_store(storage: Path, export, tmp_path: Path):
    ran = export("--json", "--delta", "0.5", "--task", "nominal")
    assert ran.code == 0, ran.err
    answer = ran.answer
    assert set(answer["files"]) == {"plan.json", "weights.safetensors"}
    assert answer["source"]["ratio"] == pytest.approx(0.8, abs=0.05)
    assert answer["check"]["max_difference"] <= 1e-4 and answer["check"]["num_images"] == 256
    assert answer["after"]["parameters"] < 0.4 * answer["before"]["parameters"] == 0.4 * 21_840
    assert answer["after"]["macs"] < answer["before"]["macs"] == 480_500
    assert answer["after"]["nonzeros"] <= answer["before"]["nonzeros"]
    assert answer["channels"]["num_removed"] == answer["channels"]["num_dead"] > 0

    inputs = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "images.npy", inputs.numpy())
    document = (ROOT / "docs" / "exporting.md").read_text()
    (lines,) = re.findall(r"```python\n(from raypruning import load_exported\n.*?)```", document, re.DOTALL)
    before = "import numpy, torch\nx = torch.from_numpy(numpy.load('images.npy'))\n"
    code = f"{before}{lines}\nnumpy.save('logits.npy', logits)"
    (tmp_path / "lenet5-small").symlink_to(tmp_path / "out")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAYPRUNING_STORAGE": str(tmp_path / "nothing")}
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)
    expected = masked_network(storage, answer["source"]["probe"])(inputs).detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)


def test_table_shows_both_networks_and_what_masks_do_not_do(export, tmp_path: Path):
    ran = export()
    assert ran.code == 0, ran.err
    for text in ("21,840", "parameters", "non-zeros", "multiply-adds", "zipped", "one image", "1 thread", "median"):
        assert text in ran.out
    assert "make nothing faster" in ran.out
    assert "differ by" in ran.out and "256 test images" in ran.out
    assert str(tmp_path / "out") in ran.out


def test_probe_is_chosen_by_the_beginning_of_its_id(storage: Path, export, prune_cli):
    probes = prune_cli("report", "lenet5", "--storage", storage, "--json").answer["probes"]
    least = min((one for one in probes if one["method"] == "ft"), key=lambda one: one["ratio_reached"])
    ran = export("--probe", least["training"][:10], "--json")
    assert ran.code == 0, ran.err
    assert ran.answer["source"]["probe"] == least["training"]
    assert ran.answer["source"]["ratio"] == least["ratio_reached"]


def test_torch_format_runs_without_this_package(storage: Path, export, tmp_path: Path):
    ran = export("--format", "torch", "--json")
    assert ran.code == 0, ran.err
    assert ran.answer["check"]["torch_max_difference"] <= 1e-4
    inputs = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    logits = torch.export.load(tmp_path / "out" / "model.pt2").module()(inputs)
    torch.testing.assert_close(
        logits, masked_network(storage, ran.answer["source"]["probe"])(inputs), atol=1e-4, rtol=0
    )


def test_onnx_format_runs_in_onnxruntime(storage: Path, export, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    ran = export("--format", "onnx", "--json")
    assert ran.code == 0, ran.err
    assert ran.answer["check"]["onnx_max_difference"] <= 1e-4
    assert ran.err == ""
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    inputs = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    (logits,) = session.run(["logits"], {"images": inputs.numpy()})
    expected = masked_network(storage, ran.answer["source"]["probe"])(inputs).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_network_with_other_outputs_is_not_written(export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # No network can meet this, as none could whose channels were mixed up.
    monkeypatch.setattr(export_module, "MAX_DIFFERENCE", -1.0)
    ran = export()
    assert ran.code == 1
    assert "differ by" in ran.error_line and "nothing was written" in ran.error_line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "wt"], "has no method wt: it has ft"),
        (["--budget", "7"], "has no budget 7: it has 1"),
        (["--seed", "7"], "has no seed 7: it has 0"),
        (["--task", "nominl"], "did you mean nominal"),
        (["--delta", "0.25"], "was not run at delta 0.25: it has 0.5"),
        (["--probe", "nothing"], "no probe has the id nothing"),
        (["--probe", "a", "--method", "ft"], "leave out --task"),
        (["--format", "pickle"], "safetensors, onnx, torch, got pickle"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_request_ends_in_one_line(words: list[str], said: str, export, tmp_path: Path):
    ran = export(*words)
    assert ran.code == 2
    assert said in ran.error_line
    assert list(tmp_path.iterdir()) == []


def test_unknown_sweep_ends_in_one_line(storage: Path, prune_cli):
    ran = prune_cli("export", "lenet", "--storage", storage)
    assert ran.code == 2
    assert "did you mean lenet5" in ran.error_line


def test_folder_that_is_not_empty_is_left_alone(export, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    ran = export()
    assert ran.code == 2
    assert "not an empty folder" in ran.error_line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_empty_folder_is_filled(export, tmp_path: Path):
    (tmp_path / "out").mkdir()
    assert export().code == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_onnx_without_the_extra_says_what_to_install(export, monkeypatch: pytest.MonkeyPatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else real(name, *rest))
    ran = export("--format", "onnx")
    assert ran.code == 2
    assert 'pip install "raypruning[export]"' in ran.error_line


def test_potential_of_zero_has_nothing_to_export(tmp_path: Path, prune_cli):
    store = tmp_path / "store"
    words = [*TINY_FT[:-1], "0.0001", "--set", "recipe.epochs=3", "--set", "recipe.learning_rate=0.001"]
    words += ["--set", "search.low=0.9", "--set", "search.high=0.95"]
    ran = prune_cli("sweep", "lenet5", *words, "--storage", store, "--json", "--quiet")
    (potential,) = ran.answer["potentials"]
    assert (potential["ratio"], potential["status"]) == (0.0, "closed")
    ran = prune_cli("export", "lenet5", "--storage", store, "--output", tmp_path / "out")
    assert ran.code == 2
    assert "nothing to export" in ran.error_line
    assert not (tmp_path / "out").exists()


def test_open_potential_is_not_exported(tmp_path: Path, prune_cli):
    store = tmp_path / "store"
    words = [*TINY_FT[:-1], "0.02", "--max-probes", "1", "--set", "recipe.epochs=6"]
    ran = prune_cli("sweep", "lenet5", *words, "--storage", store, "--json", "--quiet")
    assert [one["status"] for one in ran.answer["potentials"]] == ["open"]
    ran = prune_cli("export", "lenet5", "--storage", store, "--output", tmp_path / "out")
    assert ran.code == 2
    assert "is open" in ran.error_line
    assert not (tmp_path / "out").exists()


def test_exported_files_hold_no_pickle(export, tmp_path: Path):
    assert export().code == 0
    assert not any(zipfile.is_zipfile(path) for path in (tmp_path / "out").iterdir())
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["model"] == {"name": "lenet5", "options": {}}
    assert plan["layers"]["conv1"]["kept_outputs"]
    shutil.rmtree(tmp_path / "out")
