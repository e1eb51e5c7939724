"""The shapes of a smaller network: read off what is left, written into a network, and filled with what is left."""

# O out, I in channels of a layer, G groups, Q channels of the whole network

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from raypruning.compaction.channels import Channels, Layer, is_depthwise, layers_of, norms_of, num_groups
from raypruning.compaction.copies import copy_with
from raypruning.compaction.removable import columns_left, groups_left
from raypruning.core.records import Record


class LayerShape(Record):
    """One layer or norm of a smaller network, and what of the original's is in it.

    Attributes:
        inputs, outputs: channels or units that are left; of a norm both are its entries.
        inputs_before, outputs_before: of the original.
        kept_inputs, kept_outputs: their indices in the original, such as `0-4,7`; with groups, inputs of all of them.
        has_bias: whether there is a bias; a constant taken in may have made one.
    """

    kind: Literal["convolution", "linear", "norm"]
    inputs: int
    inputs_before: int
    outputs: int
    outputs_before: int
    groups: int = 1
    has_bias: bool
    is_bias_new: bool = False
    kept_inputs: str
    kept_outputs: str


def shapes_left(
    settled: nn.Module, biased: Collection[str], channels: Channels, goes_Q: Tensor
) -> dict[str, LayerShape]:
    """The shape of each layer that changes, by name.

    Args:
        settled: the network with constants folded.
        biased: layers that had a bias before.
    """
    found: dict[str, LayerShape] = {}
    texts: dict[bytes, str] = {}  # Many layers have the same channels.

    def text_of(kept: Tensor) -> str:
        key = kept.numpy().tobytes()
        return texts[key] if key in texts else texts.setdefault(key, ranges(kept))

    for name, layer in layers_of(settled).items():
        inputs, outputs = channels.inputs[name], channels.outputs[name]
        kept_inputs, kept_outputs = (~goes_Q[inputs]).nonzero().flatten(), (~goes_Q[outputs]).nonzero().flatten()
        groups = num_groups(layer)
        has_bias = layer.bias is not None
        is_bias_new = has_bias and name not in biased
        if len(kept_inputs) == len(inputs) and len(kept_outputs) == len(outputs) and not is_bias_new:
            continue
        found[name] = LayerShape(
            kind="linear" if isinstance(layer, nn.Linear) else "convolution",
            inputs=len(kept_inputs),
            inputs_before=len(inputs),
            outputs=len(kept_outputs),
            outputs_before=len(outputs),
            groups=1 if groups == 1 else groups_left(layer, outputs, goes_Q),
            has_bias=has_bias,
            is_bias_new=is_bias_new,
            kept_inputs=text_of(kept_inputs),
            kept_outputs=text_of(kept_outputs),
        )
    for name, norm in norms_of(settled).items():
        kept = (~goes_Q[channels.norms[name]]).nonzero().flatten()
        if len(kept) < norm.num_features:
            text, num, num_before = text_of(kept), len(kept), norm.num_features
            found[name] = LayerShape(
                kind="norm",
                inputs=num,
                inputs_before=num_before,
                outputs=num,
                outputs_before=num_before,
                has_bias=norm.bias is not None,
                kept_inputs=text,
                kept_outputs=text,
            )
    return found


@torch.no_grad()
def smaller(settled: nn.Module, shapes: Mapping[str, LayerShape], channels: Channels, goes_Q: Tensor) -> nn.Module:
    """A network of these shapes, with the weights that are left."""
    layers, norms = layers_of(settled), norms_of(settled)
    left: dict[int, Tensor] = {}
    for name in shapes:
        if name in layers:
            layer = layers[name]
            rows_O = (~goes_Q[channels.outputs[name]]).nonzero().flatten()
            left[id(layer.weight)] = _weight_left(layer, rows_O, channels.inputs[name], goes_Q)
            if layer.bias is not None:
                left[id(layer.bias)] = layer.bias[rows_O]
        else:
            norm = norms[name]
            entries_C = (~goes_Q[channels.norms[name]]).nonzero().flatten()
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                if values is not None:
                    left[id(values)] = values[entries_C]
    small = copy_with(settled, left)
    modules = dict(small.named_modules())
    for name, shape in shapes.items():
        _set_sizes(modules[name], shape)
    return small


def _weight_left(layer: Layer, rows_O: Tensor, inputs: Tensor, goes_Q: Tensor) -> Tensor:
    weight = layer.weight.detach()
    if is_depthwise(layer):
        return weight[rows_O]
    if num_groups(layer) == 1:
        # One after the other is faster than both at once.
        return weight.index_select(0, rows_O).index_select(1, (~goes_Q[inputs]).nonzero().flatten())
    rows_per_group = weight.shape[0] // num_groups(layer)
    columns_GI = columns_left(layer, inputs, goes_Q)
    columns_OI = columns_GI[rows_O // rows_per_group]
    return weight[rows_O[:, None], columns_OI]


@torch.no_grad()
def reshape(model: nn.Module, shapes: Mapping[str, LayerShape]) -> nn.Module:
    """Give layers other shapes, in place; their weights are then whatever memory held. Returns the model.

    Raises:
        ValueError: a layer that the model does not have, or of another kind.
    """
    modules = dict(model.named_modules())
    for name, shape in shapes.items():
        module = modules.get(name)
        if shape.kind == "norm" and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            _replace_norm(module, shape.outputs)
        elif shape.kind == "linear" and isinstance(module, nn.Linear):
            _replace(module, (shape.outputs, shape.inputs), has_bias=shape.has_bias)
        elif shape.kind == "convolution" and isinstance(module, nn.Conv2d):
            kernel = module.weight.shape[2:]
            _replace(module, (shape.outputs, shape.inputs // shape.groups, *kernel), has_bias=shape.has_bias)
        else:
            raise ValueError(f"the model has no {shape.kind} called {name}")
        _set_sizes(module, shape)
    return model


def _set_sizes(module: nn.Module, shape: LayerShape) -> None:
    """What a module says of itself."""
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = shape.inputs, shape.outputs
    elif isinstance(module, nn.Conv2d):
        module.in_channels, module.out_channels, module.groups = shape.inputs, shape.outputs, shape.groups
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.num_features = shape.outputs


def _replace(module: Layer, size: tuple[int, ...], *, has_bias: bool) -> None:
    module.weight = nn.Parameter(module.weight.new_empty(size), requires_grad=False)
    module.bias = nn.Parameter(module.weight.new_empty(size[0]), requires_grad=False) if has_bias else None


def _replace_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, num: int) -> None:
    for name in ("weight", "bias"):
        old = getattr(norm, name)
        if old is not None:
            setattr(norm, name, nn.Parameter(old.new_empty(num), requires_grad=False))
    for name in ("running_mean", "running_var"):
        old = getattr(norm, name)
        if old is not None:
            setattr(norm, name, old.new_empty(num))


def ranges(ascending: Tensor | Sequence[int]) -> str:
    """Ascending indices as people write them: `0-4,7`."""
    indices = torch.as_tensor(ascending)
    if not len(indices):
        return ""
    ends = (indices.diff() != 1).nonzero().flatten()
    firsts = indices[torch.cat([ends.new_zeros(1), ends + 1])].tolist()
    lasts = indices[torch.cat([ends, ends.new_tensor([len(indices) - 1])])].tolist()
    return ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in zip(firsts, lasts, strict=True))
