"""Give every channel of a network a label, and read the labels where the channels arrive. No data is needed.

Every layer that mixes channels puts out about 1, plus something in the samples whose bit its channel's label has set:
a little more in some places than in others, or an attention over places would hide its queries and keys. Batch norms
pass their input on. So whoever reads a channel, unmixed, sees a change in exactly the samples of its label, through
additions, concatenation, shuffling and flattening, which need no rules of their own.
"""

# C channels, H W height and width, K bits of a label, Q labels, J inputs of a reader, O outputs of a layer, S samples

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from raypruning.compaction.channels import Layer, layers_of, num_outputs
from raypruning.compaction.cut import compute_depthwise, run_cut
from raypruning.compaction.reach import colours, find_reach

# Labels to choose from for each channel: with twice as many, drawing until enough are different ends soon.
_SPARE = 2
# Pixels of all samples at once, which bounds memory: at 224 px, four bits of the labels, up and down.
_MAX_PIXELS = 9 * 224 * 224
# Bits at once, however small the image.
_MAX_BITS = 128
# Of the images that are labelled, tried in this order. All of ResNet-101 takes 0.2 s so, and minutes with 224 px.
_SIDES_PIXELS = (8, 16, 32, 64)
# Double precision, element-wise work: rounding stays orders of magnitude below, the smallest change far above.
_TOLERANCE = 1e-10
# Down is not as far as up, so that a mean over samples is changed as well.
_DOWN = 0.8
# By how much one place differs from the next, and at most; no place of a window or a map equals its neighbours.
_UNEVENNESS = 0.0618
_UNEVENNESS_MAX = 0.25


def draw_labels(num: int) -> Tensor:
    """So many different labels, half of the bits of each set, shape (Q, K); the same for the same number.

    None is part of another, so that two that meet are no label.
    """
    num_bits = 6
    while math.comb(num_bits, num_bits // 2) < _SPARE * num:
        num_bits += 2
    generator = torch.Generator().manual_seed(0)
    powers_K = 2 ** torch.arange(num_bits)
    found_Q = torch.zeros(0, dtype=torch.long)
    while len(found_Q) < num:
        drawn = torch.randint(2**num_bits, (8 * num + 64,), generator=generator)
        is_balanced = torch.from_numpy(np.bitwise_count(drawn.numpy()) == num_bits // 2)
        found_Q = torch.cat([found_Q, drawn[is_balanced]]).unique()  # type: ignore[no-untyped-call]
    chosen_Q = found_Q[torch.randperm(len(found_Q), generator=generator)[:num]]
    return chosen_Q[:, None] & powers_K != 0


class LabelReader:
    """Reads labels where they arrive in a network, which is left as it is.

    Args:
        image_CHW: one image that the network takes.
    """

    def __init__(self, model: nn.Module, image_CHW: Tensor) -> None:
        self._model, self._tensors = model, _unhiding(model)
        self._image_CHW = image_CHW
        self._apart: dict[str, Tensor] = {}
        pixels = image_CHW[0].numel() if image_CHW.ndim == 3 else 1
        self._bits_at_once = max(4, min(_MAX_BITS, _MAX_PIXELS // pixels // 2))
        self._layers_seen: dict[str, Tensor] | None = None

    def read_layers(self) -> dict[str, Tensor]:
        """By reader, at which of its inputs each layer arrives, shape (J, L), with the layers in their order.

        Found once, then kept.

        Raises:
            Exception: whatever the network raises when it is run with labels.
        """
        if self._layers_seen is None:
            self._layers_seen = self._read_layers()
        return self._layers_seen

    def _read_layers(self) -> dict[str, Tensor]:
        sizes = {name: num_outputs(layer) for name, layer in layers_of(self._model).items()}
        if len(sizes) <= self._bits_at_once:
            return self.read(_labels_of_layers(sizes, torch.arange(len(sizes))))
        # Layers that cannot both reach one reader share a bit: 26 bits for MaxViT's 151 layers.
        reach = find_reach(self._model, self._image_CHW.double(), self._tensors, list(sizes))
        colour_L = colours(reach)
        seen = self.read(_labels_of_layers(sizes, colour_L))
        return {name: seen_JK[:, colour_L] & reach[name] for name, seen_JK in seen.items()}

    def read(self, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By reader, in which samples each of its inputs changes, shape (J, K).

        Readers are those of `run_cut`; of modules that are not shrunk, one row tells whether any input changes. One
        that is never called, or not with images, is left out.

        Args:
            labels: by layer, of its outputs, shape (O, K); depthwise convolutions pass on what they are given.

        Raises:
            Exception: whatever the network raises when it is run with these labels.
        """
        num_bits = next(iter(labels.values())).shape[1]
        chunk = self._bits_at_once
        found: dict[str, list[Tensor]] = {}
        for start in range(0, num_bits, chunk):
            probe = _Labelling({name: label[:, start : start + chunk] for name, label in labels.items()}, self._apart)
            image = self._image_CHW.double()
            run_cut(self._model, probe, image.expand(probe.num_samples, *image.shape), self._tensors)
            for name, seen_KJ in probe.seen.items():
                found.setdefault(name, []).append(seen_KJ)
        return {name: torch.cat(chunks).T for name, chunks in found.items()}


@torch.no_grad()
def labelling_image(model: nn.Module, image_CHW: Tensor) -> Tensor:
    """The middle of an image where the network takes so small a one, else the whole: labels need no pixels.

    A network that flattens maps of a fixed size takes no other, so what flows where is the same for both.
    """
    for side in _SIDES_PIXELS if image_CHW.ndim == 3 else ():
        top, left = (max(0, (size - side) // 2) for size in image_CHW.shape[1:])
        middle_CHW = image_CHW[:, top : top + side, left : left + side].contiguous()
        try:
            model(middle_CHW[None])
        except Exception:  # Too small; each network says it in its own way.
            continue
        return middle_CHW
    return image_CHW


def _labels_of_layers(sizes: Mapping[str, int], bit_L: Tensor) -> dict[str, Tensor]:
    """Labels in which all outputs of a layer have the same one bit."""
    each = torch.eye(int(bit_L.max()) + 1, dtype=torch.bool)
    return {name: each[bit].expand(size, -1) for (name, size), bit in zip(sizes.items(), bit_L.tolist(), strict=True)}


def _unhiding(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by each of their names, with nothing that could hide a change or saturate."""
    layers = layers_of(model).values()
    # For layers that compute: depthwise ones, and any whose weights are used without calling them. Means, so that
    # positive values stay positive and of the same size.
    fills = {id(layer.weight): 1.0 / layer.weight[0].numel() for layer in layers}
    fills |= {id(layer.bias): 0.0 for layer in layers if layer.bias is not None}
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        # One number each, however large: most are never read.
        fill = torch.tensor(fills.get(id(parameter), 1.0), dtype=torch.float64)
        tensors[name] = fill.expand(parameter.shape)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        tensors[name] = buffer.double() if buffer.is_floating_point() else buffer
    return tensors


def _mean(layer: Layer, inputs: Tensor) -> Tensor | None:
    """What a depthwise convolution of equal weights without a bias gives, each one over their number.

    None where that is no mean of places. In double precision a convolution takes ten times as long, and one with
    dilation goes channel by channel.
    """
    if type(layer) is not nn.Conv2d or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return None
    is_covered = all(2 * padding <= size for padding, size in zip(layer.padding, layer.kernel_size, strict=True))
    if layer.dilation == (1, 1) and is_covered:
        return avg_pool2d(inputs, layer.kernel_size, layer.stride, layer.padding)
    (top, left), (rows, columns) = layer.padding, layer.kernel_size
    padded = pad(inputs, (left, left, top, top))
    down, right = layer.dilation
    height, width = padded.shape[2] - down * (rows - 1), padded.shape[3] - right * (columns - 1)
    total = inputs.new_zeros(())
    for y in range(0, down * rows, down):
        for x in range(0, right * columns, right):
            total = total + padded[:, :, y : y + height : layer.stride[0], x : x + width : layer.stride[1]]
    return total / (rows * columns)


class _Labelling:
    """The probe: a sample without labels, one for each bit that goes up, and one for each bit that goes down.

    Up and down, since after a subtraction one of them may end at a ReLU.

    Attributes:
        seen: by reader, in which samples each channel of its input differs from the first, shape (K, J).
    """

    def __init__(self, labels: Mapping[str, Tensor], apart: dict[str, Tensor]) -> None:
        self._labels, self._apart = labels, apart
        self._num_bits = next(iter(labels.values())).shape[1]
        self.num_samples = 1 + 2 * self._num_bits
        self.seen: dict[str, Tensor] = {}
        # Several readers are often given the same: by the id of a tensor, which it is and at what version.
        self._known: dict[int, tuple[weakref.ref[Tensor], int, int, Tensor]] = {}

    def put_out(self, name: str, shape: tuple[int, ...], axis: int) -> Tensor:
        label_KO = self._labels[name].T
        # Of different sizes, or a norm over channels would take a change of all of them for none.
        steps_KO = label_KO * torch.linspace(0.25, 0.75, shape[axis], dtype=torch.float64)
        changes_SO = torch.cat([torch.zeros(1, shape[axis], dtype=torch.float64), steps_KO, -_DOWN * steps_KO])
        output = self._uneven(changes_SO, shape, axis)
        self._know(output, axis, label_KO)
        return output

    def norm(self, name: str, compute: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        return inputs

    def see(self, name: str, inputs: Tensor, axis: int) -> None:
        of, version, known_axis, found_KJ = self._known.get(id(inputs), (None, 0, 0, None))
        if of is None or of() is not inputs or (version, known_axis) != (inputs._version, axis % inputs.ndim):
            found_KJ = self._changes(inputs, axis)
            self._know(inputs, axis, found_KJ)
        assert found_KJ is not None
        self.seen[name] = self.seen[name] | found_KJ if name in self.seen else found_KJ

    def pass_on(self, layer: Layer, inputs: Tensor) -> Tensor:
        mean = _mean(layer, inputs)
        return compute_depthwise(layer, inputs) if mean is None else mean

    def without_samples(self, name: str, inputs: Tensor) -> None:
        """Raise RuntimeError unless a layer is given the same whatever the labels, which differ from run to run."""
        if not torch.equal(self._apart.setdefault(name, inputs), inputs):
            raise RuntimeError(f"{name} is given something that depends on the images but is not one row for each")

    def _uneven(self, changes_SO: Tensor, shape: tuple[int, ...], axis: int) -> Tensor:
        """One plus the changes, each a little more in some places than in others."""
        rows = shape[0] // self.num_samples
        places = shape[1:-1] if axis == -1 else shape[2:]
        num = rows * math.prod(places)
        uneven_P = torch.linspace(0, _UNEVENNESS * (num - 1), num, dtype=torch.float64).remainder_(_UNEVENNESS_MAX)
        split = (rows, *places, 1) if axis == -1 else (rows, 1, *places)
        ones, shares = (1 + uneven.view(1, *split) for uneven in (uneven_P, uneven_P.flip(0)))
        changes = (
            changes_SO.view(len(changes_SO), 1, *[1] * len(places), -1)
            if axis == -1
            else changes_SO[(..., *[None] * len(places))].unsqueeze(1)
        )
        output = torch.empty(shape, dtype=torch.float64)
        torch.addcmul(ones, changes, shares, out=output.view(self.num_samples, rows, *shape[1:]))
        return output

    def _know(self, values: Tensor, axis: int, found_KJ: Tensor) -> None:
        self._known[id(values)] = (weakref.ref(values), values._version, axis % values.ndim, found_KJ)

    def _changes(self, inputs: Tensor, axis: int) -> Tensor:
        if inputs.shape[0] % self.num_samples:
            return torch.ones(self._num_bits, inputs.shape[axis], dtype=torch.bool)
        values = inputs.reshape(self.num_samples, -1, *inputs.shape[1:]).movedim(axis % inputs.ndim + 1, 1)
        change = (values[1:] - values[:1]).abs_()
        change.sub_(_TOLERANCE * (1 + values[:1].abs()))
        if values[0, 0].numel() > 1:
            change = change.amax(tuple(range(2, values.ndim)))
        is_changed = (change > 0).reshape(2, self._num_bits, -1)
        up_or_down_KJ: Tensor = is_changed[0] | is_changed[1]
        return up_or_down_KJ
