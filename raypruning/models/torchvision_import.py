"""The one door to torchvision, which opens where a plain `import torchvision` fails.

PyPI's torchvision has a C extension built for a CUDA torch. Beside a CPU torch of the same version it cannot be loaded;
torchvision goes on without it, but then describes two operators that only the extension would have declared, `nms` and
`qnms`, and stops with "operator torchvision::nms does not exist". Nothing here uses these operators (they belong to
detection), so declaring that they exist is enough.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import torch

# The operators that torchvision 0.28 describes without asking for its extension (_meta_registrations.py), with the
# signature its extension declares (csrc/ops/nms.cpp and csrc/ops/quantized/cpu/qnms_kernel.cpp).
_UNGUARDED_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# Two threads that declare the same operator at once would break the second one's import.
_LOCK = threading.Lock()


def import_torchvision() -> ModuleType:
    """The torchvision module, whether or not its C extension fits the torch that is installed.

    The first call may load the extension and declare operators; later ones only import.
    """
    with _LOCK:
        _declare_missing_operators()
        import torchvision

    return torchvision


@functools.cache  # once per process, and the cache keeps the library: its declarations vanish with it
def _declare_missing_operators() -> torch.library.Library | None:
    _load_extension()
    missing = [name for name in _UNGUARDED_OPERATORS if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(name + _SIGNATURE)
    return library


def _load_extension() -> None:
    """Load torchvision's extension, if it fits, before torchvision does: declaring its operators again would fail."""
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in (Path(folder) / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES):
            if path.is_file():
                try:
                    torch.ops.load_library(str(path))
                except OSError:
                    # Built for another torch: the case this module is for. Torchvision leaves it out as well.
                    continue
