"""Resource quantities such as 500m, 2 and 16Gi."""

from __future__ import annotations

import re
from fractions import Fraction

_SUFFIXES = {"": Fraction(1), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6)}
_SUFFIXES |= {"m": Fraction(1, 1000)}
_SUFFIXES |= {s: Fraction(1000**n) for n, s in enumerate(("k", "M", "G", "T", "P", "E"), 1)}
_SUFFIXES |= {s: Fraction(1024**n) for n, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)")


def parse(quantity: str) -> Fraction:
    """The exact value of a quantity in its base unit.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(str(quantity).strip())
    if not found or found[2] not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is no quantity; write it like 500m, 2 or 16Gi")
    return Fraction(found[1]) * _SUFFIXES[found[2]]


def in_units_of(quantity: str, divisor: str) -> int:
    """How many times `divisor` goes into the quantity, rounded up as the downward API does."""
    unit = parse(divisor) or Fraction(1)  # 0 is how the API writes "not given"
    return -(-parse(quantity) // unit)
