"""Names to objects. Names are listed without importing anything; an object is imported when it is asked for.

There are four registries, `methods`, `models`, `datasets` and `tasks`, and one door to each: an entry point of the
group `raypruning.<registry>` in an installed package (the built-ins are entry points of this one), or the decorator
`register` in a module that a sweep names under `plugins`. A sweep that was read from a storage is somebody's word, and
not the user's: see `import_stored_plugins`.

A name that ends in "/" is a family: `noise/uniform/` answers for `noise/uniform/0.1` and is given the rest, "0.1".
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from raypruning.errors import SpecError, UnknownNameError, unknown_name_message


class Found(NamedTuple):
    """An object and, for a family, what followed the family's name ("" otherwise)."""

    value: Any
    argument: str


class Registry:
    """One kind of thing by name. Reading it has no effect but the import of what was asked for."""

    def __init__(self, kind: str, *, known: Iterable[EntryPoint] | None = None) -> None:
        self.kind = kind
        self._known = known
        self._registered: dict[str, Any] = {}

    @functools.cached_property
    def _points(self) -> dict[str, EntryPoint]:
        points: dict[str, EntryPoint] = {}
        for point in self._known if self._known is not None else entry_points(group=f"raypruning.{self.kind}s"):
            other = points.get(point.name)
            # One package seen twice (an editable install beside a built one) says the same thing twice.
            if other is not None and other.value != point.value:
                raise SpecError(f"two packages offer the {self.kind} {point.name!r}: {other.value} and {point.value}")
            points[point.name] = point
        return points

    def names(self) -> list[str]:
        """All names, sorted, families with their trailing "/". Imports nothing."""
        return sorted({*self._points, *self._registered})

    def get(self, name: str) -> Found:
        """The object that `name` stands for, imported now if need be.

        Raises:
            UnknownNameError: no such name; the message suggests near ones.
            SpecError: the name exists and its module cannot be imported; the message says why.
        """
        self.check(name)
        is_own = name in self._points or name in self._registered
        key = name if is_own else self._family_of(name) or name
        argument = name.removeprefix(key) if key.endswith("/") else ""
        if key in self._registered:
            return Found(self._registered[key], argument)
        try:
            return Found(self._points[key].load(), argument)
        except Exception as error:  # Whatever a stranger's module raises while it is imported.
            raise SpecError(
                f"the {self.kind} {name!r} ({self._points[key].value}) cannot be loaded: {_in_one_line(error)}"
            ) from error

    def check(self, name: str) -> None:
        """Raise UnknownNameError if nothing has that name. Imports nothing."""
        if name not in self:
            raise UnknownNameError(unknown_name_message(self.kind, name, self.names()))

    def __contains__(self, name: str) -> bool:
        return name in self._points or name in self._registered or self._family_of(name) is not None

    def owner(self, name: str) -> str:
        """Where a name comes from: the package that offers it, or the module that registered it. Imports nothing."""
        if name in self._registered:
            return str(getattr(self._registered[name], "__module__", "?"))
        point = self._points[name]
        return point.dist.name if point.dist else point.value

    def register(self, name: str) -> Callable[[Any], Any]:
        """Decorator: put an object under `name`. A name that is taken raises SpecError, naming both owners."""

        def decorate(value: Any) -> Any:
            owner = _owner_of(value)
            taken = self._registered.get(name)
            if name in self._points and self._points[name].value != owner:
                raise SpecError(f"{owner} cannot be the {self.kind} {name!r}: {self._points[name].value} is")
            if taken is not None and taken is not value:
                raise SpecError(f"{owner} cannot be the {self.kind} {name!r}: {_owner_of(taken)} is")
            self._registered[name] = value
            return value

        return decorate

    def _family_of(self, name: str) -> str | None:
        families = [key for key in {*self._points, *self._registered} if key.endswith("/") and name.startswith(key)]
        longest = max(families, key=len, default=None)
        return longest if longest != name else None


methods = Registry("method")
models = Registry("model")
datasets = Registry("dataset")
tasks = Registry("task")

PLUGINS = "RAYPRUNING_PLUGINS"


def import_plugins(modules: Iterable[str]) -> None:
    """Import the modules a sweep names under `plugins`, so that their decorators run. Idempotent."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # As in Registry.get.
            raise SpecError(f"plugins: the module {module!r} cannot be imported: {_in_one_line(error)}") from error


def import_stored_plugins(modules: Iterable[str], *, where: str) -> None:
    """Import the modules that a stored sweep or an exported network names, if the user has named them too.

    To import is to run code, and whoever can write to a storage can name any module. The user's word for one is the
    environment's RAYPRUNING_PLUGINS (names with commas), to have imported it, or to have installed it as a plugin.

    Args:
        where: what names them, as a message says it.

    Raises:
        SpecError: another module is named, and nothing was imported; or one cannot be imported.
    """
    named = list(modules)
    typed = {name.strip() for name in os.environ.get(PLUGINS, "").split(",")} - {""}
    allowed = typed | sys.modules.keys() | _installed()
    if unknown := [name for name in named if name not in allowed]:
        shown = ",".join(name if name.isprintable() else repr(name) for name in unknown)
        raise SpecError(
            f"{where} names the plugin{'s' if len(unknown) > 1 else ''} {shown}, which would run as code of yours: "
            f"if you trust it, set {PLUGINS}={shown}"
        )
    import_plugins(named)


def _installed() -> set[str]:
    """Modules of entry points, which whoever installed their packages has named. Imports nothing."""
    return {
        point.value.partition(":")[0]
        for registry in (methods, models, datasets, tasks)
        for point in registry._points.values()
    }


def _owner_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '?')}:{getattr(value, '__qualname__', value)}"


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
