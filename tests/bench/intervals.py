"""Intervals of shares that are seen in a number of runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MISS = 0.025
"""The chance that a share lies beyond either end."""


def exact_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Clopper and Pearson, 1934: never less than 95 %."""
    index = np.arange(1, count + 1)
    log_ways = np.concatenate(([0.0], np.log((count + 1 - index) / index).cumsum()))

    def chance(share: float, kept: slice) -> float:
        """That hits are of these numbers."""
        numbers = np.arange(count + 1)[kept]
        logs = log_ways[kept] + numbers * np.log(share) + (count - numbers) * np.log1p(-share)
        return float(np.exp(logs).sum())

    low = _where(lambda share: chance(share, slice(hits, None)) >= MISS) if hits else 0.0
    high = _where(lambda share: chance(share, slice(hits + 1)) < MISS) if hits < count else 1.0
    return low, high


def _where(true: Callable[[float], bool]) -> float:
    """From which share on it is true; halves what is left forty times."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if true(middle) else (middle, high)
    return high


def told(hits: int, count: int) -> str:
    """A share with its interval, in percent."""
    low, high = exact_interval(hits, count)
    return f"{100 * hits / count:.2f} ({100 * low:.2f} to {100 * high:.2f})"
