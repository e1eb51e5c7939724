"""The dataset's own test images, as they are."""

from __future__ import annotations

from raypruning.errors import SpecError
from raypruning.tasks.task import TaskDefinition


def nominal(argument: str) -> TaskDefinition:
    """The nominal test set."""
    if argument:
        raise SpecError(f"the task nominal takes no argument, got {argument!r}")
    return TaskDefinition(source="the dataset's own test set")
