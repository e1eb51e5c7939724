"""`prune-cli features` on a small real sweep, and what it says of a wrong wish."""

# N images, P pixels, S sources of pixels, M networks

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raypruning.analysis.features import Features, Selector, kept_mask, random_orders
from raypruning.app.features import FeaturesRequest, Work, features, read_features, selector_of
from raypruning.app.results import read_record
from raypruning.app.stored_networks import open_stage, staged_network
from raypruning.errors import StoreError
from raypruning.inspection.backselect import judge
from raypruning.reporting.features import conclusion, numbers
from raypruning.reporting.features_page import masked_picture
from raypruning.runtime.store import open_store
from tests.conftest import INLINE, TINY
from tests.integration.commands import run_sweep
from tests.integration.made_up_sweep import NAME as MADE_UP
from tests.integration.made_up_sweep import store_sweep

# Seconds, not minutes: the gradient alone, many pixels a step.
FAST = ("--mode", "gradient", "--pixels-per-step", "49", "--images", "8")


def trained(storage: Path, *options: str, name: str = "tiny") -> None:
    words = [*TINY, *INLINE, "--ratio", "0.5", "--ratio", "0.9", "--name", name, *options]
    assert run_sweep("lenet5", *words, storage=storage).exit_code in (0, 3)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, each a parent and two pruned networks."""
    storage = tmp_path_factory.mktemp("features") / "store"
    trained(storage, "--seed", "1")
    return storage


@pytest.fixture
def storage(swept: Path, tmp_path: Path) -> Path:
    """A copy that a test may write into."""
    return Path(shutil.copytree(swept, tmp_path / "store"))


@pytest.fixture(scope="module")
def answered(swept: Path, tmp_path_factory: pytest.TempPathFactory, prune_cli: Callable) -> tuple[Path, dict, Path]:
    """A storage in which the command ran once, its answer, and the folder of what it wrote."""
    folder = tmp_path_factory.mktemp("answered")
    storage = Path(shutil.copytree(swept, folder / "store"))
    files = ("--html", folder / "page.html", "--csv", folder / "map.csv", "--plots", folder / "plots")
    ran = prune_cli("features", "tiny", *FAST, *files, "--json", "--storage", storage)
    assert ran.code == 0, ran.err
    return storage, ran.answer, folder


def found_in(storage: Path) -> Features:
    found = read_features(open_store(str(storage)), "tiny")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("fields", "selector"),
    [
        ({}, Selector(mode="screened", pixels_per_step=2, candidates=32)),
        ({"candidates": 1}, Selector(mode="screened", pixels_per_step=1, candidates=1)),
        ({"pixels_per_step": 4}, Selector(mode="screened", pixels_per_step=4, candidates=32)),
        ({"mode": "exact"}, Selector(mode="exact")),
        ({"mode": "gradient", "pixels_per_step": 8}, Selector(mode="gradient", pixels_per_step=8)),
    ],
)
def test_what_is_not_said_of_the_way_is_filled_in(fields: dict, selector: Selector):
    assert selector_of(FeaturesRequest("any", **fields)) == selector


def test_answer_names_networks_images_and_the_way(answered):
    _, answer, _ = answered
    assert [one["role"] for one in answer["networks"]] == ["parent", "pruned", "pruned", "separate"]
    assert [one["ratio"] for one in answer["networks"]] == [0.0, 0.5, 0.9, 0.0]
    assert [one["seed"] for one in answer["networks"]] == [0, 0, 0, 1]
    assert (answer["mode"], answer["pixels_per_step"], answer["num_kept"]) == ("gradient", 49, 78)
    assert answer["forwards_per_image"] == 3 * 16
    # 300 test images.
    assert answer["images"] == [0, 37, 75, 112, 150, 187, 225, 262]
    table = answer["heat_map"]
    assert table["judged_by"] == ["parent", *table["pixels_of"][1:3], "separate"]
    assert table["pixels_of"][3:] == ["separate", "random", "whole image"]
    assert np.shape(table["confidence"]) == np.shape(table["standard_error"]) == (6, 4)


def test_stored_orders_are_whole_and_confidences_are_those_of_the_masked_images(answered):
    storage, answer, _ = answered
    found = found_in(storage)
    assert all(orders_NP.dtype == np.uint16 for orders_NP in found.orders_MNP.values())
    for orders_NP in found.orders_MNP.values():
        assert np.array_equal(np.sort(orders_NP, axis=1), np.tile(np.arange(784), (8, 1)))
    store = open_store(str(storage))
    record = read_record(store, "tiny")
    stage = open_stage(record, data_dir=None)
    split = stage.dataset.split("test")
    images_NCHW = split.images_NCHW[list(found.record.question.images)].astype(np.float32) / 255
    labels_N = split.labels_N[list(found.record.question.images)]
    assert np.array_equal(found.labels_N, labels_N)
    normal_NCHW = (images_NCHW - np.reshape(stage.dataset.mean, (-1, 1, 1))) / np.reshape(stage.dataset.std, (-1, 1, 1))
    from raypruning.app.read import read_sweep

    probes = {one.probe.id: one.probe for one in read_sweep(store, "tiny").probes}
    random_NP = random_orders(8, 784, seed=found.record.random_seed)
    import torch

    for source, orders_NP in enumerate([*(found.orders_MNP[one.training] for one in found.record.networks), random_NP]):
        masked_NCHW = normal_NCHW * kept_mask(orders_NP, 78).reshape(8, 1, 28, 28)
        for place, network in enumerate(found.record.networks):
            model = staged_network(store, probes[network.training], stage)
            images = torch.from_numpy(masked_NCHW.astype(np.float32))
            expected_NL = judge(model, images, batch_size=8).numpy()
            # Single precision: pixels are normalised in another order of operations than ours.
            np.testing.assert_allclose(
                found.confidence_SMN[source, place], expected_NL[np.arange(8), labels_N], atol=1e-4
            )
    assert answer["heat_map"]["confidence"][0][0] == pytest.approx(float(found.confidence_SMN[0, 0].mean()), abs=1e-6)


def test_same_again_computes_nothing_and_needs_no_images(answered, prune_cli: Callable, monkeypatch):
    storage, answer, _ = answered
    monkeypatch.setattr("raypruning.app.features.open_stage", None)
    ran = prune_cli("features", "tiny", *FAST, "--json", "--storage", storage)
    assert ran.answer == answer


def test_another_part_to_keep_orders_nothing_again(storage: Path):
    store = open_store(str(storage))
    request = FeaturesRequest("tiny", mode="gradient", pixels_per_step=49, images=8)
    first, told = features(store, request), []
    again = features(store, request._replace(keep=0.3), watch=told.append)
    assert told == [] and again.record.num_kept == 235
    assert all(np.array_equal(first.orders_MNP[key], again.orders_MNP[key]) for key in first.orders_MNP)
    features(store, request._replace(fresh=True), watch=told.append)
    assert told[-1].forwards_done == told[-1].forwards == 4 * 8 * 48


def test_interrupted_run_keeps_the_networks_that_are_through(storage: Path):
    class StopError(Exception):
        pass

    def stop(work: Work) -> None:
        if work.num_done == 2:
            raise StopError

    store = open_store(str(storage))
    request = FeaturesRequest("tiny", mode="gradient", pixels_per_step=49, images=8)
    with pytest.raises(StopError):
        features(store, request, watch=stop)
    assert read_features(store, "tiny") is None
    told: list[Work] = []
    found = features(store, request, watch=told.append)
    assert {work.num_done for work in told} == {2, 3}
    assert told[-1].forwards == 2 * 8 * 48
    assert len(found.orders_MNP) == 4
    assert store.read_sweep_file("tiny", "features-unfinished.safetensors") is None
    # An order for other images is not one of these.
    told.clear()
    features(store, request._replace(images=4), watch=told.append)
    assert told[-1].forwards == 4 * 4 * 48


@pytest.mark.parametrize("name", ["features.json", "features.safetensors"])
def test_damage_is_told_in_one_line_and_computed_again(storage: Path, name: str, prune_cli: Callable):
    prune_cli("features", "tiny", *FAST, "--storage", storage)
    path = storage / "sweeps" / "tiny" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"is damaged in .*prune-cli features tiny --fresh") as caught:
        read_features(open_store(str(storage)), "tiny")
    assert "\n" not in str(caught.value)
    assert prune_cli("features", "tiny", *FAST, "--storage", storage).code == 0
    assert read_features(open_store(str(storage)), "tiny") is not None


def test_page_stands_alone_and_shows_every_network_of_every_picture(answered):
    _, _, folder = answered
    page = (folder / "page.html").read_text()
    assert "http://www.w3.org" in page and "<script" not in page and 'src="http' not in page
    assert page.count('src="data:image/png;base64,') == 6 * 5
    assert page.count("<figure>") == 30


def test_kept_pixels_are_shown_as_they_are_and_the_others_are_not():
    picture_CHW = np.array([[[0, 255], [100, 50]]], np.uint8)
    seen_CHW = masked_picture(picture_CHW, np.array([[True, True], [False, True]]))
    assert seen_CHW[:, 0].T.tolist() == [[0] * 3, [255] * 3] and seen_CHW[:, 1, 1].tolist() == [50] * 3
    red, green, blue = seen_CHW[:, 1, 0].tolist()
    assert red < green < blue  # no grey: not to be taken for a pixel


def test_files_hold_the_heat_map(answered):
    _, answer, folder = answered
    lines = (folder / "map.csv").read_text().splitlines()
    assert len(lines) == 1 + 6 * 4
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert (first["pixels_of"], first["judged_by"], first["num_images"]) == ("parent", "parent", "8")
    assert float(first["confidence"]) == pytest.approx(answer["heat_map"]["confidence"][0][0])
    assert sorted(path.name for path in (folder / "plots").iterdir()) == ["features_1.svg", "features_2.svg"]


def test_text_fits_80_columns_and_begins_with_what_to_conclude(answered, prune_cli: Callable):
    storage, answer, _ = answered
    ran = prune_cli("features", "tiny", *FAST, "--storage", storage)
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    assert " ".join(answer["conclusion"].split()) in " ".join(ran.out.split())


def test_numbers_for_mlflow_are_those_of_each_ratio(answered):
    storage, answer, _ = answered
    found = {(one.ratio_reached, one.name): one.value for one in numbers(found_in(storage))}
    assert len(found) == 2 * 4
    last = answer["looks"][-1]
    assert found[last["ratio_reached"], "features/pixels_judged_by_parent"] == last["judged_by_parent"]["mean"]


@pytest.mark.parametrize(
    ("by_parent", "verdict"),
    [
        ((0.9, 0.9), "it still looks at what its parent looks at."),
        ((0.9, 0.2), "it looks at other pixels; up to 50.0 % removed, it looks where its parent looks."),
        ((0.2, 0.2), "it looks at other pixels."),
        ((0.9, 0.5), "these images do not tell"),
    ],
)
def test_conclusion_follows_the_paired_difference_to_the_separate_network(answered, by_parent, verdict: str):
    found = found_in(answered[0])
    confidence_SMN = found.confidence_SMN.copy()
    wobble_N = np.tile([-0.01, 0.01], 4).astype(np.float32)
    separate = 3
    confidence_SMN[separate, 0] = 0.5
    confidence_SMN[1, 0], confidence_SMN[2, 0] = (value + wobble_N for value in by_parent)
    record = found.record
    networks = [
        one.model_copy(update={"ratio_reached": ratio})
        for one, ratio in zip(record.networks, (0, 0.5, 0.9, 0), strict=True)
    ]
    record = record.model_copy(update={"networks": tuple(networks)})
    text = conclusion(found._replace(record=record, confidence_SMN=confidence_SMN))
    assert text.startswith("At 90.0 % removed, the pixels that the pruned network relies on give the parent")
    assert verdict in text


def test_with_one_seed_it_works_and_says_what_to_type(prune_cli: Callable, tmp_path: Path):
    trained(tmp_path / "store", name="single")
    ran = prune_cli("features", "single", *FAST, "--ratio", "0.9", "--storage", tmp_path / "store")
    assert ran.code == 0
    text = " ".join(ran.out.split())
    assert "separate network to compare with" in text
    assert f"prune-cli sweep single --population 2 --storage {tmp_path / 'store'}" in text
    assert "50.0 %" not in text
    asked = prune_cli("features", "single", *FAST, "--ratio", "0.9", "--json", "--storage", tmp_path / "store").answer
    assert asked["looks"][0]["beyond_separate"] is None and json.dumps(asked)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "fast"], "--mode must be screened, exact or gradient, got fast"),
        (["--mode", "exact", "--candidates", "4"], "--candidates is for --mode screened"),
        (["--candidates", "0"], "--candidates must be at least 1, got 0"),
        (["--pixels-per-step", "0"], "--pixels-per-step must be at least 1, got 0"),
        (["--keep", "10"], "--keep must be in (0, 1), got 10; write 0.1"),
        (["--keep", "nan"], "--keep must be in (0, 1)"),
        (["--images", "0"], "--images must be at least 1"),
        (["--images", "301"], "--images must be at most 300"),
        (["--ratio", "0.7"], "has no ratio 0.7: it has 0.5, 0.9"),
        (["--method", "ft"], "has no method ft: it has wt"),
        (["--budget", "9"], "has no budget 9: it has 1"),
        (["--seed", "5"], "has no seed 5: it has 0, 1"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(swept: Path, prune_cli: Callable, words: list[str], message: str):
    ran = prune_cli("features", "tiny", *words, "--storage", swept)
    assert ran.code == 2
    assert message in ran.error_line and ran.out == ""
    assert not list(swept.rglob("features*"))


def test_segmentation_is_refused(prune_cli: Callable, tmp_path: Path):
    store_sweep(tmp_path, lambda curve, ratio, task: None, ratios=(0.5,), num_images=4, metric="segmentation")
    ran = prune_cli("features", MADE_UP, "--storage", tmp_path)
    assert ran.code == 2 and "a class for each pixel" in ran.error_line


def test_parent_that_was_not_measured_is_one_line(prune_cli: Callable, tmp_path: Path):
    store_sweep(tmp_path, lambda curve, ratio, task: None, ratios=(0.5,), num_images=4)
    ran = prune_cli("features", MADE_UP, "--storage", tmp_path)
    assert ran.code == 2 and "the parent of seed 0 was not measured" in ran.error_line


def test_unknown_sweep_leaves_no_storage_behind(prune_cli: Callable, tmp_path: Path):
    ran = prune_cli("features", "nothing", "--storage", tmp_path / "none")
    assert ran.code == 2 and ran.err.count("\n") == 1
    assert not (tmp_path / "none").exists()
