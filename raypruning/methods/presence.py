"""Compute with what is there (positive) or not (0) in place of numbers, in any network.

No value and no gradient is negative, so that nothing cancels: a difference is computed as a sum, an activation as what
is 0 where it is 0, or as 1. Whatever function is not known here is alive all over, and so is all it reads. See `paths`.
"""

# N images, C channels, H W height and width

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map


def unseen(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose own use of torch is no part of the network that is walked."""

    @functools.wraps(function)
    def undisturbed(*args: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return function(*args)

    return undisturbed


class OneOrZero(torch.autograd.Function):
    """0 where the input is 0, else 1; backwards the same of the gradient. Keeps a walk's numbers small."""

    @staticmethod
    @unseen
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """See the class."""
        return (x != 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """See the class."""
        return (gradients[0] != 0).to(gradients[0].dtype)


class _One(torch.autograd.Function):
    """1 whatever the input; backwards the gradient as it is."""

    @staticmethod
    @unseen
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.ones_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


class _AllAlive(torch.autograd.Function):
    """1 all over, in the shape of `sample`; every source is read all over if anything of it is read."""

    @staticmethod
    def forward(ctx: Any, sample: Tensor, *sources: Tensor) -> Tensor:
        # Not the sources, which may be changed in place before they are needed.
        ctx.likes = [(source.shape, source.dtype, source.device) for source in sources]
        return torch.ones_like(sample)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        is_read = bool((gradients[0] != 0).any())
        fills = (torch.full(shape, float(is_read), dtype=dtype, device=device) for shape, dtype, device in ctx.likes)
        return None, *fills


class Presence(TorchFunctionMode):
    """Lets a network compute with what is there (positive) or not (0) in place of numbers.

    Attributes:
        read_unseen: totals of what the network looks at in a way that has no gradient, as comparisons do.
    """

    def __init__(self, images_NCHW: Tensor) -> None:
        super().__init__()
        self.read_unseen: list[Tensor] = []
        self._images_NCHW = images_NCHW
        # Indices and comparisons of what depends on the masks. By id; kept, so that no id comes twice.
        self._derived: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        # Not what is the same under all masks, such as positions, which may have to be exact.
        if not any(map(self._is_walked, tensors)) or name in _OF_NO_VALUE:
            return func(*args, **kwargs)
        if name == "__get__":
            name = func.__self__.__name__
            if name not in ("data", "T", "mT"):  # shape, dtype and the like
                return func(*args, **kwargs)
        # Also where the network wants no gradients: what it looks at is read all the same.
        with torch.enable_grad():
            if not self._is_known(name, tensors):
                return self._alive(func, name, args, kwargs)
            given = tree_map(self._any_value, (args, kwargs))
            output = _stand_in(func, name, *given)
            if output is NotImplemented or any(_is_cut_off(leaf) for leaf in tree_leaves(output)):
                return self._alive(func, name, args, kwargs)
        return output

    def _is_known(self, name: str, tensors: list[Tensor]) -> bool:
        walked = [tensor for tensor in tensors if self._is_walked(tensor)]
        if any(tensor.is_complex() for tensor in walked):
            return False
        # What is picked by values (an index, a comparison) could be anything, but as a factor it is only a number.
        is_arithmetic = name.strip("_") in _ARITHMETIC and any(tensor.requires_grad for tensor in tensors)
        return is_arithmetic or all(tensor.requires_grad for tensor in walked)

    def _any_value(self, leaf: Any) -> Any:
        return torch.ones_like(leaf) if isinstance(leaf, Tensor) and id(leaf) in self._derived else leaf

    def _is_walked(self, tensor: Tensor) -> bool:
        return tensor.requires_grad or id(tensor) in self._derived

    def _alive(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """What an unknown function gives: its shapes and its choices are those without masks."""
        # What is made of indices and comparisons alone follows from the images, by way of what they were made of.
        sources = [leaf for leaf in tree_leaves((args, kwargs)) if _has_gradient(leaf)] or [self._images_NCHW]
        target = _changed_in_place(name, args, kwargs)
        if target is not None and target.is_floating_point():
            with torch.enable_grad():
                return target.copy_(_AllAlive.apply(torch.ones_like(target), *sources))
        if target is not None:  # A mask or an index that is filled in.
            self.read_unseen.extend(source.real.sum() for source in sources)
            self._derived[id(target)] = target.fill_(target.dtype == torch.bool)
            return target
        with torch.no_grad():
            ones = tree_map(lambda leaf: torch.ones_like(leaf) if _has_gradient(leaf) else leaf, (args, kwargs))
            sample = func(*ones[0], **ones[1])

        def alive(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
                return _AllAlive.apply(leaf, *sources)
            if not isinstance(leaf, Tensor) and name not in _TO_PYTHON:
                return leaf
            self.read_unseen.extend(source.real.sum() for source in sources)
            if isinstance(leaf, Tensor):
                # Both a comparison and its opposite may hold.
                leaf = torch.ones_like(leaf) if leaf.dtype == torch.bool else leaf
                self._derived[id(leaf)] = leaf
            return leaf

        with torch.enable_grad():
            return tree_map(alive, sample)


def _has_gradient(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


def _is_cut_off(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and not leaf.requires_grad


def _changed_in_place(name: str, args: Any, kwargs: Any) -> Tensor | None:
    if isinstance(kwargs.get("out"), Tensor):
        return kwargs["out"]
    is_operator = name in _OPERATORS_IN_PLACE
    is_method = name.endswith("_") and not name.endswith("__")
    # Activations have `inplace`, which may be given by position.
    flags = args[3 if "dropout" in name else 1 :] if name in _LIKE_IDENTITY else ()
    is_asked = kwargs.get("inplace") is True or any(flag is True for flag in flags)
    if is_operator or is_method or is_asked:
        return args[0] if args else kwargs["input"]
    return None


def _stand_in(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """What is there after `func`; NotImplemented where that is not known."""
    if name in _TO_PYTHON or kwargs.get("out") is not None:
        return NotImplemented
    target = _changed_in_place(name, args, kwargs)
    plain = name.strip("_")
    if name in _OPERATORS_IN_PLACE:
        plain = plain[1:]
    if plain in _LIKE_IDENTITY:
        # In place the same tensor, or what is done to it later would be missed.
        return target if target is not None else (args[0] if args else kwargs["input"]) * 1.0
    if plain in _SUMS or plain in _PRODUCTS or plain in _QUOTIENTS:
        one, other = _operands(args, kwargs)
        if plain in _QUOTIENTS:
            other = _One.apply(other)
        if target is None:
            return one + other if plain in _SUMS else one * other
        if not target.requires_grad:
            return NotImplemented
        # Of a copy: a product keeps what it needs for its gradient.
        return target.copy_(target + other if plain in _SUMS else target.clone() * other)
    if plain in _LINEAR:
        if {"alpha", "beta"} & kwargs.keys() or (target is not None and not target.requires_grad):
            return NotImplemented
        args, kwargs = tree_map(_there, (args, kwargs))
        return func(*args, **kwargs)
    if target is not None or plain not in _STAND_INS:
        return NotImplemented
    return _STAND_INS[plain](*args, **kwargs)


def _there(leaf: Any) -> Any:
    """Of numbers that are given, 1 where they are not 0. Parameters are that already."""
    is_given = isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter) and not leaf.requires_grad
    if is_given and leaf.is_floating_point():
        return (leaf != 0).to(leaf.dtype)
    return leaf


def _operands(args: Any, kwargs: Any) -> tuple[Any, Any]:
    one, other = [*args, *(kwargs[key] for key in ("input", "other") if key in kwargs)][:2]
    like = one if _has_gradient(one) else other if _has_gradient(other) else torch.ones(())

    def there(operand: Any) -> Tensor:
        if _has_gradient(operand):
            return operand
        return torch.as_tensor(operand != 0, device=like.device).to(like.dtype)

    return there(one), there(other)


def _positive(input: Tensor, *_args: Any, **_options: Any) -> Any:
    # Of zeros too: attention between removed queries and keys is even, not none.
    return _One.apply(input)


def _shares(input: Tensor, dim: Any = None, *_args: Any, **_options: Any) -> Any:
    """Of a softmax: positive of zeros too, and each share reads all."""
    total = input.sum() if dim is None else input.sum(dim, keepdim=True)
    return _One.apply(total.expand(input.shape))


def _by_its_length(input: Tensor, *_args: Any, **_options: Any) -> Any:
    return input * _One.apply(input.sum())


def _between(input: Tensor, min: Any = None, max: Any = None, *_args: Any, **_options: Any) -> Any:
    """Of a clamp: as it is, unless it moves zero."""
    low, high = -1.0 if min is None else min, 1.0 if max is None else max
    if isinstance(low, Tensor) or isinstance(high, Tensor) or not low <= 0.0 <= high:
        return NotImplemented
    return input * 1.0


def _hard_tanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    return NotImplemented if inplace else _between(input, min_val, max_val)


def _instance_norm(
    input: Tensor,
    running_mean: Any = None,
    _var: Any = None,
    weight: Any = None,
    bias: Any = None,
    *_args: Any,
    **_o: Any,
) -> Any:
    return input * 1.0 if running_mean is None and bias is None else NotImplemented


def _power(input: Any, exponent: Any) -> Any:
    return input * 1.0 if isinstance(exponent, int | float) and exponent > 0 else NotImplemented


def _largest(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    return input.sum() if dim is None else input.sum(dim, keepdim)


def _either(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    if input is None or other is None or _has_gradient(condition):
        return NotImplemented
    one, other = _operands((input, other), {})
    return (one + other).expand(torch.broadcast_shapes(condition.shape, one.shape, other.shape))


def _max_pool(average: Callable[..., Tensor]) -> Callable[..., Any]:
    # The mean reads all of a window, the largest only the first of equals.
    def pooled(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        if return_indices or any(step != 1 for step in tree_leaves(dilation)):
            return NotImplemented
        return average(input, kernel_size, stride or None, padding, ceil_mode)

    return pooled


def _padded(input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    return NotImplemented if value else _F.pad(input, pad, mode)


def _resized(input: Tensor, *args: Any, **options: Any) -> Any:
    # Of a cubic some weights are negative.
    return NotImplemented if "bicubic" in (*args, *options.values()) else _F.interpolate(input, *args, **options)


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *_args: Any, **options: Any) -> Any:
    if _has_gradient(attn_mask) or options.get("enable_gqa"):
        return NotImplemented
    return _One.apply(query @ key.transpose(-2, -1)) @ value


def _many_heads(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
    if any(map(_has_gradient, tree_leaves((args, options)))):
        return NotImplemented
    mixed, weights = _F.multi_head_attention_forward(query, key, value, *args, **options)
    # On equal tokens a softmax has no gradient.
    mixed = mixed * _One.apply(query.sum() + key.sum())
    return mixed, weights


_F = nn.functional


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# All names are those of functions, methods and operators alike, without underscores around them.
_OF_NO_VALUE = _names(
    """zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full new_tensor
    size dim ndimension numel stride is_floating_point is_contiguous requires_grad_ register_hook __len__ __set__"""
)
_OPERATORS_IN_PLACE = _names(
    """__iadd__ __isub__ __imul__ __itruediv__ __idiv__ __ifloordiv__ __imod__ __ipow__ __imatmul__ __iand__ __ior__
    __ixor__ __ilshift__ __irshift__ __setitem__"""
)
_TO_PYTHON = _names("item tolist numpy __bool__ __int__ __float__ __index__ __array__ equal allclose is_nonzero")
_SUMS = _names("add radd sub rsub subtract maximum minimum fmax fmin")
_PRODUCTS = _names("mul rmul multiply")
_QUOTIENTS = _names("div truediv divide true_divide")
_ARITHMETIC = _SUMS | _PRODUCTS | _QUOTIENTS
# 0 where the input is 0, and the input where it is not: whatever becomes of its sign and size.
_LIKE_IDENTITY = _names(
    """relu relu6 leaky_relu elu selu celu gelu silu mish hardswish tanh softsign prelu rrelu hardshrink softshrink
    tanhshrink abs absolute neg negative square sqrt sin tan sinh asin atan asinh erf expm1 log1p round floor trunc fix
    sign pos detach data dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"""
)
# Sums of what goes in, by weights that are given, and moves.
_LINEAR = _names(
    """reshape view view_as reshape_as flatten unflatten ravel permute transpose swapaxes swapdims movedim moveaxis t T
    mT squeeze unsqueeze expand expand_as broadcast_to repeat tile repeat_interleave cat concat concatenate stack hstack
    vstack dstack split split_with_sizes chunk unsafe_chunk unsafe_split unbind tensor_split narrow select index_select
    getitem iter gather take_along_dim diagonal roll flip fliplr flipud rot90 contiguous clone to float double half
    bfloat16 type type_as cpu cuda unfold fold pixel_shuffle pixel_unshuffle channel_shuffle sum mean cumsum
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear matmul rmatmul mm bmm mv dot einsum
    addmm baddbmm tensordot bilinear"""
)
_STAND_INS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_names("softmax log_softmax softmin"), _shares),
    **dict.fromkeys(_names("sigmoid hardsigmoid logsigmoid softplus exp cos cosh reciprocal rsqrt log"), _positive),
    **dict.fromkeys(_names("normalize rms_norm local_response_norm"), _by_its_length),
    **dict.fromkeys(_names("clamp clip"), _between),
    **dict.fromkeys(_names("amax amin"), _largest),
    **{f"max_pool{n}d": _max_pool(pool) for n, pool in enumerate((_F.avg_pool1d, _F.avg_pool2d, _F.avg_pool3d), 1)},
    "hardtanh": _hard_tanh,
    "instance_norm": _instance_norm,
    "pow": _power,
    "where": _either,
    "pad": _padded,
    "interpolate": _resized,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _many_heads,
}
