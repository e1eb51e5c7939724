"""Batches of a split in memory and of one on disk, and what augmentation does to them."""

# N images, B of a batch, C channels, H W height and width

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raypruning.core.records import DataChoice
from raypruning.datasets.base import ImageArrays
from raypruning.datasets.resolve import open_dataset
from raypruning.errors import DataError
from raypruning.training.augmentation import augment
from raypruning.training.batches import Images
from raypruning.training.data_parallel import Share
from raypruning.training.images import ResidentImages, open_images
from raypruning.training.streaming import Decoders, StreamedImages

CPU = torch.device("cpu")


def arrays(*, num: int = 23, channels: int = 3, side: int = 12, seed: int = 0) -> ImageArrays:
    random = np.random.default_rng(seed)
    return ImageArrays(
        images_NCHW=random.integers(0, 256, (num, channels, side, side), dtype=np.uint8),
        labels_N=random.integers(0, 10, num),
    )


def read_all(images: Images, order: torch.Tensor, **options):
    batches = list(images.read(order, **{"batch_size": 5, "augmentation": "none", "seed": 0, **options}))
    return [torch.cat(parts) for parts in zip(*batches, strict=True)], [len(batch.ids_B) for batch in batches]


@pytest.fixture(params=[ResidentImages, StreamedImages])
def kind(request: pytest.FixtureRequest):
    return request.param


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Three classes of PNG files of uneven sizes, in train, val and test."""
    random = np.random.default_rng(1)
    for split, count in (("train", 7), ("val", 2), ("test", 3)):
        for name in ("ant", "bee", "cat"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                width, height = random.integers(40, 60, 2)
                pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def test_reading_in_an_order_gives_the_images_labels_and_positions_of_that_order(kind):
    split = arrays()
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(3))
    (pixels, labels, ids), _ = read_all(kind(split, CPU), order)
    expected = split.images_NCHW[order.numpy()].astype(np.float32) / np.float32(255)
    assert np.array_equal(pixels.numpy(), expected)
    assert np.array_equal(labels.numpy(), split.labels_N[order.numpy()])
    assert torch.equal(ids, order)


def test_the_last_batch_holds_what_is_left(kind):
    split = arrays(num=23)
    _, sizes = read_all(kind(split, CPU), torch.arange(23), batch_size=5)
    assert sizes == [5, 5, 5, 5, 3]


def test_a_part_of_a_split_can_be_read(kind):
    split = arrays()
    (_, labels, ids), _ = read_all(kind(split, CPU), torch.tensor([7, 7, 2]))
    assert ids.tolist() == [7, 7, 2]
    assert labels.tolist() == split.labels_N[[7, 7, 2]].tolist()


def test_streamed_images_are_the_resident_ones_to_the_bit():
    split = arrays(num=31)
    order = torch.randperm(31, generator=torch.Generator().manual_seed(8))
    resident, sizes = read_all(ResidentImages(split, CPU), order, batch_size=4)
    streamed, sizes_too = read_all(StreamedImages(split, CPU), order, batch_size=4)
    assert sizes == sizes_too
    assert all(torch.equal(one, other) for one, other in zip(resident, streamed, strict=True))


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "resized_crop_flip"])
def test_the_same_seed_reads_the_same_bits_and_another_seed_others(kind, augmentation):
    images = kind(arrays(), CPU)
    (first, _, _), _ = read_all(images, torch.arange(23), augmentation=augmentation, seed=5)
    (again, _, _), _ = read_all(images, torch.arange(23), augmentation=augmentation, seed=5)
    (other, _, _), _ = read_all(images, torch.arange(23), augmentation=augmentation, seed=6)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (augmentation == "none")


def test_a_read_that_is_given_up_leaves_the_next_one_whole():
    images = StreamedImages(arrays(), CPU)
    abandoned = images.read(torch.arange(23), batch_size=2, augmentation="none", seed=0)
    next(abandoned)
    abandoned.close()
    (_, _, ids), _ = read_all(images, torch.arange(23))
    assert torch.equal(ids, torch.arange(23))


# A folder of files


def test_a_folder_of_pictures_is_streamed_in_the_order_asked(picture_folder: Path):
    dataset = open_dataset(DataChoice(name=f"folder/{picture_folder}", image_size=16), data_dir=None, download=False)
    images = open_images(dataset.split("train"), CPU)
    assert isinstance(images, StreamedImages)
    order = torch.randperm(21, generator=torch.Generator().manual_seed(2))
    (pixels, labels, _), sizes = read_all(images, order, batch_size=8)
    assert sizes == [8, 8, 5]
    split = dataset.split("train")
    expected = split.load(order.numpy(), train=False, seed=0).astype(np.float32) / np.float32(255)
    assert np.array_equal(pixels.numpy(), expected)
    classes = [Path(split.paths[index]).parent.name for index in order]
    assert [dataset.class_names[label] for label in labels] == classes


@pytest.mark.parametrize("augmentation", ["none", "crop_flip", "resized_crop_flip"])
def test_processes_decode_what_this_one_decodes(picture_folder: Path, augmentation: str):
    dataset = open_dataset(DataChoice(name=f"folder/{picture_folder}", image_size=16), data_dir=None, download=False)
    order = torch.randperm(21, generator=torch.Generator().manual_seed(2))
    decoders = Decoders(2)
    here, there = (open_images(dataset.split("train"), CPU, decoders=which) for which in (None, decoders))
    given_up = there.read(torch.arange(21), batch_size=2, augmentation="none", seed=0)
    next(given_up)
    how = {"batch_size": 4, "augmentation": augmentation, "seed": 3, "share": Share(1, 2)}
    for one, other in zip(here.read(order, **how), there.read(order, **how), strict=True):
        assert all(torch.equal(part, again) for part, again in zip(one, other, strict=True))
    assert here.seconds_waited > 0 and there.seconds_waited > 0
    assert open_images(arrays(), CPU, decoders=decoders).seconds_waited == 0


@pytest.mark.parametrize("decoders", [None, Decoders(2)], ids=["this process", "others"])
def test_a_picture_that_is_cut_off_is_named_whoever_decodes_it(picture_folder: Path, decoders: Decoders | None):
    dataset = open_dataset(DataChoice(name=f"folder/{picture_folder}", image_size=16), data_dir=None, download=False)
    images = open_images(dataset.split("train"), CPU, decoders=decoders)
    broken = Path(dataset.split("train").paths[5])
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataError, match=f"^{re.escape(str(broken))} cannot be read as an image"):
        read_all(images, torch.arange(21))


def test_random_crops_of_a_folder_depend_on_the_picture_and_not_on_its_batch(picture_folder: Path):
    dataset = open_dataset(DataChoice(name=f"folder/{picture_folder}", image_size=16), data_dir=None, download=False)
    images = open_images(dataset.split("train"), CPU)
    options = {"augmentation": "resized_crop_flip", "seed": 4}
    (pixels, _, ids), _ = read_all(images, torch.arange(21), batch_size=4, **options)
    (shuffled, _, shuffled_ids), _ = read_all(images, torch.arange(20, -1, -1), batch_size=9, **options)
    assert torch.equal(pixels[ids.argsort()], shuffled[shuffled_ids.argsort()])
    (plain, _, _), _ = read_all(images, torch.arange(21))
    assert not torch.equal(pixels, plain)


# Augmentation


def test_crop_and_flip_equals_a_loop_over_images_with_the_same_draws():
    images_NCHW = arrays(num=40, side=10, seed=2).images_NCHW
    augmented = augment(
        torch.from_numpy(images_NCHW), augmentation="crop_flip", generator=torch.Generator().manual_seed(11)
    )

    generator = torch.Generator().manual_seed(11)
    top_N, left_N = torch.randint(0, 9, (2, 40), generator=generator).numpy()
    is_flipped_N = (torch.rand(40, generator=generator) < 0.5).numpy()
    for index, image_CHW in enumerate(images_NCHW):
        padded = np.zeros((3, 18, 18), np.uint8)
        padded[:, 4:14, 4:14] = image_CHW
        expected = padded[:, top_N[index] : top_N[index] + 10, left_N[index] : left_N[index] + 10]
        if is_flipped_N[index]:
            expected = expected[:, :, ::-1]
        assert np.array_equal(augmented[index].numpy(), expected)
    assert set(top_N) == set(left_N) == set(range(9))  # Every offset was tried.


def test_crop_and_flip_keeps_shape_and_type_and_moves_at_most_four_pixels():
    image = torch.zeros(200, 1, 9, 9, dtype=torch.uint8)
    image[:, :, 4, 4] = 200  # The centre, which a flip leaves where it is.
    augmented = augment(image, augmentation="crop_flip", generator=torch.Generator().manual_seed(0))
    assert augmented.dtype == torch.uint8 and augmented.shape == image.shape
    assert augmented.flatten(1).sum(1).eq(200).all()
    rows, columns = augmented[:, 0].nonzero()[:, 1:].T
    assert set(rows.tolist()) == set(columns.tolist()) == set(range(9))


def test_resized_crops_have_the_areas_and_aspect_ratios_of_the_paper_and_lie_within_the_image():
    side, num = 64, 400
    # Grey levels are coordinates, so that a crop tells where it was taken: 3 a pixel, from 33 to 222.
    ramp = torch.arange(side, dtype=torch.float32) * 3 + 33
    image_CHW = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side)]).to(torch.uint8)
    cropped = augment(
        image_CHW.expand(num, -1, -1, -1).clone(),
        augmentation="resized_crop_flip",
        generator=torch.Generator().manual_seed(1),
    ).float()
    assert cropped.shape == (num, 2, side, side)

    def span(values_NX: torch.Tensor) -> torch.Tensor:
        """Grey levels per pixel of the result, over those of the image, from the middle half: the border is clamped."""
        return (values_NX[:, 48] - values_NX[:, 16]) / (32 * 3)

    across, down = span(cropped[:, 0].mean(1)), span(cropped[:, 1].mean(2))
    width, height = across.abs(), down
    # A rounded grey level is half a level off, averaged over 64 pixels of equal value: 2 * 0.5 / 96 in each span.
    slack = 1.05 * 1 / 96
    assert (width <= 1 + slack).all() and (height <= 1 + slack).all() and (height > 0).all()
    area, aspect = width * height, width / height
    assert (area >= 0.08 - 2 * slack).all() and area.min() < 0.12 and area.max() > 0.85
    # The relative error of a side of at least sqrt(.08 * 3 / 4) = .24 is below 2 * slack / .24.
    assert (aspect <= 4 / 3 * (1 + 2 * slack / 0.24)).all() and (aspect >= 3 / 4 * (1 - 2 * slack / 0.24)).all()
    assert aspect.max() > 1.25 and aspect.min() < 0.8
    assert cropped.min() >= 33 and cropped.max() <= 222
    flipped = (across < 0).float().mean()
    assert 0.5 - 4 * 0.025 < flipped < 0.5 + 4 * 0.025  # Four standard deviations: sqrt(.25 / 400) = .025.


def test_no_augmentation_gives_the_same_tensor():
    images = torch.from_numpy(arrays().images_NCHW)
    assert augment(images, augmentation="none", generator=torch.Generator()) is images
