"""Frost against the oracle with the oracle's pictures; our own pictures; those of a folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from raypruning.corruptions import frost_textures
from raypruning.corruptions.corrupt import apply, corrupt
from raypruning.corruptions.frost import parts
from raypruning.corruptions.frost_textures import Textures, from_folder, procedural
from raypruning.corruptions.parameters import PARAMETER_SETS, parameters_of
from raypruning.errors import DataError
from tests.unit.corruptions import oracle
from tests.unit.corruptions.parity import SIZES, difference, picture
from tests.unit.corruptions.replay_weather import REPLAYS, their_textures


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("size", [*SIZES, (28, 28), (224, 224), (340, 200), (513, 600)])
def test_frost_with_the_oracles_pictures_is_within_a_level(size: tuple[int, int], parameter_set: str) -> None:
    oracle.require()
    for severity in range(1, 6) if size in SIZES else (3,):
        found = difference("frost", severity, picture(*size), REPLAYS["frost"], parameter_set=parameter_set)
        assert found.largest <= 1 and found.share_equal > 0.95


def test_frost_for_small_images_is_a_fifth_of_the_picture() -> None:
    textures = _textures((300, 420), (205, 333))
    one = torch.tensor([1])

    found = parts(textures, one, torch.tensor([7]), torch.tensor([11]), (32, 30), is_shrunk=True)[0].permute(1, 2, 0)

    expected = cv2.resize(textures.pictures[1], (0, 0), fx=0.2, fy=0.2)[7:39, 11:41]
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("size", [(41, 20), (20, 67), (224, 224)])
def test_a_shrunk_picture_that_is_too_small_is_rescaled_to_fit(size: tuple[int, int]) -> None:
    textures = _textures((205, 333))  # A fifth is 41 x 67, where no place is left.
    zero = torch.tensor([0])

    found = parts(textures, zero, zero, zero, size, is_shrunk=True)[0].permute(1, 2, 0)

    factor = max(size[0] / 205, size[1] / 333) * 1.1
    shape = int(np.ceil(333 * factor)), int(np.ceil(205 * factor))
    expected = cv2.resize(textures.pictures[0], shape, interpolation=cv2.INTER_CUBIC)[: size[0], : size[1]]
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
def test_frost_is_the_weighted_sum_truncated_for_every_pair_of_values(parameter_set: str) -> None:
    values = torch.arange(256, dtype=torch.uint8)
    images, frost = values.view(1, 1, 256, 1).expand(1, 3, 256, 256), values.expand(1, 3, 256, 256)
    for severity in range(1, 6):
        image_weight, frost_weight, _ = parameters_of("frost", severity, parameter_set=parameter_set)

        found = apply("frost", severity, images, {"frost": frost}, parameter_set=parameter_set)

        # The weights in twentieths are whole, so this is exact.
        twentieths = 20 * torch.tensor([image_weight, frost_weight], dtype=torch.float64)
        assert torch.allclose(twentieths, twentieths.round(), rtol=0, atol=1e-12)
        weights = twentieths.round().long()
        expected = ((weights[0] * images.long() + weights[1] * frost.long()) // 20).clamp(max=255)
        assert torch.equal(found.long(), expected)


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
def test_our_frost_is_as_strong_as_the_oracles(parameter_set: str) -> None:
    oracle.require()
    images = torch.from_numpy(np.stack([picture(32, 32, seed=seed).transpose(2, 0, 1) for seed in range(300)]))
    changes = {}
    for name, textures in (("ours", procedural()), ("theirs", their_textures())):
        draws = {"frost": _random_parts(textures, 300, is_shrunk=parameter_set == "cifar")}
        changes[name] = [
            (apply("frost", severity, images, draws, parameter_set=parameter_set).float() - images).abs().mean().item()
            for severity in range(1, 6)
        ]

    # 15 % is less than from one severity to the next.
    assert np.mean(changes["ours"]) == pytest.approx(np.mean(changes["theirs"]), rel=0.15)


def test_our_pictures_are_the_same_on_every_machine() -> None:
    pictures = procedural().pictures

    assert [picture.shape for picture in pictures] == [(480, 720, 3)] * 5
    assert all(picture.dtype == np.uint8 for picture in pictures)
    # Means of blocks: single values may differ by one between machines.
    blocks = np.stack([cv2.resize(picture, (3, 2), interpolation=cv2.INTER_AREA) for picture in pictures])
    assert np.abs(blocks[..., 1].reshape(5, 6).astype(int) - _FINGERPRINT).max() <= 1


def test_our_pictures_have_the_brightness_and_contrast_of_the_oracles() -> None:
    oracle.require()
    for ours, theirs in zip(procedural().pictures, their_textures().pictures, strict=True):
        # A level for what is lost at black and white.
        assert np.abs(ours.mean(axis=(0, 1)) - theirs.mean(axis=(0, 1))).max() < 1
        assert np.abs(ours.std(axis=(0, 1)) - theirs.std(axis=(0, 1))).max() < 2


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
def test_frost_on_an_image_is_the_same_in_any_company(parameter_set: str) -> None:
    images = torch.from_numpy(np.stack([picture(33, 40, seed=seed).transpose(2, 0, 1) for seed in range(30)]))
    ids = torch.arange(30)
    together = corrupt("frost", 3, images, ids, parameter_set=parameter_set)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))

    shuffled = corrupt("frost", 3, images[order], ids[order], parameter_set=parameter_set)
    alone = [corrupt("frost", 3, images[i : i + 1], ids[i : i + 1], parameter_set=parameter_set) for i in range(7)]

    assert torch.equal(shuffled, together[order])
    assert torch.equal(torch.cat(alone), together[:7])


def test_the_folder_of_the_environment_gives_its_first_five_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        suffix = ("png", "JPG")[number % 2]
        cv2.imencode(f".{suffix}", np.full((90, 100, 3), 40 * number + 5, np.uint8))[1].tofile(
            tmp_path / f"{number}.{suffix}"
        )
    (tmp_path / "licence.txt").write_text("ours")
    monkeypatch.setenv("RAYPRUNING_FROST_DIR", str(tmp_path))

    images = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    found = corrupt("frost", 1, images, torch.arange(200), parameter_set="imagenet")

    # 0.4 of the pictures' levels 5, 45, 85, 125 and 165, never of the sixth. 0.8^200 is the chance to miss one.
    assert found.unique().tolist() == [2, 18, 34, 50, 66]


def test_a_folder_without_pictures_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path} has none"):
        from_folder(tmp_path)
    with pytest.raises(DataError, match="nowhere is no folder"):
        from_folder(tmp_path / "nowhere")
    for content in (b"", b"no picture"):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(DataError, match=rf"{tmp_path} has a\.png"):
            from_folder(tmp_path)


def test_pictures_of_a_folder_are_read_red_first(tmp_path: Path) -> None:
    blue_first = np.zeros((40, 50, 3), np.uint8)
    blue_first[..., 2] = 200
    cv2.imencode(".png", blue_first)[1].tofile(tmp_path / "red.png")

    (found,) = from_folder(tmp_path).pictures

    assert found[0, 0].tolist() == [200, 0, 0]


def test_without_a_folder_the_pictures_are_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYPRUNING_FROST_DIR", raising=False)

    assert frost_textures.default() is procedural()


def _textures(*sizes: tuple[int, int]) -> Textures:
    rng = np.random.default_rng(0)
    return Textures(tuple(rng.integers(0, 256, size=(*size, 3), dtype=np.uint8) for size in sizes))


def _random_parts(textures: Textures, num: int, *, is_shrunk: bool) -> Tensor:
    rng = np.random.default_rng(0)
    scale = 0.2 if is_shrunk else 1.1
    picture_B = rng.integers(0, 5, num)
    sizes = np.array([textures.pictures[index].shape[:2] for index in picture_B])
    places = (rng.random((num, 2)) * (np.floor(sizes * scale) - 32)).astype(int)
    numbers = (torch.from_numpy(numbers) for numbers in (picture_B, places[:, 0].copy(), places[:, 1].copy()))
    return parts(textures, *numbers, (32, 32), is_shrunk=is_shrunk)


_FINGERPRINT = np.array(
    [
        [148, 142, 152, 151, 141, 160],
        [203, 202, 201, 206, 206, 210],
        [198, 193, 214, 201, 208, 214],
        [171, 159, 151, 146, 148, 143],
        [150, 133, 123, 97, 124, 111],
    ]
)
