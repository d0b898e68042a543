"""How sure a value is that was seen in samples: lower bounds of shares and of anything, and samples needed.

Every bound is one-sided: at a confidence of 95 % it lies above the true value in at most 5 % of all draws of
the samples (about that for Wilson's and the bootstrap's).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates.distributions import (
    beta_quantile,
    beta_share,
    normal_quantile,
    normal_share,
)

RESAMPLES = 2000
JACKKNIFE_GROUPS = 200
MOST_SAMPLES = 1 << 40
Rows = NDArray[np.int64]
Statistic = Callable[[Rows], float]
"""A value of the samples of these numbers, some of which may come several times; NaN where it has none."""


class Interval(StrEnum):
    """How the bound of a share is found."""

    EXACT = "Exact"  # Clopper and Pearson: never less than the confidence
    WILSON = "Wilson"  # about the confidence, sometimes less


class NoBoundError(Exception):
    """The samples say nothing about how sure their value is."""


def lower_bound(interval: Interval, hits: float, count: float, confidence: float) -> float:
    """The lower bound of a share. ``hits`` may be a fraction, as of a share that is only thought of."""
    if interval is Interval.WILSON:
        return wilson_lower(hits, count, confidence)
    return exact_lower(hits, count, confidence)


def exact_lower(hits: float, count: float, confidence: float) -> float:
    """Source: Clopper and Pearson, 1934."""
    return beta_quantile(1 - confidence, hits, count - hits + 1) if hits > 0 else 0.0


def exact_upper(hits: float, count: float, confidence: float) -> float:
    """The upper bound: one minus the lower bound of the misses."""
    return 1 - exact_lower(count - hits, count, confidence)


def wilson_lower(hits: float, count: float, confidence: float) -> float:
    """The share from which hits are as far as the confidence allows. Source: Wilson, 1927."""
    if count <= 0:
        return 0.0
    z, share = normal_quantile(confidence), hits / count
    if z <= 0:
        raise ValueError("a confidence of at most 50 % bounds nothing")
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - spread) / (1 + z * z / count))


def samples_needed(
    interval: Interval, observed: float, at_least: float, confidence: float
) -> int | None:
    """How many samples show a share of at least so much, if ``observed`` stays as it is; None: no number."""
    if observed <= at_least:
        return None

    def enough(count: int) -> bool:
        if interval is Interval.WILSON:
            return wilson_lower(observed * count, count, confidence) >= at_least
        # That the bound is at least so high is the chance of so many hits being small enough there.
        hits = observed * count
        return beta_share(at_least, hits, count - hits + 1) <= 1 - confidence

    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_SAMPLES:
            return None
    low = high // 2  # which is not enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def bootstrap_lower(
    statistic: Statistic, count: int, confidence: float, seed: int = 0, resamples: int = RESAMPLES
) -> float:
    """The lower bound of any value of independent samples, about right.

    Corrected for bias and acceleration. Source: Efron, 1987 (BCa); the acceleration by a jackknife that
    leaves out groups where there are many samples. Raises `NoBoundError` where all resamples are alike.
    """
    random = np.random.default_rng(seed)
    whole = statistic(np.arange(count))
    drawn = np.array([statistic(random.integers(0, count, count)) for _ in range(resamples)])
    drawn = np.sort(drawn[np.isfinite(drawn)])
    if not math.isfinite(whole) or len(drawn) < resamples / 2:
        raise NoBoundError("most draws of the samples have no such value; give more samples")
    spread = drawn[-1] - drawn[0]
    if spread <= 1e-12 * max(1.0, abs(whole)):
        raise NoBoundError(
            "every draw of the samples has the same value, so that it says nothing about others; give more "
            "samples, or harder ones"
        )
    below = (np.count_nonzero(drawn < whole) + np.count_nonzero(drawn <= whole)) / 2 / len(drawn)
    edge = 0.5 / len(drawn)
    bias = normal_quantile(min(max(below, edge), 1 - edge))
    acceleration = _acceleration(statistic, count, random)
    z = bias + normal_quantile(1 - confidence)
    scale = 1 - acceleration * z
    share = normal_share(bias + z / scale) if scale > 0 else 0.0
    return float(np.quantile(drawn, share, method="inverted_cdf"))


def _acceleration(statistic: Statistic, count: int, random: np.random.Generator) -> float:
    """How the value's spread changes with the value, from its values without some of the samples."""
    groups = np.array_split(random.permutation(count), min(count, JACKKNIFE_GROUPS))
    keep = np.ones(count, bool)
    without = []
    for group in groups:
        keep[group] = False
        without.append(statistic(np.flatnonzero(keep)))
        keep[group] = True
    values = np.array(without)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0
    away = values.mean() - values
    squares = float((away**2).sum())
    return float((away**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
