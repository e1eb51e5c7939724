"""Exported networks on disk: plan.json and weights.safetensors, and what other programs read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from raypruning.compaction.plan import ChannelPlan, rebuild
from raypruning.errors import DataError
from raypruning.models.weights import load_weights

PLAN, WEIGHTS, ONNX, TORCH = "plan.json", "weights.safetensors", "model.onnx", "model.pt2"


def load_exported(folder: str | Path) -> nn.Module:
    """The network that `prune-cli export` wrote to a folder: in evaluation mode, on the CPU, without gradients.

    It takes images as the plan beside it says: (N, in_channels, image_size, image_size), normalised by mean and std.
    Nothing is unpickled, and no store is needed.

    Raises:
        DataError: there is no exported network in the folder, or it is damaged.
        SpecError: it is of a model that is not known here.
    """
    plan = read_plan(folder)
    path = Path(folder) / WEIGHTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if sha256(data) != plan.weights_sha256:
        raise DataError(f"{path} is damaged: it is not the file that {PLAN} beside it names; export again")
    try:
        model = rebuild(plan)
        load_weights(model, load(data))
    except (ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{folder} was exported from another version of {plan.model.name}: {reason}") from error
    return model


def read_plan(folder: str | Path) -> ChannelPlan:
    """The plan of an exported network. Raises DataError when there is none, or it is damaged."""
    path = Path(folder) / PLAN
    try:
        return ChannelPlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"no exported network in {folder}: {PLAN} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole"
        raise DataError(f"{path} is damaged at {where}: {error.errors()[0]['msg']}") from error


def weights_bytes(model: nn.Module) -> bytes:
    """The content of the weights file; the same weights, the same bytes."""
    data: bytes = save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})
    return data


def sha256(data: bytes) -> str:
    """Checksum in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
