from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raypruning.datasets.base import Dataset
from raypruning.datasets.strokes import FINGERPRINT, Knobs, draw_images, open_strokes


@pytest.fixture(scope="module")
def strokes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    # Drawing takes seconds, so the tests of this file share one cache.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYPRUNING_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return open_strokes("", data_dir=None, download=False)


def test_strokes_are_the_recorded_bytes(strokes: Dataset) -> None:
    assert strokes.fingerprint == FINGERPRINT


def test_strokes_have_even_classes_in_the_promised_sizes(strokes: Dataset) -> None:
    for split, count in (("train", 6_000), ("validation", 1_000), ("test", 10_000)):
        images = strokes.split(split)
        assert images.images_NCHW.shape == (count, 1, 28, 28)
        assert np.bincount(images.labels_N).tolist() == [count // 10] * 10


def test_strokes_splits_share_no_image(strokes: Dataset) -> None:
    images = [strokes.split(split).images_NCHW for split in ("train", "validation", "test")]
    distinct = {image.tobytes() for part in images for image in part}
    assert len(distinct) == 17_000


def test_strokes_mean_and_deviation_are_those_of_the_training_images(strokes: Dataset) -> None:
    pixels = strokes.split("train").images_NCHW / 255
    # The constants are rounded to four places.
    assert abs(pixels.mean() - strokes.mean[0]) <= 0.00005
    assert abs(pixels.std() - strokes.std[0]) <= 0.00005


def test_strokes_without_randomness_are_the_same_for_the_same_way_to_write() -> None:
    tidy = Knobs(
        jitter=0, warp=0, rotation=0, shear=0, scale=0, shift=0, pen=(32, 33), ink=(255, 256), noise=(0, 1),
        gap_share=0, blot_share=0,
    )  # fmt: skip
    images_NHW = draw_images(np.full(64, 7), stream=0, knobs=tidy)
    # Four ways to write a seven, and nothing else that could differ.
    assert len({image.tobytes() for image in images_NHW}) == 4
    assert images_NHW.max() == 255


def test_strokes_need_neither_data_nor_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = "import sys, raypruning.datasets.strokes, raypruning.datasets.idx, raypruning.datasets.cifar\n"
    program += "import raypruning.datasets.image_folder, raypruning.datasets.digits\n"
    program += "print(sorted({'torch', 'PIL', 'sklearn', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
