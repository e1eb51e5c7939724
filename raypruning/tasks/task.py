"""What a task is to the evaluation: a record, and what is done to the dataset's test images.

A registered task is a function `name(argument) -> TaskDefinition`. This module imports no torch, so that a driver can
describe tasks without it.
"""

# N images, C channels, H W height and width

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar

from raypruning import registry
from raypruning.core.identity import fingerprint
from raypruning.core.records import Task
from raypruning.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

# (images, image ids) -> images of the same shape. The same image gets the same change whatever the batch.
Change = Callable[["Tensor", "Tensor"], "Tensor"]

NOMINAL = "nominal"

_Function = TypeVar("_Function", bound=Callable[[str], "TaskDefinition"])


@dataclass(frozen=True, kw_only=True)
class TaskDefinition:
    """One test distribution, as changes to the dataset's own test images.

    Attributes:
        corruption: what is done, with which numbers; empty for nothing.
        on_bytes: applied to uint8 pixels; made once and kept on disk where the test set lies in memory.
        on_pixels: applied to pixels in [0, 1].
        on_normalised: applied to the network's input.
        version: raised when the same name gives other images.
        source: paper and section.
    """

    corruption: Mapping[str, str | int | float] = field(default_factory=dict)
    on_bytes: Change | None = None
    on_pixels: Change | None = None
    on_normalised: Change | None = None
    nominal: str = NOMINAL
    version: int = 1
    source: str = ""

    @property
    def changes(self) -> tuple[Change | None, Change | None, Change | None]:
        """In the order in which they are applied."""
        return self.on_bytes, self.on_pixels, self.on_normalised


def members(*arguments: str) -> Callable[[_Function], _Function]:
    """Decorator: the tasks of a family that a pattern finds and a list shows, by what follows the family's name."""

    def decorate(function: _Function) -> _Function:
        function.members = arguments  # type: ignore[attr-defined]
        return function

    return decorate


def task_names() -> list[str]:
    """Every task that can be enumerated, `nominal` first, then the registered names and members of families.

    A plugin that cannot be loaded is left out, and harms no other.
    """
    names = []
    for name in registry.tasks.names():
        if not name.endswith("/"):
            names.append(name)
            continue
        try:
            function = registry.tasks.get(name).value
        except SpecError:
            continue
        names += [name + argument for argument in getattr(function, "members", ())]
    return sorted(names, key=lambda name: name != NOMINAL)


def expand_tasks(patterns: Sequence[str]) -> list[str]:
    """Task names for names and patterns such as `corruption/*/3`, in the order in which they are named.

    A pattern adds what is not named yet and not named by itself; a name that is given twice stays twice.

    Raises: UnknownNameError: a pattern that no task matches.
    """
    names = {pattern for pattern in patterns if not _is_pattern(pattern)}
    expanded: list[str] = []
    for pattern in patterns:
        if not _is_pattern(pattern):
            expanded.append(pattern)
            continue
        found = [name for name in task_names() if fnmatchcase(name, pattern)]
        if not found:
            raise UnknownNameError(f"no task matches {pattern!r}: prune-cli list tasks DATASET shows what there is")
        expanded += [name for name in found if name not in names]
        names.update(found)
    return expanded


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def resolve_task(name: str) -> TaskDefinition:
    """The definition behind a task's name. Raises UnknownNameError, or SpecError for a bad number in it."""
    found = registry.tasks.get(name)
    definition = found.value(found.argument)
    if not isinstance(definition, TaskDefinition):
        raise SpecError(f"task {name} gave a {type(definition).__name__} where a TaskDefinition was expected")
    return definition


def describe_task(name: str, *, dataset: str, data_fingerprint: str, num_examples: int) -> Task:
    """The record of a task on a dataset."""
    definition = resolve_task(name)
    identity = {
        "data": data_fingerprint,
        "corruption": dict(definition.corruption),
        "metric": "classification",
        "version": definition.version,
    }
    return Task(
        name=name,
        dataset=dataset,
        nominal=definition.nominal,
        corruption=definition.corruption,
        num_examples=num_examples,
        version=definition.version,
        fingerprint=fingerprint(identity),
    )


def positive_number(argument: str, *, task: str) -> float:
    """The number in a task's name. Raises SpecError."""
    try:
        value = float(argument)
    except ValueError:
        value = -1.0
    if not 0.0 < value < 1e6:
        raise SpecError(f"task {task}{argument}: what follows {task} must be a positive number, such as {task}0.1")
    return value
