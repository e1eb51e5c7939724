"""Pruning while training: when masks are chosen anew, at which ratio, and what becomes of what was removed before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from raypruning.core.records import Gradual

Masks = Mapping[str, Tensor]
# Chooses masks for the weights the network has at that moment, at a ratio, and gives those to be enforced from then on;
# None where there are none for that ratio: then those there are stay. It may change what its masks do not name.
Remask = Callable[[nn.Module, float], Masks | None]


class Growth(NamedTuple):
    """What a training is to reach: masks at `ratio`, chosen by `remask`, at the pace of `gradual`."""

    gradual: Gradual
    ratio: float
    remask: Remask


class Span(NamedTuple):
    """Between which steps of a training the ratio grows, counted after the optimiser's; `end` is above `begin`."""

    begin: int
    end: int
    frequency: int

    @classmethod
    def of(cls, gradual: Gradual, *, num_steps: int) -> Span:
        """Of a training of so many steps, at least one."""
        end = max(1, round(gradual.end * num_steps))
        return cls(min(round(gradual.begin * num_steps), end - 1), end, gradual.frequency)

    def is_due(self, step: int) -> bool:
        """Whether masks are chosen after so many steps: every `frequency` steps, and at the end whatever that says."""
        return step == self.end or (self.begin < step < self.end and (step - self.begin) % self.frequency == 0)

    def ratio_at(self, step: int, ratio: float) -> float:
        """The ratio after so many steps, which grows to `ratio` as a cubic: fast at first, while it costs little.

        Source: Zhu and Gupta 2018, equation 1, from a ratio of 0.
        """
        if step >= self.end:
            return ratio
        rest = 1.0 - max(0, step - self.begin) / (self.end - self.begin)
        return ratio * (1.0 - rest**3)


@dataclass
class Growing:
    """Masks that grow. What they remove keeps the value it had, so that it may come back.

    Attributes:
        masks: enforced now.
        shadow: by the names of `masks`, values of which those that are removed count.
    """

    growth: Growth
    span: Span
    masks: dict[str, Tensor] = field(default_factory=dict)
    shadow: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def after_step(self, model: nn.Module, step: int) -> bool:
        """Choose masks anew if that is due, on the weights with what was removed put back, and apply them.

        Returns: whether it was due.
        """
        if not self.span.is_due(step):
            return False
        parameters = dict(model.named_parameters())
        for name, mask in self.masks.items():
            parameters[name].copy_(torch.where(mask, parameters[name], self.shadow[name]))
        candidates = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        chosen = self.growth.remask(model, self.span.ratio_at(step, self.growth.ratio))
        self.masks = dict(self.masks if chosen is None else chosen)
        self.shadow = {name: candidates[name] for name in self.masks}
        for name, mask in self.masks.items():
            parameters[name].mul_(mask)
        return True

    def state(self) -> dict[str, Tensor]:
        """What must be kept to go on after an interruption, by name."""
        masks = {f"mask/{name}": mask for name, mask in self.masks.items()}
        return masks | {f"shadow/{name}": value for name, value in self.shadow.items()}

    def restore(self, state: Mapping[str, np.ndarray], *, device: torch.device) -> None:
        """Go on from a state; names of other things in it are passed over."""

        def under(prefix: str) -> dict[str, Tensor]:
            found = {name: value for name, value in state.items() if name.startswith(prefix)}
            return {
                name.removeprefix(prefix): torch.from_numpy(np.array(value)).to(device) for name, value in found.items()
            }

        self.masks, self.shadow = under("mask/"), under("shadow/")
