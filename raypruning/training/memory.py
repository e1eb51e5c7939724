"""Whether a training fits the share of a GPU that it was given: found out before hours of it, and kept to by force."""

# B images of a batch, C channels, H W height and width

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import nn

from raypruning.core.records import Kind
from raypruning.training.data_parallel import ALONE
from raypruning.training.inputs import autocast
from raypruning.training.loop import Setting, backward, make_optimiser
from raypruning.training.objective import any_truth

# Of each process, beside what it allocates: CUDA's context with its kernels.
CONTEXT_BYTES = 600 << 20


def keep_to_share(device: torch.device, share: float) -> None:
    """Let this process run out of memory at its share of a GPU, where it would take what its neighbours were given."""
    if device.type != "cuda":
        return
    context = CONTEXT_BYTES / torch.cuda.get_device_properties(device).total_memory
    # The whole of it as well: an earlier probe of this process may have had less.
    limit = max(share / 2, share - context) if share < 1 else 1.0
    torch.cuda.set_per_process_memory_fraction(limit, device)


def try_step(
    model: nn.Module, setting: Setting, *, kind: Kind, shape_CHW: tuple[int, int, int], num_classes: int
) -> None:
    """Take one step of training, and measure one batch, on a copy of the network and black images.

    An evaluation may need more memory than the training that it follows. Leaves model and random numbers as they are.

    Raises: torch.OutOfMemoryError.
    """
    device = setting.device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        trial = copy.deepcopy(model).train()
        num_images = len(setting.group.share.to_read(min(setting.recipe.batch_size, len(setting.train))))
        black_BCHW = torch.zeros(num_images, *shape_CHW, device=device)
        truth = any_truth(kind, black_BCHW, num_classes=num_classes)
        optimiser = make_optimiser(trial, setting.recipe)
        backward(trial, black_BCHW, truth, dataclasses.replace(setting, group=ALONE), penalised=[], counts=True)
        optimiser.step()
        optimiser.zero_grad()
        trial.eval()
        with torch.inference_mode(), autocast(device, setting.recipe.numerics.precision):
            trial(setting.normalise(torch.zeros(setting.eval_batch_size, *shape_CHW, device=device)))
    if device.type == "cuda":
        del trial, optimiser, black_BCHW, truth
        torch.cuda.empty_cache()
