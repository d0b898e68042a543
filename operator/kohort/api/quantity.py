"""Durations and percentages as people write them in YAML."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

DURATION_PATTERN = r"^([0-9]{1,6}(h|m|s|ms))+$"
PERCENT_PATTERN = r"^[0-9]{1,3}(\.[0-9]{1,4})?%$"

Duration = Annotated[
    str,
    Meta(
        pattern=DURATION_PATTERN, max_length=32, description="A duration such as 90s, 10m or 1h30m."
    ),
]
Percent = Annotated[
    str, Meta(pattern=PERCENT_PATTERN, max_length=9, description="A percentage such as 1% or 0.5%.")
]

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(duration: str) -> float:
    """Seconds in a duration; the schema has already refused what does not match."""
    return sum(int(n) * _SECONDS[unit] for n, unit in re.findall(r"([0-9]+)(ms|h|m|s)", duration))


def share(percent: str) -> float:
    """A percentage as a share in [0, 1]: ``share("1%") == 0.01``."""
    return float(percent.removesuffix("%")) / 100
