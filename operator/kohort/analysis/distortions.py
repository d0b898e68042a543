"""Bets that a canary is slower: a two-arm test of whole distributions that may always be looked at.

Each bet names a way in which stable's distribution of durations would be distorted, and multiplies its
capital by how much likelier that makes what was seen. While the canary is not slower, that is to say at
every duration no greater share of its requests takes longer, the expectation of the factor is at most 1,
whatever the distribution is and however well it is known: what is known decides how good a bet is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

from kohort.analysis.reading import Row

SHIFTS = (0.15, 0.35, 0.8, 1.6, 3.2)
"""All durations longer: by so many standard deviations, where they are normal on some scale."""

TAILS = ((0.0, 1.3), (0.5, 1.5), (0.8, 1.5), (0.93, 1.4), (0.93, 2.5))
"""Those beyond a quantile last longer: their hazard is divided by k."""

EXCESSES = ((0.9, 3.0), (0.97, 3.0))
"""So many times as many lie beyond a quantile."""

LEAST, MOST = 0.02, 50.0
"""What a class of duration may make out of capital at most."""

Bet = tuple[tuple[float, ...], tuple[float, ...]]
"""By class of duration: how many times as likely it would be, and the logarithm."""

_NORMAL = NormalDist()


def _shift(deviations: float) -> Callable[[float], float]:
    def distorted(u: float) -> float:
        return _NORMAL.cdf(_NORMAL.inv_cdf(u) - deviations) if 0 < u < 1 else u

    return distorted


def _tail(quantile: float, factor: float) -> Callable[[float], float]:
    def distorted(u: float) -> float:
        if u <= quantile:
            return u
        return 1 - (1 - quantile) * math.pow((1 - u) / (1 - quantile), 1 / factor)

    return distorted


def _excess(quantile: float, factor: float) -> Callable[[float], float]:
    def distorted(u: float) -> float:
        below = (1 - factor * (1 - quantile)) / quantile
        return u * below if u <= quantile else 1 - factor * (1 - u)

    return distorted


DISTORTIONS: tuple[Callable[[float], float], ...] = (
    *map(_shift, SHIFTS),
    *(_tail(quantile, factor) for quantile, factor in TAILS),
    *(_excess(quantile, factor) for quantile, factor in EXCESSES),
)
"""Convex functions of [0, 1] onto itself: from stable's distribution function to a slower one."""


@lru_cache(maxsize=4096)
def bets(reference: Row) -> tuple[Bet, ...]:
    """A bet for each distortion of a distribution of durations.

    ``reference``: how many requests of the past fell into each class. It must be chosen before what is
    bet on is seen; then only the gain depends on how good it is.
    """
    total = sum(reference) + len(reference) / 2
    borders = [0.0]
    for count in reference:
        borders.append(borders[-1] + (count + 0.5) / total)
    borders[-1] = 1.0
    return tuple(_bet(borders, distortion) for distortion in DISTORTIONS)


def _bet(borders: Sequence[float], distortion: Callable[[float], float]) -> Bet:
    ratios: list[float] = []
    for low, high in pairwise(borders):
        ratio = (distortion(high) - distortion(low)) / (high - low)
        # The proof needs ratios that never fall with duration; rounding alone could make them.
        ratios.append(max(ratios[-1] if ratios else LEAST, min(MOST, max(LEAST, ratio))))
    return tuple(ratios), tuple(map(math.log, ratios))


def raised(logs: Sequence[float], reference: Row, canary: Row, stable: Row) -> tuple[float, ...]:
    """The log capital of every bet after one more batch; the same when an arm has no request.

    ``canary``, ``stable``: requests of the same stretch of time by class of duration.
    Source: with share the canary's of all requests, U = r / (1 - share + share * r) for each canary
    request and V = U / r for each of stable have share * U + (1 - share) * V = 1 in every class, so
    that for equal distributions the expectation is at most 1; U rises with r, so that for a faster
    canary it is lower.
    """
    of_canary, total = sum(canary), sum(canary) + sum(stable)
    if not of_canary or of_canary == total:
        return tuple(logs)
    share = of_canary / total
    rest = 1 - share
    seen = [
        (index, x, x + y) for index, (x, y) in enumerate(zip(canary, stable, strict=True)) if x + y
    ]
    log = math.log
    return tuple(
        before + sum([x * gains[k] - both * log(rest + share * ratios[k]) for k, x, both in seen])
        for before, (ratios, gains) in zip(logs, bets(reference), strict=True)
    )
