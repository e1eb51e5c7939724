"""How a number is written: the same in the terminal, in Markdown, in the page and in the plots."""

from __future__ import annotations

from collections.abc import Sequence

from raypruning.core.records import Schedule

MINUS = "\N{MINUS SIGN}"
AT_LEAST = "\N{GREATER-THAN OR EQUAL TO}"


def percent(fraction: float) -> str:
    """Such as `86.9 %`. One decimal; more where one would say 100.0 % of something that is less than all."""
    return f"{percent_digits(fraction)} %"


def percent_digits(fraction: float) -> str:
    """As `percent`, without the sign: for the ends of an interval."""
    for decimals in range(1, 6):
        digits = f"{100 * fraction:.{decimals}f}"
        if fraction >= 1 or float(digits) < 100:
            return digits
    return digits


def interval(low: float, high: float) -> str:
    """Such as `85.1 to 88.0`, of fractions written as percentages."""
    return f"{percent_digits(low)} to {percent_digits(high)}"


def signed_points(fraction: float, *, decimals: int = 1) -> str:
    """Such as `+1.2`: a difference of two error rates, in points. Zero has no sign."""
    digits = f"{abs(100 * fraction):.{decimals}f}"
    if float(digits) == 0:
        return digits
    return ("+" if fraction > 0 else MINUS) + digits


def signed_interval(low: float, high: float) -> str:
    """Such as `+0.8 to +1.6`, in points."""
    return f"{signed_points(low)} to {signed_points(high)}"


def points(fraction: float) -> str:
    """Such as `0.5 points`: an allowed loss, as short as it can be written exactly."""
    digits = f"{100 * fraction:.6g}"
    return f"{digits} point" if digits == "1" else f"{digits} points"


def count(number: int, noun: str) -> str:
    """Such as `1 image`, `10 000 images`: the noun takes an s."""
    return f"{thousands(number)} {noun}" if number == 1 else f"{thousands(number)} {noun}s"


def thousands(number: float) -> str:
    """Such as `10 000`."""
    return f"{number:,.0f}".replace(",", "\N{NO-BREAK SPACE}").replace("-", MINUS)


def magnitude(number: float) -> str:
    """Such as `7.8 G`, `320 k`, `512`: multiply-adds, parameters, bytes; three digits at most."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            scaled = number / size
            return f"{scaled:.0f} {letter}" if scaled >= 100 else f"{scaled:.3g} {letter}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Such as `0.4 s`, `45 s`, `3 min 20 s`, `2 h 05 min`."""
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{thousands(hours)} h {minutes:02d} min"


def epochs(budget: int) -> str:
    """Such as `2 epochs of retraining`."""
    return "no retraining" if budget == 0 else f"{count(budget, 'epoch')} of retraining"


def retraining(budget: int, schedule: Schedule) -> str:
    """Such as `2 epochs of retraining`, `2 epochs of retraining for each link`, `60 epochs of training`."""
    if schedule.from_scratch:
        return f"{count(budget, 'epoch')} of training"
    return f"{epochs(budget)} for each link" if schedule.kind == "iterative" else epochs(budget)


def schedule(schedule: Schedule) -> str:
    """Such as `pruned in a chain of the grid lost/resnet20`; empty for the plain one, once and then retrained."""
    parts = []
    if schedule.kind == "iterative":
        num_links = schedule.steps or len(schedule.ratios)
        which = f"the grid {schedule.grid}" if schedule.grid else count(num_links, "link")
        parts.append(f"pruned in a chain of {which}")
    elif schedule.kind == "gradual":
        parts.append(f"pruned gradually while {'training from scratch' if schedule.from_scratch else 'retraining'}")
    if schedule.rewind_epochs is not None:
        parts.append(f"weights rewound to epoch {schedule.rewind_epochs}")
    return ", ".join(parts)


def listing(items: Sequence[str]) -> str:
    """Such as `a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"
