"""What holds for every corruption: shapes, draws by id, and what is refused."""

# N images, C channels, H W height and width

from __future__ import annotations

import pytest
import torch

from raypruning.corruptions.corrupt import apply, corrupt, draw, luma
from raypruning.corruptions.parameters import NAMES, NUM_SEVERITIES, PARAMETER_SETS, VARIANTS
from raypruning.errors import DataError, SpecError, UnknownNameError
from tests.unit.corruptions.parity import picture

ALL = (*NAMES, *VARIANTS)


def pictures(num: int, height: int, width: int) -> torch.Tensor:
    images = [torch.from_numpy(picture(height, width, seed=seed).transpose(2, 0, 1).copy()) for seed in range(num)]
    return torch.stack(images)


@pytest.mark.parametrize("name", ALL)
def test_an_image_gets_the_same_whatever_the_batch_the_order_and_the_threads(name: str):
    images_NCHW, ids_N = pictures(9, 28, 28).repeat(15, 1, 1, 1), torch.arange(135) * 7
    whole = corrupt(name, 3, images_NCHW, ids_N, parameter_set="cifar")
    assert whole.dtype == torch.uint8 and whole.shape == images_NCHW.shape
    order = torch.randperm(135, generator=torch.Generator().manual_seed(0))
    again = corrupt(name, 3, images_NCHW[order], ids_N[order], parameter_set="cifar", num_threads=2)
    assert torch.equal(again, whole[order])
    for index in (0, 70, 134):
        one = slice(index, index + 1)
        assert torch.equal(corrupt(name, 3, images_NCHW[one], ids_N[one], parameter_set="cifar"), whole[one])


@pytest.mark.parametrize("parameter_set", PARAMETER_SETS)
@pytest.mark.parametrize("name", ALL)
def test_every_severity_changes_images_of_any_shape_and_leaves_the_originals(name: str, parameter_set: str):
    for height, width in ((28, 28), (30, 45), (48, 33)):
        images_NCHW, ids_N = pictures(2, height, width), torch.arange(2)
        before = images_NCHW.clone()
        for severity in range(1, NUM_SEVERITIES + 1):
            changed = corrupt(name, severity, images_NCHW, ids_N, parameter_set=parameter_set)
            assert changed.shape == before.shape and changed.dtype == torch.uint8
            assert not torch.equal(changed, before), (severity, height, width)
        assert torch.equal(images_NCHW, before)


@pytest.mark.parametrize("name", ALL)
def test_grey_images_stay_grey_and_change_as_their_colour_twins_do(name: str):
    grey_N1HW = luma(pictures(3, 32, 32))
    ids_N = torch.arange(3)
    changed = corrupt(name, 4, grey_N1HW, ids_N, parameter_set="cifar")
    assert changed.shape == grey_N1HW.shape and not torch.equal(changed, grey_N1HW)
    if name.endswith("noise"):
        return  # One draw for each value: a grey image has a third of them.
    draws = draw(name, 4, grey_N1HW, ids_N, parameter_set="cifar")
    in_colour = apply(name, 4, grey_N1HW.expand(-1, 3, -1, -1), draws, parameter_set="cifar")
    # A channel's own path may round once more than the grey one does.
    assert (luma(in_colour).int() - changed.int()).abs().max() <= 1


def test_two_images_and_two_severities_get_other_draws():
    # Grey, so that noise of a tenth of the range is clipped nowhere.
    images_NCHW = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    noisy = [corrupt("gaussian_noise", s, images_NCHW, torch.arange(2), parameter_set="cifar") for s in (4, 5)]
    values = torch.stack([noisy[0][0], noisy[0][1], noisy[1][0]]).double().flatten(1)
    between_images, between_severities = torch.corrcoef(values)[0, 1:]
    # 3072 independent pairs correlate by 0 with a standard deviation of 0.018; five of these are 0.09.
    assert abs(float(between_images)) < 0.09 and abs(float(between_severities)) < 0.09


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(2, 3, 32, 32), r"must be uint8 of shape \(N, 1 or 3, H, W\), got float32 \(2, 3, 32, 32\)"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), r"got uint8 \(3, 32, 32\)"),
        (torch.zeros(2, 4, 32, 32, dtype=torch.uint8), r"got uint8 \(2, 4, 32, 32\)"),
    ],
)
def test_images_of_another_kind_are_refused(images: torch.Tensor, says: str):
    with pytest.raises(DataError, match=says):
        corrupt("fog", 3, images, torch.arange(len(images)), parameter_set="cifar")


def test_names_sets_and_severities_that_do_not_exist_are_refused():
    images, ids = pictures(1, 32, 32), torch.arange(1)
    with pytest.raises(UnknownNameError, match="no corruption is called 'fogg': did you mean fog"):
        corrupt("fogg", 3, images, ids, parameter_set="cifar")
    with pytest.raises(UnknownNameError, match="no parameter set is called 'cifra': did you mean cifar"):
        corrupt("fog", 3, images, ids, parameter_set="cifra")
    with pytest.raises(SpecError, match="from 1 to 5, got 0"):
        corrupt("fog", 0, images, ids, parameter_set="cifar")


def test_no_images_are_no_images():
    empty = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)
    assert corrupt("fog", 3, empty, torch.arange(0), parameter_set="cifar").shape == empty.shape
