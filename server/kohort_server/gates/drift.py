"""Whether two sets of values are of the same kind: Kolmogorov and Smirnov, chi-squared, stability index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates.distributions import chi_squared_beyond, kolmogorov_beyond

Values = NDArray[np.float64]
BINS = 10
SMALLEST_SHARE = 1e-4  # of an empty bin: the index of nothing is infinite
LEAST_EXPECTED = 5.0  # in each cell, for chi-squared to be about right


def ks_distance(left: Values, right: Values) -> float:
    """The greatest distance of the two distribution functions."""
    every = np.sort(np.concatenate([left, right]))
    below = [np.searchsorted(np.sort(one), every, "right") / len(one) for one in (left, right)]
    return float(np.abs(below[0] - below[1]).max())


def ks_chance(left: Values, right: Values) -> float:
    """The chance of such a distance where both are alike, for large numbers; less where values are equal."""
    effective = len(left) * len(right) / (len(left) + len(right))
    return kolmogorov_beyond(float(np.sqrt(effective)) * ks_distance(left, right))


def psi(left: Values, right: Values) -> float:
    """The population stability index of values against those of the reference (right).

    Bins are the reference's tenths; values that many share make fewer of them.
    """
    edges = np.unique(np.quantile(right, np.arange(1, BINS) / BINS))
    bins = len(edges) + 1
    shares = [
        np.maximum(
            np.bincount(np.searchsorted(edges, one, "left"), minlength=bins) / len(one),
            SMALLEST_SHARE,
        )
        for one in (left, right)
    ]
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def chi_squared_chance(left: NDArray[np.generic], right: NDArray[np.generic]) -> float:
    """The chance of such different counts where both are alike; rare values count together.

    1 where hardly any value is common enough to be compared.
    """
    names, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    counts = np.stack(
        [
            np.bincount(part, minlength=len(names))
            for part in (place[: len(left)], place[len(left) :])
        ]
    ).astype(float)
    smaller = min(len(left), len(right)) / (len(left) + len(right))
    rare = counts.sum(axis=0) * smaller < LEAST_EXPECTED
    kept = counts[:, ~rare]
    if rare.any():
        others = counts[:, rare].sum(axis=1, keepdims=True)
        if others.sum() * smaller >= LEAST_EXPECTED:
            kept = np.concatenate([kept, others], axis=1)
    if kept.shape[1] < 2:
        return 1.0
    expected = kept.sum(axis=1, keepdims=True) * kept.sum(axis=0) / kept.sum()
    statistic = float(((kept - expected) ** 2 / expected).sum())
    return chi_squared_beyond(statistic, kept.shape[1] - 1)
