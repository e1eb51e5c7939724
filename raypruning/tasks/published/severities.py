"""The part NAME/SEVERITY in the names of tasks that are published corruptions."""

from __future__ import annotations

from typing import NamedTuple

from raypruning.corruptions.parameters import NAMES, NUM_SEVERITIES
from raypruning.errors import SpecError, UnknownNameError, unknown_name_message


class Corruption(NamedTuple):
    """One of the nineteen corruptions, and a severity from 1 to 5."""

    name: str
    severity: int

    def in_set(self, name: str) -> dict[str, str | int | float]:
        """What a task's record says of it; reports draw curves over the severities of one set."""
        return {"kind": self.name, "severity": self.severity, "set": name}


def parse_corruption(argument: str, *, task: str) -> Corruption:
    """The corruption that a task's name ends in, such as `fog/3`.

    Args:
        task: what comes before.

    Raises: UnknownNameError: no such corruption. SpecError: no such severity.
    """
    name, _, severity = argument.partition("/")
    if name not in NAMES:
        raise UnknownNameError(unknown_name_message("corruption", name, NAMES))
    if severity not in {str(number) for number in range(1, NUM_SEVERITIES + 1)}:
        raise SpecError(
            f"the task {task}{argument}: after {name} comes a severity from 1 to {NUM_SEVERITIES}, "
            f"such as {task}{name}/3"
        )
    return Corruption(name, int(severity))
