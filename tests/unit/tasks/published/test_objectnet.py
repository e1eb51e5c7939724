from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raypruning.datasets.base import Dataset, ImageFiles, derive
from raypruning.errors import DataError
from raypruning.tasks.examples import Examples
from raypruning.tasks.published.facts import OBJECTNET
from raypruning.tasks.published.objectnet import (
    BORDER_PIXELS,
    equals,
    nominal_objectnet,
    objectnet,
    open_nominal_of_objectnet,
    open_objectnet,
)
from tests.unit.tasks.published.tiny_sets import centre, write_picture

# Four folders of two pictures each; ImageNet has one class for lamps, two for screens, none for spoons, and three for
# bags, in an order that is not theirs.
TINY = replace(OBJECTNET, num_images=8, num_folders=4, num_mapped=3)
FOLDERS = {"bag_open": "Bag (open)", "lamp": "Lamp", "screen": "Screen", "spoon": "Spoon"}
IMAGENET_NAMES = {
    "Bag (open)": "mailbag, postbag; backpack, back pack, knapsack; purse",
    "Lamp": "table lamp",
    "Screen": "monitor; screen, CRT screen",
}
CLASS_OF = {
    "backpack, back pack, knapsack": 1,
    "mailbag, postbag": 5,
    "monitor": 6,
    "purse": 8,
    "screen, CRT screen": 9,
    "table lamp": 11,
}


@pytest.fixture
def dataset(make_imagenet: Callable[..., Dataset]) -> Dataset:
    return make_imagenet(image_size=16)


@pytest.fixture
def root(data_dir: Path) -> Path:
    root = data_dir / "objectnet-1.0"
    for number, folder in enumerate(FOLDERS):
        for picture in range(2):
            write_picture(root / "images" / folder / f"{picture:015x}.png", seed=10 * number + picture)
    write_mappings(root / "mappings")
    return root


def write_mappings(folder: Path, *, names: Mapping[str, str] = IMAGENET_NAMES) -> None:
    """Lines in another order than the classes, as in the published files."""
    folder.mkdir(exist_ok=True)
    of_class = {label: name for name, label in CLASS_OF.items()}
    line_of_class = {label: (label * 5 + 2) % 12 for label in range(12)}
    lines = [""] * 12
    for label, line in line_of_class.items():
        lines[line] = of_class.get(label, f"other {label}")
    (folder / "imagenet_to_label_2012_v2").write_text("\n".join(lines) + "\n")
    (folder / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps(line_of_class))
    (folder / "folder_to_objectnet_label.json").write_text(json.dumps(FOLDERS))
    (folder / "objectnet_to_imagenet_1k.json").write_text(json.dumps(names))


def test_only_folders_that_imagenet_has_classes_for_are_tested_on(root: Path, dataset: Dataset, data_dir: Path) -> None:
    paths = open_objectnet(TINY, dataset, data_dir).split.paths
    assert {Path(path).parent.name for path in paths} == {"bag_open", "lamp", "screen"}
    assert len(paths) == 6


def test_every_class_of_a_folder_is_a_right_answer(root: Path, dataset: Dataset, data_dir: Path) -> None:
    examples = open_objectnet(TINY, dataset, data_dir)
    right = {
        Path(path).parent.name: {int(label), *examples.also_right.get(int(label), ())}
        for path, label in zip(examples.split.paths, examples.split.labels_N, strict=True)
    }
    assert right == {"bag_open": {1, 5, 8}, "lamp": {11}, "screen": {6, 9}}
    assert examples.classes is None


def test_label_is_the_first_class_that_the_mapping_names(root: Path, dataset: Dataset, data_dir: Path) -> None:
    examples = open_objectnet(TINY, dataset, data_dir)
    folders = [Path(path).parent.name for path in examples.split.paths]
    label_of = dict(zip(folders, examples.split.labels_N.tolist(), strict=True))
    assert label_of == {"bag_open": 5, "lamp": 11, "screen": 6}


def test_the_red_border_is_cut_off_before_anything_else(root: Path, dataset: Dataset, data_dir: Path) -> None:
    split = open_objectnet(TINY, dataset, data_dir).split
    assert isinstance(split, ImageFiles)
    found = split.load(range(6), train=False, seed=0, num_threads=1)
    np.testing.assert_array_equal(found, [centre(path, 16, border=1) for path in split.paths])
    assert BORDER_PIXELS == 1


def test_nominal_has_all_test_images_of_all_mapped_classes(root: Path, dataset: Dataset, data_dir: Path) -> None:
    examples = open_nominal_of_objectnet(TINY, dataset, data_dir)
    positions = [
        position for position, label in enumerate(dataset.split("test").labels_N) if label in {1, 5, 6, 8, 9, 11}
    ]
    np.testing.assert_array_equal(examples.positions_N, positions)
    np.testing.assert_array_equal(examples.split.labels_N, dataset.split("test").labels_N[positions])
    assert examples.classes is None


def test_nominal_takes_the_same_answers_for_right(root: Path, dataset: Dataset, data_dir: Path) -> None:
    nominal = open_nominal_of_objectnet(TINY, dataset, data_dir)
    assert nominal.also_right == {1: (5, 8), 5: (1, 8), 8: (1, 5), 6: (9,), 9: (6,)}
    assert nominal.also_right == open_objectnet(TINY, dataset, data_dir).also_right


def test_a_class_of_two_folders_is_equal_to_the_others_of_both() -> None:
    assert equals([(4, 2), (2, 7), (9,)]) == {2: (4, 7), 4: (2,), 7: (2,)}


def test_nominal_of_a_part_of_the_test_set_has_places_in_the_part(root: Path, dataset: Dataset, data_dir: Path) -> None:
    examples = open_nominal_of_objectnet(TINY, derive(dataset, test_images=12), data_dir)
    np.testing.assert_array_equal(examples.positions_N, [1, 5, 6, 8, 9, 11])


@pytest.mark.parametrize("opener", [open_objectnet, open_nominal_of_objectnet])
@pytest.mark.parametrize(
    "change",
    [{"Screen": "screen, CRT screen"}, {"Lamp": "table lamp; monitor"}, {"Lamp": "other 2"}],
    ids=["fewer classes", "another right answer", "another class"],
)
def test_fingerprint_changes_with_the_mapping(
    root: Path, dataset: Dataset, data_dir: Path, change: dict[str, str], opener: Callable[..., Examples]
) -> None:
    before = opener(TINY, dataset, data_dir).fingerprint
    write_mappings(root / "mappings", names=IMAGENET_NAMES | change)
    assert opener(TINY, dataset, data_dir).fingerprint != before


@pytest.mark.parametrize("opener", [open_objectnet, open_nominal_of_objectnet])
@pytest.mark.parametrize(
    "name",
    [
        "folder_to_objectnet_label.json",
        "objectnet_to_imagenet_1k.json",
        "pytorch_to_imagenet_2012_id.json",
        "imagenet_to_label_2012_v2",
    ],
)
def test_a_missing_mapping_is_named(
    root: Path, dataset: Dataset, data_dir: Path, name: str, opener: Callable[..., object]
) -> None:
    (root / "mappings" / name).unlink()
    with pytest.raises(DataError, match=rf"mappings lacks {name}: unpack objectnet-1\.0\.zip again"):
        opener(TINY, dataset, data_dir)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("objectnet_to_imagenet_1k.json", '{"Lamp": ', "is cut off or damaged"),
        ("objectnet_to_imagenet_1k.json", "[1]", "has no table of names"),
        ("objectnet_to_imagenet_1k.json", '{"Lamp": 3}', "do not fit together"),
        ("objectnet_to_imagenet_1k.json", '{"Lamp": "table"}', "do not fit together .*'table'"),
        ("imagenet_to_label_2012_v2", "table lamp", "do not fit together"),
        ("pytorch_to_imagenet_2012_id.json", '{"a": 1}', "do not fit together"),
        ("folder_to_objectnet_label.json", '{"lamp": "Lamp"}', "maps 1 folders .* expected 3"),
    ],
)
def test_a_damaged_mapping_is_refused_in_one_line(
    root: Path, dataset: Dataset, data_dir: Path, name: str, content: str, says: str
) -> None:
    (root / "mappings" / name).write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        open_objectnet(TINY, dataset, data_dir)
    assert "\n" not in str(caught.value)


def test_a_class_beyond_the_datasets_is_refused(root: Path, dataset: Dataset, data_dir: Path) -> None:
    path = root / "mappings" / "pytorch_to_imagenet_2012_id.json"
    line_of_class = json.loads(path.read_text())
    path.write_text(json.dumps(line_of_class | {"12": line_of_class.pop("11")}))
    with pytest.raises(DataError, match="names class 12, and imagenet has 12 classes"):
        open_objectnet(TINY, dataset, data_dir)


def test_a_set_that_is_half_there_says_how_much(root: Path, dataset: Dataset, data_dir: Path) -> None:
    for path in (root / "images" / "spoon").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"has 6 pictures in 3 folders \(spoon is empty\), expected 8 in 4"):
        open_objectnet(TINY, dataset, data_dir)


def test_a_folder_that_the_mapping_names_must_be_there(root: Path, dataset: Dataset, data_dir: Path) -> None:
    (root / "images" / "lamp").rename(root / "images" / "lamps")
    with pytest.raises(DataError, match=r"lacks 1 folders that the mappings name \(lamp\)"):
        open_objectnet(TINY, dataset, data_dir)


def test_a_set_without_pictures_says_so(dataset: Dataset, data_dir: Path) -> None:
    (data_dir / "objectnet-1.0").mkdir()
    write_mappings(data_dir / "objectnet-1.0" / "mappings")
    with pytest.raises(DataError, match="has no images/"):
        open_objectnet(TINY, dataset, data_dir)


def test_a_missing_set_says_what_to_get_and_an_archive_how_to_unpack_it(dataset: Dataset, data_dir: Path) -> None:
    with pytest.raises(DataError, match=r"objectnet-1\.0/ with images/ of 50273 pictures, and mappings/"):
        open_objectnet(OBJECTNET, dataset, data_dir)
    (data_dir / "objectnet-1.0.zip").write_bytes(b"x")
    with pytest.raises(DataError, match=r"unzip -P objectnetisatestset \S*/objectnet-1\.0\.zip -d \S*/data$"):
        open_objectnet(OBJECTNET, dataset, data_dir)


def test_both_tasks_are_compared_with_the_same_nominal() -> None:
    assert objectnet("").nominal == nominal_objectnet("").nominal == "nominal/objectnet"
    assert objectnet("").fits("imagenet") and not objectnet("").fits("cifar10")
