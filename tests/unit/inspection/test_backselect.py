"""Backward selection against its definition, and on networks whose order of pixels is known."""

# N images, C channels, H W height and width, P pixels, L classes

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from raypruning.analysis.features import Selector, forwards_of
from raypruning.inspection.backselect import judge, kept_of, log_odds, pixel_orders

EXACT = Selector(mode="exact")
GRADIENT = Selector(mode="gradient")
SCREENED = Selector(mode="screened", candidates=3)
EVERY = (EXACT, GRADIENT, SCREENED)


class Tiny(nn.Module):
    """A convolution, a bend and a linear layer, in double precision: rounding cannot decide between two pixels."""

    def __init__(self, *, channels: int = 2, side: int = 4, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(channels, 3, 3, padding=1)
        self.head = nn.Linear(3 * side * side, 3)
        self.double().eval().requires_grad_(False)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.head(torch.tanh(self.conv(images_NCHW)).flatten(1))


class Linear(nn.Module):
    """Two classes whose logits differ by the sum of weights times pixels: which pixel may go is written down."""

    def __init__(self, weights_CHW: Tensor) -> None:
        super().__init__()
        self.weights_CHW = weights_CHW

    def forward(self, images_NCHW: Tensor) -> Tensor:
        margin_N = (images_NCHW * self.weights_CHW).sum((1, 2, 3))
        return torch.stack([margin_N, torch.zeros_like(margin_N)], 1)


class Counting(nn.Module):
    """Counts the images that pass forward, and those that pass back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0
        self.largest = 0

    def forward(self, images_NCHW: Tensor) -> Tensor:
        num = len(images_NCHW)
        self.forwards += num
        self.largest = max(self.largest, num)
        if images_NCHW.requires_grad:
            self.backwards += num
        return self.model(images_NCHW)


def images(num: int = 3, *, channels: int = 2, side: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(num, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(model: nn.Module, image_CHW: Tensor, *, num_at_once: int = 1) -> list[int]:
    """One image, one candidate, one forward pass after the other. Ties go to the lowest pixel."""
    side = image_CHW.shape[2]
    label = int(model(image_CHW[None]).argmax())
    left, order = list(range(image_CHW[0].numel())), []
    while left:
        found = []
        for pixel in left:
            gone = [*order, pixel]
            masked = image_CHW.clone()
            for one in gone:
                masked[:, one // side, one % side] = 0
            found.append((-float(model(masked[None]).log_softmax(1)[0, label]), pixel))
        best = [pixel for _, pixel in sorted(found)[:num_at_once]]
        order += best
        left = [pixel for pixel in left if pixel not in best]
    return order


@pytest.mark.parametrize("num_at_once", [1, 3])
def test_exact_order_is_that_of_the_definition(num_at_once: int):
    model, batch = Tiny(), images()
    found = pixel_orders(model, batch, Selector(mode="exact", pixels_per_step=num_at_once), batch_size=7)
    assert found.tolist() == [by_definition(model, image, num_at_once=num_at_once) for image in batch]


@pytest.mark.parametrize("num_at_once", [1, 3, 16, 20])
def test_screened_with_every_pixel_a_candidate_is_exact(num_at_once: int):
    model, batch = Tiny(), images()
    exact = pixel_orders(model, batch, Selector(mode="exact", pixels_per_step=num_at_once), batch_size=64)
    every = Selector(mode="screened", pixels_per_step=num_at_once, candidates=16)
    assert torch.equal(pixel_orders(model, batch, every, batch_size=64), exact)


def test_screened_tries_the_candidates_of_the_gradient_and_takes_the_best_of_them():
    """The first step, by hand: finite differences stand in for the gradient."""
    model, batch = Tiny(), images(1)
    label = int(model(batch).argmax())

    def surety(image_NCHW: Tensor) -> float:
        log_p = model(image_NCHW).log_softmax(1)[0, label]
        return float(log_p - torch.log1p(-log_p.exp()))

    step = 1e-6  # central differences of a smooth function in doubles: errors of 1e-10, estimates apart by far more
    estimates = []
    for pixel in range(16):
        mask = torch.zeros(4, 4, dtype=torch.float64)
        mask[pixel // 4, pixel % 4] = step
        estimates.append((surety(batch * (1 - mask)) - surety(batch * (1 + mask))) / (2 * step))
    candidates = np.argsort(-np.array(estimates))[:3]
    without = {}
    for pixel in candidates:
        masked = batch.clone()
        masked[:, :, pixel // 4, pixel % 4] = 0
        without[int(pixel)] = surety(masked)
    first = pixel_orders(model, batch, SCREENED, batch_size=64)[0, 0]
    assert int(first) == max(without, key=lambda pixel: without[pixel])
    assert int(pixel_orders(model, batch, GRADIENT, batch_size=64)[0, 0]) == candidates[0]


@pytest.mark.parametrize("selector", EVERY)
@pytest.mark.parametrize("sign", [1, -1])
def test_linear_network_orders_pixels_by_what_they_add(selector: Selector, sign: int):
    """Gone first is what speaks against the class; kept to the end what speaks for it most."""
    weights_CHW = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batch = images(2) * sign
    adds_NP = (batch * weights_CHW).sum(1).flatten(1)
    # Class 0 where the sum is above 0; the other class sees the same with the sign turned.
    towards_NP = adds_NP * adds_NP.sum(1, keepdim=True).sign()
    found = pixel_orders(Linear(weights_CHW), batch, selector, batch_size=64)
    assert torch.equal(found, towards_NP.argsort(1))


@pytest.mark.parametrize("selector", [*EVERY, Selector(mode="gradient", pixels_per_step=5)])
def test_where_all_pixels_tie_the_lowest_goes_first(selector: Selector):
    weights_CHW = torch.ones(1, 4, 4, dtype=torch.float64)
    found = pixel_orders(Linear(weights_CHW), torch.ones(2, 1, 4, 4, dtype=torch.float64), selector, batch_size=5)
    assert found.tolist() == [list(range(16))] * 2


@pytest.mark.parametrize("selector", EVERY)
def test_confident_network_tells_pixels_apart_where_its_softmax_does_not(selector: Selector):
    """In single precision, without any one pixel, the softmax is 1 and its logarithm 0: all pixels would tie."""
    weights_CHW = torch.arange(16.0, 0.0, -1.0).view(1, 4, 4)
    batch = torch.ones(1, 1, 4, 4)
    logits_NL = Linear(weights_CHW)(batch * (1 - torch.eye(16).view(16, 1, 4, 4)))
    assert (logits_NL.softmax(1)[:, 0] == 1).all() and (logits_NL.log_softmax(1)[:, 0] == 0).all()
    found = pixel_orders(Linear(weights_CHW), batch, selector, batch_size=64)
    assert found[0].tolist() == list(range(15, -1, -1))


@given(st.lists(st.floats(-15, 15), min_size=2, max_size=6), st.data())
def test_log_odds_are_those_of_the_softmax(logits: list[float], data: st.DataObject):
    label = data.draw(st.integers(0, len(logits) - 1))
    logits_1L = torch.tensor([logits], dtype=torch.float64)
    p = logits_1L.softmax(1)[0]
    expected = torch.log(p[label] / (p.sum() - p[label]))
    # 1 - p is known to 1e-16 of at least e^-30 = 1e-13 where it is small.
    assert float(log_odds(logits_1L, torch.tensor([label]))) == pytest.approx(float(expected), abs=0.01)


@pytest.mark.parametrize("selector", EVERY)
def test_planted_pixels_are_kept_by_every_mode(selector: Selector):
    planted = [5, 6, 10]
    weights_CHW = torch.zeros(2, 4, 4, dtype=torch.float64)
    weights_CHW.flatten(1)[:, planted] = 1.0
    batch = images(4).abs()
    kept_NP = kept_of(pixel_orders(Linear(weights_CHW), batch, selector, batch_size=64), 3)
    assert all(torch.nonzero(kept_P)[:, 0].tolist() == planted for kept_P in kept_NP)


@pytest.mark.parametrize("selector", [EXACT, GRADIENT, Selector(mode="screened", candidates=4, pixels_per_step=2)])
def test_order_depends_neither_on_batches_nor_on_threads(selector: Selector):
    model, batch = Tiny(), images(7)
    once = pixel_orders(model, batch, selector, batch_size=1000)
    for sizes in ({"batch_size": 1}, {"batch_size": 5}, {"batch_size": 16, "group_size": 2, "num_threads": 3}):
        assert torch.equal(pixel_orders(model, batch, selector, **sizes), once)
    alone = [pixel_orders(model, image[None], selector, batch_size=8)[0] for image in batch]
    assert torch.equal(torch.stack(alone), once)


def test_threads_of_torch_are_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    pixel_orders(Tiny(), images(4), GRADIENT, batch_size=8, group_size=1, num_threads=2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@given(
    mode=st.sampled_from(["exact", "screened", "gradient"]),
    pixels_per_step=st.integers(1, 20),
    candidates=st.integers(1, 20),
    batch_size=st.integers(1, 40),
)
def test_order_holds_every_pixel_once_and_costs_what_is_said(
    mode: str, pixels_per_step: int, candidates: int, batch_size: int
):
    selector = Selector.model_validate(
        {"mode": mode, "pixels_per_step": pixels_per_step, "candidates": candidates if mode == "screened" else 0}
    )
    model, batch, told = Counting(Tiny()), images(2), []
    found = pixel_orders(model, batch, selector, batch_size=batch_size, advance=told.append)
    assert found.sort(1).values.tolist() == [list(range(16))] * 2
    # One pass more for each image: the class that is seen in the whole of it.
    assert model.forwards + 2 * model.backwards - 2 == 2 * forwards_of(selector, 16) == sum(told)
    assert model.largest <= batch_size


def test_what_advance_raises_ends_the_work_of_all_threads():
    class StopError(Exception):
        pass

    lock, num_told = threading.Lock(), 0

    def advance(forwards: int) -> None:
        nonlocal num_told
        with lock:
            num_told += 1
            if num_told == 3:
                raise StopError

    with pytest.raises(StopError):
        pixel_orders(Tiny(), images(40), EXACT, batch_size=64, group_size=1, num_threads=2, advance=advance)
    assert num_told < 40 * 16 / 2  # of 16 steps for each image


def test_network_of_large_images_is_shown_kept_pixels_only():
    weights_CHW = torch.ones(1, 2, 2)
    batch = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    kept_NP = torch.tensor([[True, False, False, True]])
    shown = judge(Linear(weights_CHW), batch, batch_size=4, kept_NP=kept_NP)
    whole = judge(Linear(weights_CHW), batch, batch_size=4)
    # Logits 5 and 10 against 0.
    assert shown[0].tolist() == pytest.approx([1 / (1 + np.exp(-5)), 1 / (1 + np.exp(5))], rel=1e-6)
    assert whole[0].tolist() == pytest.approx([1 / (1 + np.exp(-10)), 1 / (1 + np.exp(10))], rel=1e-6)
