"""Sweeps and recipes as they lie on disk: TOML shipped with the package, or a user's own file."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from raypruning.core.spec import Raw, parse_toml
from raypruning.errors import SpecError, unknown_name_message
from raypruning.models.resolve import model_names


class SweepFile(NamedTuple):
    """A target as tables, and where they came from."""

    raw: Raw
    source: str


def sweep_names() -> list[str]:
    """Names of the sweeps that are shipped."""
    return sorted(path.name.removesuffix(".toml") for path in _folder().iterdir() if path.name.endswith(".toml"))


def recipes() -> dict[str, dict[str, Any]]:
    """Named recipes: the papers' own, and quick ones."""
    path = files("raypruning.training") / "recipes.toml"
    return parse_toml(path.read_text(), source="recipes.toml")


def read_target(target: str) -> SweepFile:
    """A sweep's name, a path to a TOML file, or a model's name.

    Raises: UnknownNameError with near names; SpecError for a file that cannot be read.
    """
    if is_file(target):
        try:
            return SweepFile(parse_toml(Path(target).read_text(encoding="utf-8"), source=target), target)
        except OSError as error:
            raise SpecError(f"{target}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise SpecError(f"{target}: cannot be read: it is not UTF-8 text") from error
    if target in sweep_names():
        return SweepFile(parse_toml((_folder() / f"{target}.toml").read_text(), source=f"{target}.toml"), target)
    if target in model_names() or target.startswith("torchvision/"):
        return SweepFile(_default_sweep(target), target)
    known = sorted({*sweep_names(), *model_names()})
    raise SpecError(unknown_name_message("sweep, model or TOML file", target, known))


def is_file(target: str) -> bool:
    """Whether a target is the path of a file, and no name."""
    return target.endswith(".toml") or ("/" in target and Path(target).exists())


def _default_sweep(model: str) -> Raw:
    """A sweep for a model that has none of its own."""
    raw = parse_toml((_folder() / "lenet5.toml").read_text(), source="lenet5.toml")
    return {
        **raw,
        "name": model.replace("/", "-"),
        "model": model,
        "data": {**raw.get("data", {}), "image_size": 32},
        "recipe": {"base": "quick_cifar"},
        "note": f"No sweep is shipped for {model}: this is a quick one. Write a TOML file of your own for a real one.",
    }


def _folder() -> Traversable:
    """`sweeps/`: beside the package's modules when installed, beside the package itself in a checkout."""
    installed = files("raypruning") / "sweeps"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "sweeps"
