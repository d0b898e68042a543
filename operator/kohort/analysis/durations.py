"""Durations that are known by class: their quantiles, and from where on a request counts as slow."""

from __future__ import annotations

import math
from itertools import accumulate

from kohort.analysis.reading import Row
from kohort.contract import TOOK_MS

CLASSES = len(TOOK_MS)
NOTHING: Row = (0,) * CLASSES

NEAR_SHARE, FAR_SHARE = 0.25, 0.03
"""Shares of stable's requests that are to be beyond the two bounds: one for all that gets slower, one
for what does so at the far end alone."""

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
BEYOND = 5
"""Requests of an arm that a quantile needs beyond it, to be worth a comparison."""

LEAST_MS = 2.0
"""A difference below which nobody is worse off, and which classes of a millisecond cannot tell."""

_LONGEST_MS = 2 * TOOK_MS[-1]


def slow_bounds(reference: Row) -> tuple[int, int]:
    """Two classes, from which on a request counts as slow: as near to the wanted shares as there are."""
    total = sum(reference)
    beyond = [total - below for below in accumulate(reference, initial=0)]

    def distance(index: int, share: float) -> float:
        tail = (beyond[index] + 0.5) / (total + 1)
        return abs(math.log(tail / (1 - tail)) - math.log(share / (1 - share)))

    near = min(range(1, CLASSES - 1), key=lambda index: distance(index, NEAR_SHARE))
    far = min(range(near + 1, CLASSES), key=lambda index: distance(index, FAR_SHARE))
    return near, far


def quantile(row: Row, share: float) -> float:
    """Milliseconds that so large a share of requests took at most; log-linear within a class."""
    wanted, below = share * sum(row), 0
    for index, count in enumerate(row):
        if count and below + count >= wanted:
            part = (wanted - below) / count
            low = TOOK_MS[index]
            high = TOOK_MS[index + 1] if index + 1 < CLASSES else _LONGEST_MS
            return high * part if not low else low * math.pow(high / low, part)
        below += count
    return 0.0


def slower(canary: Row, stable: Row, margin: float) -> bool:
    """Whether at any quantile the canary takes longer by the margin, and by more than ``LEAST_MS``.

    ``margin``: relative to stable. Quantiles are those that enough requests of both arms are beyond.
    """
    fewest = min(sum(canary), sum(stable))
    shares = [q for q in QUANTILES if (1 - q) * fewest >= BEYOND]
    return any(
        quantile(canary, q)
        >= max(quantile(stable, q) * (1 + margin), quantile(stable, q) + LEAST_MS)
        for q in shares
    )
