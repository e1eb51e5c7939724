"""What a task is to the evaluation: a record, which images, and what is done to them.

A registered task is a function `name(argument) -> TaskDefinition`. This module imports no torch, so that a driver can
describe tasks without it.
"""

# N images, C channels, H W height and width

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from raypruning import registry
from raypruning.core.identity import fingerprint
from raypruning.core.records import Kind, Task
from raypruning.datasets.base import Dataset
from raypruning.datasets.resolve import dataset_kind
from raypruning.errors import SpecError, UnknownNameError
from raypruning.tasks.examples import Examples

if TYPE_CHECKING:
    from torch import Tensor

# (images, image ids) -> images of the same shape. The same image gets the same change whatever the batch.
Change = Callable[["Tensor", "Tensor"], "Tensor"]
# (the dataset that was trained on, where data is looked for) -> images of the task's own. Raises DataError.
OpenExamples = Callable[[Dataset, Path | None], Examples]

NOMINAL = "nominal"

_Function = TypeVar("_Function", bound=Callable[[str], "TaskDefinition"])


@dataclass(frozen=True, kw_only=True)
class TaskDefinition:
    """One test distribution: changes to the dataset's own test images, or images of its own.

    Attributes:
        corruption: what is done, with which numbers; empty for nothing.
        on_bytes: applied to uint8 pixels; made once and kept on disk where the test set lies in memory.
        on_pixels: applied to pixels in [0, 1].
        on_normalised: applied to the network's input.
        on_masks: for segmentation: (masks (N, H, W) uint8, image ids) -> masks; None where no pixel moves.
        examples: opens images of the task's own; None for the dataset's test images.
        datasets: names of the datasets, or of families of them ("folder/"), that it is for; empty for any.
        kind: of the datasets that it is for: those with a class for each image, or for each pixel; None for both.
        version: raised when the same name gives other images.
        source: paper and section.
    """

    corruption: Mapping[str, str | int | float] = field(default_factory=dict)
    on_bytes: Change | None = None
    on_pixels: Change | None = None
    on_normalised: Change | None = None
    on_masks: Change | None = None
    examples: OpenExamples | None = None
    datasets: tuple[str, ...] = ()
    kind: Kind | None = None
    nominal: str = NOMINAL
    version: int = 1
    source: str = ""

    @property
    def changes(self) -> tuple[Change | None, Change | None, Change | None]:
        """In the order in which they are applied."""
        return self.on_bytes, self.on_pixels, self.on_normalised

    def fits(self, dataset: str, *, kind: Kind | None = None) -> bool:
        """Whether it is for a dataset of that name.

        Args:
            kind: of the dataset; what its name tells when None.

        Raises: UnknownNameError: the name tells nothing, since no dataset has it.
        """
        if self.kind is not None and self.kind != (kind or dataset_kind(dataset)):
            return False
        families = tuple(name for name in self.datasets if name.endswith("/"))
        return not self.datasets or dataset in self.datasets or dataset.startswith(families)

    @property
    def is_for(self) -> str:
        """What it is for, in words."""
        if self.datasets:
            return f"--dataset {' or '.join(self.datasets)}"
        return "images whose pixels have classes" if self.kind == "segmentation" else "images that have one class each"


def members(*arguments: str) -> Callable[[_Function], _Function]:
    """Decorator: the tasks of a family that a pattern finds and a list shows, by what follows the family's name."""

    def decorate(function: _Function) -> _Function:
        function.members = arguments  # type: ignore[attr-defined]
        return function

    return decorate


def task_names(dataset: str) -> list[str]:
    """Every task of a dataset that can be enumerated, `nominal` first, then registered names and members of families.

    A plugin that cannot be loaded is left out, and harms no other.
    """
    names = []
    for name in registry.tasks.names():
        try:
            function = registry.tasks.get(name).value
            members = [name + argument for argument in getattr(function, "members", ())]
            names += [one for one in (members if name.endswith("/") else [name]) if resolve_task(one).fits(dataset)]
        except SpecError:
            continue
    return sorted(names, key=lambda name: name != NOMINAL)


def expand_tasks(patterns: Sequence[str], *, dataset: str) -> list[str]:
    """Task names for names and patterns such as `corruption/*/3`, in the order in which they are named.

    A pattern adds what fits the dataset, is not named yet and not named by itself; a name that is given twice stays
    twice.

    Raises: UnknownNameError: a pattern that no task matches.
    """
    names = {pattern for pattern in patterns if not _is_pattern(pattern)}
    known = task_names(dataset) if any(map(_is_pattern, patterns)) else []
    expanded: list[str] = []
    for pattern in patterns:
        if not _is_pattern(pattern):
            expanded.append(pattern)
            continue
        found = [name for name in known if fnmatchcase(name, pattern)]
        if not found:
            raise UnknownNameError(
                f"no task of {dataset} matches {pattern!r}: prune-cli list tasks {dataset} shows what there is"
            )
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


def describe_task(name: str, dataset: Dataset, *, data_dir: Path | None = None) -> Task:
    """The record of a task on a dataset. See `open_task`."""
    return open_task(name, dataset, data_dir=data_dir)[0]


def open_task(name: str, dataset: Dataset, *, data_dir: Path | None = None) -> tuple[Task, Examples | None]:
    """The record of a task on a dataset, and its images; None for the dataset's test images.

    Args:
        data_dir: where images of a task's own are looked for.

    Raises: SpecError: it is for other datasets. DataError: its images are missing or damaged.
    """
    definition = resolve_task(name)
    if not definition.fits(dataset.name, kind=dataset.kind):
        raise SpecError(f"the task {name} is for {definition.is_for}, not for {dataset.name}")
    examples = definition.examples(dataset, data_dir) if definition.examples else None
    identity = {
        "data": examples.fingerprint if examples else dataset.fingerprint,
        "corruption": dict(definition.corruption),
        "metric": dataset.kind,
        "version": definition.version,
    }
    task = Task(
        name=name,
        dataset=dataset.name,
        nominal=definition.nominal,
        corruption=definition.corruption,
        metric=dataset.kind,
        num_examples=len(examples) if examples else len(dataset.split("test")),
        images=_images(examples, dataset),
        version=definition.version,
        fingerprint=fingerprint(identity),
    )
    return task, examples


def _images(examples: Examples | None, dataset: Dataset) -> str:
    """What two tasks share that have the same images in the same order: "" for all of the dataset's test images."""
    if examples is None:
        return ""
    positions_N = examples.positions_N
    if positions_N is None:
        return examples.fingerprint
    if np.array_equal(positions_N, np.arange(len(dataset.split("test")))):
        return ""
    return fingerprint([int(position) for position in positions_N])


def positive_number(argument: str, *, task: str) -> float:
    """The number in a task's name. Raises SpecError."""
    try:
        value = float(argument)
    except ValueError:
        value = -1.0
    if not 0.0 < value < 1e6:
        raise SpecError(f"task {task}{argument}: what follows {task} must be a positive number, such as {task}0.1")
    return value
