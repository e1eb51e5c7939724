"""What a network sees before its last layer: the features that its classes are a linear function of."""

# B images of a batch, C channels, H W height and width, D features

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from raypruning.errors import MethodError
from raypruning.models.heads import logit_layers


class PenultimateTap:
    """Holds on to what a network's last layer was given in the latest forward pass.

    Attributes:
        layer: name of the layer: the head, or the main one of several.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layer = logit_layers(model)[0]
        self._head = model.get_submodule(self.layer)
        self._inputs: Tensor | None = None
        self._hook = self._head.register_forward_pre_hook(self._keep)

    def _keep(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = inputs[0]

    def features_BD(self) -> Tensor:
        """Of the latest batch; where the layer reads several positions or tokens, their mean.

        Raises: MethodError: the layer's weights are used without calling it, so that nothing can be seen.
        """
        if self._inputs is None:
            raise MethodError(f"the layer {self.layer} is never called, so the features before it cannot be seen")
        if isinstance(self._head, nn.Conv2d):
            return self._inputs.flatten(2).mean(2)
        features = self._inputs
        return features if features.ndim == 2 else features.flatten(1, -2).mean(1)

    def close(self) -> None:
        """Take the hook off."""
        self._hook.remove()
        self._inputs = None


@contextmanager
def tapped(models: Sequence[nn.Module]) -> Iterator[list[PenultimateTap]]:
    """Taps on networks, for as long as the context lasts."""
    taps = [PenultimateTap(model) for model in models]
    try:
        yield taps
    finally:
        for tap in taps:
            tap.close()
