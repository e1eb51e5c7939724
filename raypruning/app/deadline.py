"""When a run should end, as people write it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from raypruning.errors import SpecError

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_deadline(text: str, *, now: datetime) -> float:
    """Seconds since the epoch at `90m`, `6h` or `2d` from now, or at a date and time such as 2027-01-31T08:00.

    Args:
        now: with a time zone, which a date and time without one is taken in.

    Raises: SpecError: it is neither, or in the past.
    """
    span = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text.strip())
    try:
        if span:
            moment = now + timedelta(**{_UNITS[span[2]]: float(span[1])})
        else:
            moment = datetime.fromisoformat(text.strip())
            moment = moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
    except (ValueError, OverflowError):
        raise SpecError(
            f"--deadline must be a time from now such as 90m, 6h or 2d, or a moment such as "
            f"{now + timedelta(days=1):%Y-%m-%dT%H:%M}, got {text}"
        ) from None
    if moment <= now:
        raise SpecError(f"--deadline {text} is in the past: it is {now:%Y-%m-%dT%H:%M} now")
    return moment.timestamp()
