"""Named lists of corruptions to train on. Pure data, like `parameters`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from raypruning.corruptions.parameters import NAMES
from raypruning.errors import UnknownNameError, unknown_name_message

_MIX1 = (
    *("contrast", "elastic_transform", "gaussian_blur", "impulse_noise", "motion_blur"),
    *("pixelate", "shot_noise", "snow", "zoom_blur"),
)
# The study drew nine of the nineteen once, at random, to train on; the other ten are held out.
MIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "mix1": _MIX1,
    "mix2": tuple(name for name in NAMES if name not in _MIX1),
}


def expand_mixes(names: Sequence[str]) -> tuple[str, ...]:
    """Corruptions by their names and those of mixes, each once, in the order of `parameters.NAMES`.

    Raises: UnknownNameError.
    Source: Lost in Pruning, section 6 and appendix, for the mixes.
    """
    known = (*MIXES, *NAMES)
    for name in names:
        if name not in known:
            raise UnknownNameError(f"recipe.train_corruptions: {unknown_name_message('corruption', name, known)}")
    chosen = {corruption for name in names for corruption in MIXES.get(name, (name,))}
    return tuple(name for name in NAMES if name in chosen)
