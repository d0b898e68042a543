"""Numbers as specs of gates write them: percentages, and amounts that may be one."""

from __future__ import annotations

import re
from typing import Any

NUMBER = re.compile(r"([+-]?\d{1,12}(?:\.\d{1,12})?)(%?)")


class Share(float):
    """A share in [0, 1], written as a percentage: 99.5%."""


class Amount(float):
    """A number, or a percentage: 10, "1.5" or 20%."""


def read_number(kind: type[Any], value: Any) -> Any:
    """A share or an amount; raises `ValueError`, which msgspec tells with its place."""
    if kind not in (Share, Amount):
        raise NotImplementedError(kind)
    if kind is Amount and isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:.12f}".rstrip("0").rstrip(".")
    match = NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None or (kind is Share and not match[2]):
        how = "a percentage like 99.5%" if kind is Share else "a number, or a percentage like 20%"
        raise ValueError(f"write {how}, not {value!r}")
    number = float(match[1]) / (100 if match[2] else 1)
    if kind is Share and not 0 <= number <= 1:
        raise ValueError(f"a share is from 0% to 100%, not {value}")
    return kind(number)
