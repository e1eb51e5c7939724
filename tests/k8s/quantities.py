"""Kubernetes' quantities as numbers: 500m, 2Gi, 3Ti."""

from __future__ import annotations

import re
from fractions import Fraction

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def amount(quantity: str | int | float) -> Fraction:
    """The number that a quantity stands for, exactly. Raises ValueError for anything else.

    Source: the serialization format of `resource.Quantity`, without exponents.
    """
    found = re.fullmatch(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)([A-Za-z]*)", str(quantity))
    if found is None or found[2] not in {**_DECIMAL, **_BINARY}:
        raise ValueError(f"{quantity!r} is no quantity, such as 500m or 2Gi")
    if found[2] in _BINARY:
        return Fraction(found[1]) * 2 ** _BINARY[found[2]]
    return Fraction(found[1]) * Fraction(10) ** _DECIMAL[found[2]]
