"""Whether a model is worse than another one on the same samples: tests of what differs, sample by sample.

Each gives the chance, at most, that a model which is not worse looks so much worse.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates.bounds import Rows, exact_lower, exact_upper
from kohort_server.gates.distributions import binomial_at_least

Floats = NDArray[np.float64]
FLIPS = 20_000
EXACT_FLIPS = 14  # differing samples up to which all 2^n flips are counted
RESAMPLES = 2000
CHUNK = 500


def mcnemar_worse(better: int, worse: int) -> float:
    """Of samples that only one model has right, were each as likely either's, so many are the other's.

    Exact. Source: McNemar, 1947, with the binomial distribution, one-sided.
    """
    return binomial_at_least(worse, better + worse, 0.5)


def sign_flip_worse(differences: Floats, seed: int = 0) -> float:
    """How often the sum of differences is so small when each may as well have the other sign.

    Exact in that the chance of a value of at most p is at most p, if differences are symmetric about zero
    or above it: all flips are counted where they are few, else drawn ones with the one that was seen.
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    size = np.abs(moved)
    seen = float(moved.sum())
    # What differs by rounding alone counts as the same: that is on the safe side of accusing nobody.
    margin = 1e-9 * float(size.sum())
    if len(moved) <= EXACT_FLIPS:
        signs = 1.0 - 2.0 * ((np.arange(1 << len(moved))[:, None] >> np.arange(len(moved))) & 1)
        return float(np.mean(signs @ size <= seen + margin))
    random = np.random.default_rng(seed)
    as_small = 0
    for start in range(0, FLIPS, CHUNK):
        signs = 1.0 - 2.0 * random.integers(0, 2, (min(CHUNK, FLIPS - start), len(moved)))
        as_small += int(np.count_nonzero(signs @ size <= seen + margin))
    return (1 + as_small) / (1 + FLIPS)


def bootstrap_worse(difference: Callable[[Rows], float], count: int, seed: int = 0) -> float:
    """How often a difference is not below zero when the samples are drawn again; about right."""
    random = np.random.default_rng(seed)
    drawn = np.array([difference(random.integers(0, count, count)) for _ in range(RESAMPLES)])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return 1.0
    return float((1 + np.count_nonzero(drawn >= 0)) / (1 + len(drawn)))


def share_difference_lower(better: int, worse: int, count: int, confidence: float) -> float:
    """What the difference of two shares is at least, of the same samples.

    Never less sure than the confidence: half of what is left goes to the samples that became better, half
    to those that became worse, each with Clopper and Pearson's bound.
    """
    each = 1 - (1 - confidence) / 2
    return exact_lower(better, count, each) - exact_upper(worse, count, each)


def bootstrap_difference_lower(
    difference: Callable[[Rows], float], count: int, confidence: float, seed: int = 0
) -> float:
    """What a difference is at least when the samples are drawn again, about."""
    random = np.random.default_rng(seed)
    drawn = np.array([difference(random.integers(0, count, count)) for _ in range(RESAMPLES)])
    drawn = drawn[np.isfinite(drawn)]
    return float(np.quantile(drawn, 1 - confidence)) if len(drawn) else float("-inf")
