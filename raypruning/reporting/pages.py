"""What all pages are made with: templates that need nothing else, on a page that works without scripts."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def environment() -> Environment:
    """Templates that escape what they are given, and fail on a name that is not."""
    return Environment(
        loader=PackageLoader("raypruning.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_unbroken,
    )


def _unbroken(value: object) -> object:
    """Keep a number and its percent sign on one line. Markup is left alone."""
    return (
        value.replace(" %", "\N{NO-BREAK SPACE}%")
        if isinstance(value, str) and not isinstance(value, Markup)
        else value
    )
