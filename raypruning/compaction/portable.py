"""A network in forms that run without this package: ONNX, and torch's exported program."""

# N images, C channels, H W height and width

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raypruning.errors import RaypruningError, ResourceError

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ExportError(RaypruningError):
    """A network that a format cannot hold, or that computes something else in it."""


def check_onnx() -> None:
    """Raise ResourceError if a package of the extra `export` is missing. Imports nothing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ResourceError(
            f'ONNX needs {", ".join(missing)}, which is not installed: pip install "raypruning[export]"'
        )


def write_onnx(model: nn.Module, images_NCHW: Tensor, path: Path) -> float:
    """Write a network as ONNX, for batches of any size where it allows. Weights lie in the same file.

    Returns: the largest absolute difference of logits between torch and onnxruntime on the images.

    Raises:
        ExportError: torch cannot translate the network.
    """
    import onnxruntime

    program = _any_batch(
        lambda shapes: torch.onnx.export(
            model,
            (images_NCHW,),
            dynamo=True,
            dynamic_shapes=shapes,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
        ),
        "ONNX",
    )
    program.save(str(path), external_data=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images_NCHW.contiguous().numpy()})
    return _difference(model, torch.from_numpy(logits), images_NCHW)


def write_torch(model: nn.Module, images_NCHW: Tensor, path: Path) -> float:
    """Write a network as torch's exported program, which `torch.export.load(path).module()` runs.

    Returns: the largest absolute difference of logits on the images.

    Raises:
        ExportError: torch cannot export the network.
    """
    program = _any_batch(lambda shapes: torch.export.export(model, (images_NCHW,), dynamic_shapes=shapes), "torch")
    with _quiet():
        torch.export.save(program, str(path))
        logits_NC = torch.export.load(str(path)).module()(images_NCHW)
    return _difference(model, logits_NC, images_NCHW)


def _any_batch(export: Any, name: str) -> Any:
    """What `export` gives for any number of images; where the network fixes it, for that of the example."""
    reason: Exception | None = None
    for shapes in (({0: torch.export.Dim.DYNAMIC},), None):
        try:
            with _quiet():
                return export(shapes)
        except Exception as error:  # Of the many that torch's exporters raise, all mean the same.
            reason = error
    raise ExportError(f"torch cannot write this network as {name}: {str(reason).strip().splitlines()[0]}") from reason


@torch.no_grad()
def _difference(model: nn.Module, logits_NC: Tensor, images_NCHW: Tensor) -> float:
    return float((model(images_NCHW) - logits_NC).abs().nan_to_num(nan=float("inf")).max())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters print, warn and log."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
