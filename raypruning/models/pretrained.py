"""Weights from a file into a model: found without a download, read without running code, and checked key by key."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Set
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import nn

from raypruning.errors import SpecError
from raypruning.models.torchvision_import import import_torchvision

# Torchvision's largest, regnet_y_128gf and vit_h_14, have 2.6 GB. More is none of its networks, or an archive that
# unpacks to more than the machine holds.
MAX_BYTES = 4 * 2**30
# Parts of torchvision's googlenet and inception_v3 that only serve their training.
AUXILIARY_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")
# How torchvision's oldest densenet files name what is `denselayer1.norm1` now: `denselayer1.norm.1`.
_OLD_DENSE_KEY = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def cached_weights(name: str, *, version: str = "DEFAULT") -> Path:
    """The file with weights that torchvision publishes for its network `name`, in torch's local cache.

    Args:
        name: as torchvision lists it.
        version: which of its weights, such as IMAGENET1K_V1; DEFAULT are those that torchvision thinks best.

    Raises:
        SpecError: the file is not there. Nothing is downloaded.
    """
    url = import_torchvision().models.get_model_weights(name)[version].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        raise SpecError(
            f"the weights of {name} are not in the cache: there is no {path}; "
            f"put {url} there, or give the option weights the path of a file"
        )
    return path


def load_weights(model: nn.Module, path: Path | str, *, head: Set[str]) -> None:
    """Copy the weights in a file into `model`, in place.

    Args:
        model: on any device; unchanged if an error is raised.
        path: a .safetensors, .pt or .pth file with a state dict.
        head: keys that may have another shape in the file. If one has, all of them stay as they are in the model.

    Raises:
        SpecError: the file cannot be read, or its keys or shapes are not those of the model.
    """
    path = Path(path).expanduser()
    load_state(model, read_state(path), path, head=head)


def load_state(model: nn.Module, read: dict[str, torch.Tensor], path: Path, *, head: Set[str] = frozenset()) -> None:
    """`load_weights` for a state dict that was read already; `path` is for the messages."""
    own = model.state_dict()
    given = OrderedDict((_OLD_DENSE_KEY.sub(r"\1\2.", key), value) for key, value in read.items())
    for key in [key for key in given if key.startswith(AUXILIARY_PREFIXES) and key not in own]:
        del given[key]
    if any(key in given and key in own and given[key].shape != own[key].shape for key in head):
        for key in head:
            given[key] = own[key]
    _check_fit(own, given, path)
    # Layers look up the version of their format in `_metadata`, which safetensors does not have: it is the present one.
    given._metadata = getattr(read, "_metadata", own._metadata)  # type: ignore[attr-defined]
    model.load_state_dict(given, strict=False)


def _check_fit(own: dict[str, torch.Tensor], given: dict[str, torch.Tensor], path: Path) -> None:
    """Raise SpecError if `given` lacks a key of `own`, has one more, or has another shape somewhere."""
    # Batch normalisation counts its batches only since torch 0.4.1, and the count changes no output.
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in own]
    reshaped = [
        f"{key} {tuple(given[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    complaints = [
        f"{len(keys)} {what} (such as {keys[0]})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if keys
    ]
    if complaints:
        raise SpecError(f"the weights in {path} do not fit the model: {', '.join(complaints)}")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file. Raises SpecError if it cannot be read, or holds no state dict."""
    if not path.is_file():
        raise SpecError(f"there are no weights at {path}: the option weights is a path, 'cache', or '' for random ones")
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise SpecError(f"the weights in {path} have an unknown ending: it must be .safetensors, .pt or .pth")
    try:
        num_bytes = _unpacked_bytes(path)
        if num_bytes <= MAX_BYTES:
            # weights_only: a pickle from elsewhere must not run code.
            content = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
    except pickle.UnpicklingError as error:
        # Torch's own message says how to run the code.
        raise SpecError(
            f"the weights in {path} cannot be read: it is damaged, or holds more than tensors, which could run code; "
            "torch.save(model.state_dict(), ...) writes tensors alone"
        ) from error
    except Exception as error:  # Of a damaged file both readers raise nearly anything.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SpecError(f"the weights in {path} cannot be read: {reason}") from error
    if num_bytes > MAX_BYTES:
        raise SpecError(f"the weights in {path} are larger than {MAX_BYTES // 2**30} GiB, more than any model has")
    return _checked_state(content, path)


def _checked_state(content: object, path: Path) -> dict[str, torch.Tensor]:
    is_state = isinstance(content, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    )
    if not is_state:
        raise SpecError(f"{path} holds no state dict: it must map names to tensors, as model.state_dict() does")
    return content


def _unpacked_bytes(path: Path) -> int:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    return path.stat().st_size
