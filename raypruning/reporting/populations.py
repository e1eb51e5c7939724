"""What a population and a class are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raypruning.reporting import wording


class OfPopulation(Protocol):
    """Anything that was found of one population."""

    @property
    def method(self) -> str:
        """Label of the method."""

    @property
    def budget(self) -> int:
        """Epochs of retraining."""

    @property
    def ratio_reached(self) -> float:
        """Fraction of the parameters removed."""


def class_name(names: Sequence[str], label: int) -> str:
    """Such as `6 Shirt`; `6` where names are not known, or are numbers themselves."""
    name = names[label] if label < len(names) else ""
    return f"{label}" if name in ("", f"{label}") else f"{label} {name}"


def setting(one: OfPopulation) -> str:
    """Such as `wt, 2 epochs, 98.0 % removed`."""
    return f"{one.method}, {wording.count(one.budget, 'epoch')}, {wording.percent(one.ratio_reached)} removed"
