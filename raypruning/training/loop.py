"""One training from its first step to its last: dense, under masks, or under masks that grow.

On a CPU with a fixed number of threads the same seed gives the same bits, also after an interruption. Several processes
may share every batch (`Group`): what they make is what one makes within rounding, but for batch norm that sees a share
of the batch, and for dropout, which draws other numbers.
"""

# N images, B of a batch, C channels or classes, H W height and width

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from raypruning.core.identity import derive_seed
from raypruning.core.records import Epoch, Recipe
from raypruning.corruptions.mixes import expand_mixes
from raypruning.errors import TrainingError
from raypruning.models.weights import load_weights
from raypruning.training.batches import Images
from raypruning.training.data_parallel import ALONE, Group, average_later
from raypruning.training.gradual import Growing, Growth, Masks, Span
from raypruning.training.inputs import Normalisation, autocast
from raypruning.training.objective import Objective
from raypruning.training.schedule import learning_rate

Arrays = Mapping[str, np.ndarray]


class ResumeState(NamedTuple):
    """Where a training is after an epoch. Every epoch draws from a seed of its own, so no generator is part of it."""

    values: Mapping[str, Any]
    arrays: Arrays


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a training runs on and under.

    Attributes:
        epochs: that the schedule of learning rates is made for.
        stop_epochs: break it off after so many; None runs all.
        growth: masks that grow while training; None for those that are there from the start.
        penalised: names of the parameters that L1 and L2 penalties count: the weights of prunable layers.
        save: called after an epoch when the last call is `save_seconds` ago; None never saves.
        snapshot: called after each of `snapshot_epochs`, before `save`: what was saved has no snapshot before it that
            is still to come. Only of masks that do not grow.
        group: of the processes that train this network together; `save` and `snapshot` are of rank 0 alone.
        images_at_once: of a batch, on each worker; more are taken in parts, whose gradients add up. None takes all.
    """

    objective: Objective
    recipe: Recipe
    epochs: int
    seed: int
    is_retraining: bool
    train: Images
    validation: Images
    normalise: Normalisation
    augmentation: str
    eval_batch_size: int
    device: torch.device
    stop_epochs: int | None = None
    growth: Growth | None = None
    penalised: frozenset[str] = frozenset()
    save: Callable[[ResumeState], None] | None = None
    save_seconds: float = 30.0
    snapshot: Callable[[Snapshot], None] | None = None
    snapshot_epochs: frozenset[int] = frozenset()
    group: Group = ALONE
    images_at_once: int | None = None


class Trained(NamedTuple):
    """What a training leaves besides weights.

    Attributes:
        history: an entry an epoch.
        masks: that held at its end.
        data_wait: of the time of its epochs, the share in which it waited for images to be decoded.
    """

    history: tuple[Epoch, ...]
    masks: Masks
    data_wait: float = 0.0


class Snapshot(NamedTuple):
    """What a training would leave if it ended here. The weights are those of the model itself, and move on with it."""

    weights: Mapping[str, Tensor]
    trained: Trained


def train(model: nn.Module, masks: Masks, setting: Setting, *, resume: ResumeState | None = None) -> Trained:
    """Train `model` in place; what the masks remove is 0 after every step.

    Args:
        masks: boolean, by parameter name, on the device; empty where they grow (`setting.growth`). Of a group, rank 0
            has the masks, the model's weights and what to resume from.
        resume: from an earlier call that was interrupted.

    Raises: TrainingError: a loss is not finite.
    """
    group = setting.group
    num_epochs = setting.epochs if setting.stop_epochs is None else setting.stop_epochs
    growing = _make_growing(setting)
    optimiser = make_optimiser(model, setting.recipe)
    history: list[Epoch] = []
    best = _Best()
    if resume is not None:
        history, best = _restore(resume, model, optimiser, growing)
    if not group.is_alone:
        masks = _masks_of_first(group, masks, device=setting.device)
        state = _resume_state(model, optimiser, history, best, growing) if group.is_first else ResumeState({}, {})
        state = ResumeState(group.tell(state.values), group.tell_arrays(state.arrays))
        history, best = _restore(state, model, optimiser, growing)
    net = group.wrap(model)
    if not history:
        _take_snapshot(model, masks, setting, history, best)
    began, waited = time.monotonic(), setting.train.seconds_waited
    saved_at = began
    for epoch in range(len(history), num_epochs):
        rate, loss = _train_epoch(model, net, masks, optimiser, setting, growing, epoch=epoch)
        group.take_from_first(list(model.buffers()))
        validation_loss, validation_error = _validate(model, setting, epoch=epoch)
        history.append(
            Epoch(
                epoch=epoch + 1,
                learning_rate=rate,
                train_loss=loss,
                validation_loss=validation_loss,
                validation_error=validation_error,
            )
        )
        is_candidate = setting.recipe.keep == "best" and _is_final(setting, growing, num_epochs=epoch + 1)
        if is_candidate and validation_loss is not None and validation_error is not None:
            best = best.better_of(validation_error, validation_loss, epoch + 1, model)
        _take_snapshot(model, masks, setting, history, best)
        is_last = epoch + 1 == num_epochs
        if setting.save and not is_last and time.monotonic() - saved_at >= setting.save_seconds:
            setting.save(_resume_state(model, optimiser, history, best, growing))
            saved_at = time.monotonic()
    data_wait = (setting.train.seconds_waited - waited) / max(time.monotonic() - began, 1e-9)
    if best.state is not None:
        load_weights(model, best.state)
    return Trained(tuple(history), growing.masks if growing else masks, data_wait)


def _take_snapshot(model: nn.Module, masks: Masks, setting: Setting, history: list[Epoch], best: _Best) -> None:
    if setting.snapshot is not None and len(history) in setting.snapshot_epochs:
        weights = model.state_dict() if best.state is None else best.state
        setting.snapshot(Snapshot(weights, Trained(tuple(history), masks)))


def _steps_per_epoch(setting: Setting) -> int:
    return math.ceil(len(setting.train) / setting.recipe.batch_size)


def _make_growing(setting: Setting) -> Growing | None:
    if setting.growth is None:
        return None
    num_steps = _steps_per_epoch(setting) * setting.epochs
    return Growing(setting.growth, Span.of(setting.growth.gradual, num_steps=num_steps))


def _is_final(setting: Setting, growing: Growing | None, *, num_epochs: int) -> bool:
    """Whether the network after so many epochs could be the result: not one that is still to be pruned further."""
    if setting.stop_epochs is not None:
        return False
    return growing is None or num_epochs * _steps_per_epoch(setting) >= growing.span.end


class _Best(NamedTuple):
    """The epoch with the lowest validation error; the lower loss decides a tie, then the earlier epoch."""

    error: float = math.inf
    loss: float = math.inf
    epoch: int = 0
    state: dict[str, Tensor] | None = None

    def better_of(self, error: float, loss: float, epoch: int, model: nn.Module) -> _Best:
        if (error, loss) >= (self.error, self.loss):
            return self
        return _Best(error, loss, epoch, {name: value.detach().clone() for name, value in model.state_dict().items()})


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; its learning rate is set at each step."""
    if recipe.optimiser == "adam":
        return torch.optim.Adam(
            model.parameters(), lr=recipe.learning_rate, eps=recipe.adam_epsilon, weight_decay=recipe.weight_decay
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def _train_epoch(
    model: nn.Module,
    net: nn.Module,
    masks: Masks,
    optimiser: torch.optim.Optimizer,
    setting: Setting,
    growing: Growing | None,
    *,
    epoch: int,
) -> tuple[float, float]:
    """One pass over the training images; its last learning rate and its mean cross-entropy.

    Args:
        net: the model, or what its group trains in place of it.
    """
    recipe, phase = setting.recipe, "retrain" if setting.is_retraining else "dense"
    group, share = setting.group, setting.group.share
    num = len(setting.train)
    num_steps = _steps_per_epoch(setting)
    order_N = torch.randperm(num, generator=_generator(setting.seed, phase, "order", epoch))
    rank = (share.rank,) if share.rank else ()
    torch.manual_seed(derive_seed(setting.seed, phase, "dropout", epoch, *rank))
    parameters = dict(model.named_parameters())
    penalised = [value for name, value in parameters.items() if name in setting.penalised]
    net.train()
    total, num_seen = torch.zeros((), device=setting.device), 0
    rate = recipe.learning_rate
    batches = setting.train.read(
        order_N,
        batch_size=recipe.batch_size,
        augmentation=setting.augmentation,
        seed=derive_seed(setting.seed, phase, "augmentation", epoch),
        corruptions=expand_mixes(recipe.train_corruptions),
        share=share,
    )
    for index, (pixels_BCHW, truth, _) in enumerate(batches):
        step = epoch * num_steps + index
        num_images = min(recipe.batch_size, num - index * recipe.batch_size)
        if num_images == 1 < min(num, recipe.batch_size):
            # Batch norm has no variance over the single image that was left over.
            if growing:
                _grow(growing, model, setting, step + 1)
            continue
        rate = learning_rate(
            recipe, step, steps_per_epoch=num_steps, epochs=setting.epochs, is_retraining=setting.is_retraining
        )
        for param_group in optimiser.param_groups:
            param_group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        loss = backward(net, pixels_BCHW, truth, setting, penalised=penalised, counts=len(share.of(num_images)) > 0)
        optimiser.step()
        with torch.no_grad():
            for name, mask in (growing.masks if growing else masks).items():
                parameters[name].mul_(mask)
        if growing:
            _grow(growing, model, setting, step + 1)
        total += loss * num_images
        num_seen += num_images
    mean = float(group.sum(total)) / num_seen
    if not math.isfinite(mean):
        raise _diverged("loss", mean, setting, epoch=epoch)
    return rate, mean


def backward(
    net: nn.Module,
    pixels_BCHW: Tensor,
    truth: Tensor,
    setting: Setting,
    *,
    penalised: list[nn.Parameter],
    counts: bool,
) -> Tensor:
    """Gradients of the mean loss over the whole batch, and this worker's summand of that loss.

    Args:
        pixels_BCHW, truth: this worker's share of the batch.
        counts: False for images that are another worker's: they are computed, since all workers average at once.
    """
    recipe, group, objective = setting.recipe, setting.group, setting.objective
    at_once = setting.images_at_once or len(truth)
    parts = list(zip(pixels_BCHW.split(at_once), truth.split(at_once), strict=True))
    weights = [objective.num_terms(part) * counts for _, part in parts]
    # Of a batch that has nothing to learn from, nothing is learned.
    whole = group.sum(sum(weights, torch.zeros((), dtype=torch.float64, device=setting.device))).clamp(min=1)
    summand = torch.zeros((), device=setting.device)
    for index, ((pixels, part), weight) in enumerate(zip(parts, weights, strict=True)):
        is_last = index + 1 == len(parts)
        with contextlib.nullcontext() if is_last else average_later(net):
            with autocast(setting.device, recipe.numerics.precision):
                outputs = net(setting.normalise(pixels))
                loss = objective.loss(outputs, part, label_smoothing=recipe.label_smoothing)
            fraction = weight / whole
            # What the group takes of gradients is their mean, in which a penalty counts once.
            scaled = loss * (fraction * group.share.size)
            (scaled + _penalty(penalised, recipe) if is_last else scaled).backward()
        summand += loss.detach() * fraction
    return summand


def _grow(growing: Growing, model: nn.Module, setting: Setting, step: int) -> None:
    """Let masks grow; those of a group are rank 0's, whose GPU may have broken a tie in another way."""
    group = setting.group
    if not growing.after_step(model, step) or group.is_alone:
        return
    group.take_from_first(list(model.state_dict().values()))
    state = {name: tensor.cpu().numpy() for name, tensor in growing.state().items()} if group.is_first else None
    growing.restore(group.tell_arrays(state), device=setting.device)


def _masks_of_first(group: Group, masks: Masks, *, device: torch.device) -> Masks:
    arrays = group.tell_arrays({name: mask.cpu().numpy() for name, mask in masks.items()})
    return {name: torch.from_numpy(np.array(mask)).to(device) for name, mask in arrays.items()}


def _penalty(weights: list[nn.Parameter], recipe: Recipe) -> Tensor | float:
    penalty: Tensor | float = 0.0
    if recipe.l1_penalty:
        penalty = penalty + recipe.l1_penalty * sum(weight.abs().sum() for weight in weights)
    if recipe.l2_penalty:
        penalty = penalty + recipe.l2_penalty * sum(weight.square().sum() for weight in weights)
    return penalty


def _diverged(what: str, value: float, setting: Setting, *, epoch: int) -> TrainingError:
    return TrainingError(
        f"the {what} became {value} in epoch {epoch + 1} of {setting.epochs}; lower recipe.learning_rate "
        f"({setting.recipe.learning_rate}) or lengthen recipe.warmup_epochs"
    )


def _validate(model: nn.Module, setting: Setting, *, epoch: int) -> tuple[float | None, float | None]:
    """Cross-entropy and error on the validation split; None where a tiny dataset has no image to spare for one."""
    if len(setting.validation) == 0:
        return None, None
    model.eval()
    tally = setting.objective.tally()
    group = setting.group
    mine = group.share.of_batches(len(setting.validation), batch_size=setting.eval_batch_size)
    order = torch.arange(mine.start, mine.stop)
    with torch.inference_mode(), autocast(setting.device, setting.recipe.numerics.precision):
        batches = setting.validation.read(order, batch_size=setting.eval_batch_size, augmentation="none", seed=0)
        for pixels_BCHW, truth, _ in batches:
            tally.add(model(setting.normalise(pixels_BCHW)).float(), truth)
    found = group.collect({"sums": tally.sums()} if mine else {})
    total = [one["sums"] for one in found if one]  # Of nobody, elsewhere than at rank 0.
    loss, error = group.tell({"result": tally.result(np.sum(total, axis=0)) if group.is_first else None})["result"]
    if not math.isfinite(loss):
        raise _diverged("validation loss", loss, setting, epoch=epoch)
    return loss, error


def _generator(seed: int, *role: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, *role))


def _resume_state(
    model: nn.Module, optimiser: torch.optim.Optimizer, history: list[Epoch], best: _Best, growing: Growing | None
) -> ResumeState:
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    if best.state is not None:
        tensors |= {f"best/{name}": value for name, value in best.state.items()}
    if growing:
        tensors |= growing.state()
    values = {
        "history": [entry.model_dump(mode="json") for entry in history],
        # JSON has no infinity, which a best that does not exist would be.
        "best": [best.error, best.loss, best.epoch] if best.state is not None else None,
    }
    return ResumeState(values, {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()})


def _restore(
    resume: ResumeState, model: nn.Module, optimiser: torch.optim.Optimizer, growing: Growing | None
) -> tuple[list[Epoch], _Best]:
    """Put model, optimiser and growing masks back where they were; the history and the best epoch so far."""

    def under(prefix: str) -> dict[str, Tensor]:
        found = {name: value for name, value in resume.arrays.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): torch.from_numpy(np.array(value)) for name, value in found.items()}

    load_weights(model, under("model/"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in under("optimiser/").items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    if growing:
        growing.restore(resume.arrays, device=next(model.parameters()).device)
    history = [Epoch.model_validate(entry) for entry in resume.values["history"]]
    known = resume.values["best"]
    best = _Best(*known, state=under("best/")) if known else _Best()
    return history, best
