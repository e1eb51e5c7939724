"""How far a long command is, on standard error: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raypruning.commands.options import console

PLAIN_SECONDS = 20.0  # between lines where there is no terminal

# What is worked on, how much of it is done, and how much there is in all.
Tell = Callable[[str, float, float], None]


@contextmanager
def progress() -> Iterator[Tell]:
    """What is to be told of every step."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from raypruning.reporting.wording import duration

    place = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, TimeRemainingColumn(), console=place, transient=True, disable=not place.is_terminal) as bar:
        task = bar.add_task("", total=None)
        began = said = time.monotonic()

        def tell(what: str, done: float, total: float) -> None:
            nonlocal said
            bar.update(task, description=what, completed=done, total=total)
            now = time.monotonic()
            if not place.is_terminal and now - said >= PLAIN_SECONDS and 0 < done < total:
                said = now
                place.print(f"{what}: about {duration((now - began) / done * (total - done))} left", highlight=False)

        yield tell
