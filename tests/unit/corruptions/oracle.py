"""The generator everybody uses, made importable: imagecorruptions 1.1.2, with other constants on request.

Nothing of its numerics is changed. Its four breakages on a current stack are mended from outside: `pkg_resources`,
`np.float_`, the `multichannel` of scikit-image's gaussian, and salt and pepper that no seed controls. The constants of
the CIFAR generator are put in place of its own for the functions that both define alike.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypruning.corruptions.parameters import NUM_SEVERITIES, parameters_of

# Functions whose definition in imagecorruptions is that of the published data, up to one grey level.
VALID = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "glass_blur", "defocus_blur"),
    *("motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "saturate", "jpeg_compression"),
    *("pixelate", "spatter", "elastic_simple"),
)
# What the package calls otherwise.
_THEIR_NAMES = {"elastic_simple": "elastic_transform"}


def reference(name: str, severity: int, image_HWC: np.ndarray, *, seed: int, parameter_set: str) -> np.ndarray:
    """What the package makes of an image, uint8 (H, W, C), after `np.random.seed(seed)`."""
    from PIL import Image

    function = _functions(parameter_set)[_THEIR_NAMES.get(name, name)]
    np.random.seed(seed)  # The legacy stream is what it draws from.
    return np.uint8(function(Image.fromarray(image_HWC), severity))


def require() -> None:
    """Skip where the package is not installed."""
    if importlib.util.find_spec("imagecorruptions") is None:
        pytest.skip(
            "imagecorruptions is not installed: make .venv/.installed-dev; the golden samples are tested without"
        )


@cache
def _functions(parameter_set: str) -> dict[str, Callable[..., Any]]:
    spec = importlib.util.find_spec("imagecorruptions")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).with_name("corruptions.py")
    tree = _with_constants(ast.parse(path.read_text()), parameter_set)
    module = types.ModuleType("imagecorruptions_with_constants")
    module.__file__ = str(path)
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _package, name: str(path.parent / name)  # type: ignore[attr-defined]
    interpolation = types.ModuleType("scipy.ndimage.interpolation")
    interpolation.map_coordinates = __import__("scipy.ndimage").ndimage.map_coordinates  # type: ignore[attr-defined]
    shims = {"pkg_resources": resources, "scipy.ndimage.interpolation": interpolation}
    before = {key: sys.modules.get(key) for key in shims}
    sys.modules.update(shims)
    try:
        exec(compile(tree, str(path), "exec"), module.__dict__)
    finally:
        for key, found in before.items():
            if found is None:
                del sys.modules[key]
            else:
                sys.modules[key] = found
    _mend(module)
    return dict(vars(module))


def _mend(module: Any) -> None:
    import skimage

    gaussian = module.gaussian

    def gaussian_of_before(image: np.ndarray, sigma: Any, multichannel: bool = False, **options: Any) -> np.ndarray:
        return gaussian(image, sigma=sigma, channel_axis=-1 if multichannel else None, **options)

    def random_noise(image: np.ndarray, mode: str, amount: float) -> np.ndarray:
        # Scikit-image takes a generator; one seeded from the legacy stream is replayable.
        seeded = np.random.default_rng(np.random.randint(1 << 31))
        return skimage.util.random_noise(image, mode=mode, amount=amount, rng=seeded)

    module.gaussian = gaussian_of_before
    module.np = _NumpyOfBefore(np)
    module.sk = types.SimpleNamespace(color=skimage.color, util=types.SimpleNamespace(random_noise=random_noise))


class _NumpyOfBefore:
    """NumPy with the name it had for float64."""

    float_ = np.float64

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _with_constants(tree: ast.Module, parameter_set: str) -> ast.Module:
    """The same functions, their list of constants by severity replaced."""
    if parameter_set == "imagenet":
        return tree
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name in VALID and function.name != "elastic_transform":
            rows = [
                parameters_of(function.name, severity, parameter_set=parameter_set)
                for severity in range(1, NUM_SEVERITIES + 1)
            ]
            if function.name == "zoom_blur":
                text = ", ".join(f"np.arange(1, {stop}, {step})" for stop, step in rows)
            else:
                text = ", ".join(repr(row[0] if len(row) == 1 else _with_whole_numbers(row)) for row in rows)
            assignment = next(
                statement
                for statement in function.body
                if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Subscript)
            )
            assignment.value.value = ast.parse(f"[{text}]", mode="eval").body
    return ast.fix_missing_locations(tree)


def _with_whole_numbers(row: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(int(value) if float(value).is_integer() else value for value in row)
