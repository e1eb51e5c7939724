"""Which schedules make sense: one line for each that does not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from raypruning.core.records import Schedule, SweepSpec
from raypruning.core.search.axis import RATIO_DIGITS
from raypruning.core.search.chain import chain_links
from raypruning.core.search.grids import grid_names, has_own_steps
from raypruning.errors import UnknownNameError, unknown_name_message

MAX_STEPS = 1000  # of a chain, and of each of its links: more than any study, and made before anything runs

A_MILLIONTH = 10.0**-RATIO_DIGITS  # to which ratios are asked for

# Fields that one kind of schedule has and the others lack.
OF_ITERATIVE = ("grid", "ratios", "steps", "prunes_per_link")
OF_GRADUAL = ("from_scratch", "begin", "end", "frequency")


def problems(spec: SweepSpec) -> Iterator[str]:
    """What is wrong with the schedule of a spec, a line each, the first worth telling first.

    Raises: UnknownNameError: a grid that does not exist, with near names.
    """
    schedule = spec.schedule
    yield from _foreign_fields(schedule)
    rewind, epochs = schedule.rewind_epochs, spec.recipe.epochs
    if rewind is not None and rewind >= epochs:
        yield f"schedule.rewind_epochs must be fewer than the {epochs} epochs of the recipe, got {rewind}"
    if schedule.kind == "iterative":
        yield from _chain_problems(spec)
    elif spec.search.strategy == "chain":
        yield f"search.strategy 'chain' walks an iterative schedule, and this one is {schedule.kind}: leave it out"
    if schedule.kind == "gradual":
        yield from _gradual_problems(spec)


def _foreign_fields(schedule: Schedule) -> Iterator[str]:
    owners = [("iterative", OF_ITERATIVE), ("gradual", OF_GRADUAL)]
    for kind, fields in owners:
        for field in fields:
            if schedule.kind != kind and getattr(schedule, field) != Schedule.model_fields[field].default:
                yield (
                    f"schedule.{field} is of a schedule of kind {kind}, and this one is {schedule.kind}: "
                    f"add --schedule {kind} or leave it out"
                )


def _chain_problems(spec: SweepSpec) -> Iterator[str]:
    schedule, search = spec.schedule, spec.search
    if search.strategy != "chain":
        yield f"an iterative schedule is searched along its chain: leave search.strategy {search.strategy!r} out"
    if search.ratios:
        yield "search.ratios are of the strategy grid: the ratios of an iterative schedule are schedule.ratios"
    given = [name for name in ("grid", "ratios", "steps") if getattr(schedule, name)]
    if len(given) != 1:
        yield (
            f"an iterative schedule takes one of schedule.grid, schedule.ratios and schedule.steps, "
            f"got {' and '.join(given) or 'none'}: write schedule.steps=10, or schedule.grid={_near_grid(spec)!r}"
        )
    if schedule.grid is not None and schedule.grid not in grid_names():
        raise UnknownNameError(unknown_name_message("schedule.grid", schedule.grid, grid_names()))
    if schedule.grid is not None and schedule.prunes_per_link != 1 and has_own_steps(schedule.grid):
        yield f"the grid {schedule.grid} has prune steps of its own: leave schedule.prunes_per_link out"
    for field in ("steps", "prunes_per_link"):
        value = getattr(schedule, field)
        if value is not None and value > MAX_STEPS:
            yield f"schedule.{field} must be at most {MAX_STEPS}, got {value}"
            return
    if any(after - before < A_MILLIONTH / 2 for before, after in pairwise((*schedule.ratios, 1.0))):
        yield f"schedule.ratios must ascend by at least a millionth and end below 1, got {list(schedule.ratios)}"
    elif schedule.steps is not None and len(chain_links(schedule, search)) < schedule.steps:
        yield f"schedule.steps={schedule.steps} are more links than fit between {search.low} and {search.high}"


def _near_grid(spec: SweepSpec) -> str:
    own = f"lost/{spec.model.name}"
    return own if own in grid_names() else "lost/resnet20"


def _gradual_problems(spec: SweepSpec) -> Iterator[str]:
    schedule = spec.schedule
    if schedule.begin >= schedule.end:
        yield f"schedule.begin must be below schedule.end, got {schedule.begin:g} and {schedule.end:g}"
    if schedule.rewind_epochs is not None:
        yield "schedule.rewind_epochs is of one_shot and iterative schedules: a gradual one prunes while it trains"
    if 0 in spec.budgets:
        yield "a gradual schedule prunes while it trains: budgets must be at least 1 epoch, got 0"
