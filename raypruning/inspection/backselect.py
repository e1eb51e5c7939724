"""What a network looks at: the order in which pixels of an image can go while the network stays as sure as it can.

Backward selection (BackSelect): from the whole image, the pixel goes without which the network is most sure of the
class that it sees in the whole image; then the next one, until none is left. The last ones to go carry the decision. A
pixel goes with all its channels, and what stands in its place is 0 in normalised space, the mean.

Sure means the log-odds of that class, log(p / (1 - p)) with p its softmax. They order pixels as p and log p do. But in
single precision p is 1 and log p is 0, and their gradients vanish, from log-odds of 17 on, which whole images of a
trained network exceed: all pixels would tie.

Source: Carter et al. 2019, "What made you do this? Understanding black-box decisions with sufficient input subsets"
(exact); Carter et al. 2021, "Overinterpretation reveals image classification model pathologies" (gradient).
"""

# N images, P pixels, R of them left, K candidates, M pairs of image and candidate, B of a batch, L classes
# C channels, H W height and width

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raypruning.analysis.features import Selector, step_of

Advance = Callable[[int], None]


def pixel_orders(
    model: nn.Module,
    images_NCHW: Tensor,
    selector: Selector,
    *,
    batch_size: int,
    group_size: int | None = None,
    num_threads: int = 1,
    advance: Advance = lambda forwards: None,
) -> Tensor:
    """Pixels of each image, row by row from 0, from the first that goes to the last; int64 (N, P).

    Ties go to the lowest pixel. Pixels that go in the same step stand in the order of what was measured for each.

    Args:
        model: in evaluation mode, so that an image's answer does not depend on the others of its batch.
        images_NCHW: normalised, on the model's device.
        selector: how the pixels that go are found.
        batch_size: images at once in a forward pass; a quarter of it where gradients are needed. It bounds memory, and
            changes nothing but the rounding of the network's own arithmetic.
        group_size: images that are worked on in step, so that their candidates fill batches; `batch_size` when None.
        num_threads: groups at once, on a CPU. Threads of ours keep all cores busy where those within torch, which meet
            after every layer of a small network, do not.
        advance: told of forward passes as they are done, by any thread; a backward pass counts as two. What it raises
            ends the work.
    """
    groups = images_NCHW.split(group_size or batch_size)
    is_over = threading.Event()

    def go_on(forwards: int) -> None:
        if is_over.is_set():
            raise _OverError
        advance(forwards)

    def order(group_NCHW: Tensor) -> Tensor:
        return _orders_of_group(model, group_NCHW, selector, batch_size=batch_size, advance=go_on)

    if num_threads == 1 or len(groups) == 1:
        return torch.cat([order(group_NCHW) for group_NCHW in groups])
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_threads, thread_name_prefix="backselect") as pool:
            futures = [pool.submit(order, group_NCHW) for group_NCHW in groups]
            try:
                ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in ended:
                    future.result()
            except BaseException:
                is_over.set()  # or a signal would wait for groups that nobody wants any more
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            return torch.cat([future.result() for future in futures])
    finally:
        torch.set_num_threads(threads_before)


class _OverError(Exception):
    """Ends a group that nobody waits for. Never leaves this module."""


class _Masked(NamedTuple):
    """Images of which some pixels are gone already.

    Attributes:
        pixels_NPC: 0 where a pixel is gone.
        class_N: that the network sees in the whole images.
    """

    pixels_NPC: Tensor
    height: int
    class_N: Tensor

    def without(self, image_B: Tensor, pixel_B: Tensor) -> Tensor:
        """Some of the images, (B, C, H, W) in channels_last, each without one more pixel."""
        changed_BPC = self.pixels_NPC[image_B]
        changed_BPC[torch.arange(len(image_B), device=image_B.device), pixel_B] = 0.0
        return _as_images(changed_BPC, self.height)


@torch.no_grad()
def _orders_of_group(
    model: nn.Module, images_NCHW: Tensor, selector: Selector, *, batch_size: int, advance: Advance
) -> Tensor:
    pixels_NPC = _as_pixels(images_NCHW)
    num, num_pixels, _ = pixels_NPC.shape
    device = images_NCHW.device
    masked = _Masked(pixels_NPC, images_NCHW.shape[2], judge(model, images_NCHW, batch_size=batch_size).argmax(1))
    left_NR = torch.arange(num_pixels, device=device).repeat(num, 1)  # ascending in every row
    orders_NP = torch.empty_like(left_NR)
    num_gone = 0
    while num_gone < num_pixels:
        step = step_of(selector, num_left=num_pixels - num_gone)
        places_NK = torch.arange(left_NR.shape[1], device=device).repeat(num, 1)
        scores_NK: Tensor | None = None
        if step.is_estimated:
            scores_NK = _estimates(model, masked, batch_size=batch_size).gather(1, left_NR)
        if step.num_candidates:
            if scores_NK is not None:
                # Ascending again, so that a tie of what is measured goes to the lowest pixel.
                places_NK = _largest(scores_NK, step.num_candidates).sort(1).values
            candidates_NK = left_NR.gather(1, places_NK)
            scores_NK = _odds_without(model, masked, candidates_NK, batch_size=batch_size)
        assert scores_NK is not None  # a step estimates, or measures, or both
        places_Nk = places_NK.gather(1, _largest(scores_NK, step.num_gone))
        gone_Nk = left_NR.gather(1, places_Nk)
        orders_NP[:, num_gone : num_gone + step.num_gone] = gone_Nk
        pixels_NPC.scatter_(1, gone_Nk[:, :, None].expand(-1, -1, pixels_NPC.shape[2]), 0.0)
        stays_NR = torch.ones_like(left_NR, dtype=torch.bool).scatter_(1, places_Nk, False)
        left_NR = left_NR[stays_NR].view(num, -1)
        num_gone += step.num_gone
        advance(num * step.forwards)
    return orders_NP


def _largest(scores_NK: Tensor, num: int) -> Tensor:
    """Places of the largest scores, largest first; the earlier place of two equal ones."""
    return scores_NK.argsort(dim=1, descending=True, stable=True)[:, :num]


def _odds_without(model: nn.Module, masked: _Masked, candidates_NK: Tensor, *, batch_size: int) -> Tensor:
    """Log-odds of an image's class without a candidate, (N, K)."""
    num, num_candidates = candidates_NK.shape
    image_M = torch.arange(num, device=candidates_NK.device).repeat_interleave(num_candidates)
    pixel_M = candidates_NK.flatten()
    num_batches = -(-len(image_M) // batch_size)  # of equal size: a small rest costs a GPU as much as a whole one
    found = []
    with torch.inference_mode():
        for image_B, pixel_B in zip(image_M.tensor_split(num_batches), pixel_M.tensor_split(num_batches), strict=True):
            logits_BL = model(masked.without(image_B, pixel_B))
            found.append(log_odds(logits_BL, masked.class_N[image_B]))
    return torch.cat(found).view(num, num_candidates)


def _estimates(model: nn.Module, masked: _Masked, *, batch_size: int) -> Tensor:
    """By how much the log-odds of an image's class changes without a pixel, to first order, (N, P).

    0 for a pixel that is gone.
    """
    found = []
    size = max(1, batch_size // 4)  # what the way back needs stays in memory
    for pixels_BPC, class_B in zip(masked.pixels_NPC.split(size), masked.class_N.split(size), strict=True):
        inputs_BPC = pixels_BPC.clone().requires_grad_()
        with torch.enable_grad():
            odds_B = log_odds(model(_as_images(inputs_BPC, masked.height)), class_B)
            (gradient_BPC,) = torch.autograd.grad(odds_B.sum(), inputs_BPC)
        found.append(-(gradient_BPC * pixels_BPC).sum(2))
    return torch.cat(found)


def judge(model: nn.Module, images_NCHW: Tensor, *, batch_size: int, kept_NP: Tensor | None = None) -> Tensor:
    """Probabilities of the classes, float32 (N, L), on images of which only some pixels are shown.

    Args:
        model: in evaluation mode.
        images_NCHW: normalised, on the model's device.
        batch_size: images at once.
        kept_NP: True where a pixel is shown, the others are the mean pixel; None for whole images.
    """
    if kept_NP is not None:
        images_NCHW = images_NCHW * kept_NP.view(-1, 1, *images_NCHW.shape[2:])
    found = []
    with torch.inference_mode():
        for images_BCHW in images_NCHW.split(batch_size):
            logits_BL = model(images_BCHW.contiguous(memory_format=torch.channels_last))
            found.append(logits_BL.float().softmax(1))
    return torch.cat(found)


def kept_of(orders_NP: Tensor, num_kept: int) -> Tensor:
    """True at the last pixels of each order, (N, P)."""
    is_kept_NP = torch.zeros_like(orders_NP, dtype=torch.bool)
    return is_kept_NP.scatter_(1, orders_NP[:, orders_NP.shape[1] - num_kept :], True)


def log_odds(logits_BL: Tensor, class_B: Tensor) -> Tensor:
    """Of a class against all others together, (B,): log(p / (1 - p)) of its softmax p, at any size."""
    others_BL = logits_BL.scatter(1, class_B[:, None], -torch.inf)
    return logits_BL.gather(1, class_B[:, None])[:, 0] - others_BL.logsumexp(1)


def _as_pixels(images_NCHW: Tensor) -> Tensor:
    """A copy, (N, P, C)."""
    return images_NCHW.permute(0, 2, 3, 1).flatten(1, 2).clone(memory_format=torch.contiguous_format)


def _as_images(pixels_BPC: Tensor, height: int) -> Tensor:
    """The same memory as (B, C, H, W), which is then channels_last."""
    return pixels_BPC.unflatten(1, (height, -1)).permute(0, 3, 1, 2)
