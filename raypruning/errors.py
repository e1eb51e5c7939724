"""Every error that raypruning raises on purpose, with the exit code a command ends with.

RaypruningError            1
|- SpecError               2   a wrong value in a sweep, a flag or a file
|- UnknownNameError        2   a name no registry holds
|- DataError               2   a dataset that is missing, half there, or not what it says
|- ResourceError           2   no GPU where one was asked for, storage that cannot be written
|- MethodError             1   a method that cannot give the masks asked of it
|- TrainingError           1   a training that cannot go on, such as a loss that is NaN
|- OutOfMemoryError        1   a device without memory for a probe; tried again
`- StoreError              1   a stored thing that is damaged; tried again
   `- StorageFullError     1   no space left: the sweep stops, since nothing more could be kept
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OPEN = 3  # of a sweep that ended well, but with potentials that stayed open


class RaypruningError(Exception):
    """Parent of all errors below: catch it to catch whatever a user or the world did wrong.

    Attributes:
        exit_code: what the command ends with.
        is_retriable: whether the same work, tried again, may succeed.
    """

    exit_code = 1
    is_retriable = False


class SpecError(RaypruningError):
    """A value that a sweep cannot have. The message names the field, what is allowed and what to write."""

    exit_code = 2


class UnknownNameError(SpecError):
    """A model, dataset, method, task or sweep that does not exist. The message suggests near names."""


class DataError(RaypruningError):
    """Data that is missing or damaged. The message says where it was looked for and what layout is expected."""

    exit_code = 2


class ResourceError(RaypruningError):
    """Something the machine lacks: a GPU that was asked for, storage that can be written."""

    exit_code = 2


class MethodError(RaypruningError):
    """A method cannot give the masks asked of it: a NaN score, a ratio beyond what it can remove."""


class RatioError(MethodError):
    """A method has no masks for a ratio: beyond what can be removed, between two units, or less than one more unit."""


class TrainingError(RaypruningError):
    """A training cannot go on. Deterministic, so trying again gives the same."""


class OutOfMemoryError(RaypruningError):
    """The device has no memory left for a probe."""

    is_retriable = True


class StoreError(RaypruningError):
    """A stored file is damaged, or the storage stopped answering."""

    is_retriable = True


class StorageFullError(StoreError):
    """The storage has no space left. It ends a sweep: all further work would be lost."""

    is_retriable = False


def unknown_name_message(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that does not exist: near names if there are any, all of them otherwise."""
    names = sorted(known)
    if not names:
        return f"no {kind} is called {name!r}: there is none at all"
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
    return f"no {kind} is called {name!r}: {hint}"
