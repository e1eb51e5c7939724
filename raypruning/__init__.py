"""How far can a network be pruned before it loses more than delta, on each task that matters?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raypruning.app.read import Sweep, open_sweep
    from raypruning.compaction.files import load_exported

__all__ = ["Sweep", "load_exported", "open_sweep"]


def __getattr__(name: str) -> Any:
    # Lazily: importing the package for its registry or records must not import pandas or torch.
    if name == "load_exported":
        from raypruning.compaction.files import load_exported

        return load_exported
    if name in __all__:
        from raypruning.app import read

        return {"Sweep": read.Sweep, "open_sweep": read.open_sweep}[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
