"""The few distributions that gates are decided by, without a package for it: each is tested against scipy."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

TINY = 1e-300
CLOSE = 1e-15
MOST_TERMS = 100_000
HALVINGS = 200


def normal_quantile(share: float) -> float:
    """Below which a standard normal variable is with this chance, in (0, 1)."""
    return NormalDist().inv_cdf(share)


def normal_share(value: float) -> float:
    """The chance that a standard normal variable is at most so large."""
    return 0.5 * math.erfc(-value / math.sqrt(2))


def beta_share(x: float, a: float, b: float) -> float:
    """The chance that a variable of Beta(a, b) is at most x: the regularised incomplete beta function.

    Source: its continued fraction, DLMF 8.17.22, on the side where that converges.
    """
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _beta_fraction(x, a, b) / a
    return 1.0 - math.exp(log_front) * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction, by Lentz's method."""
    numerator, denominator = 1.0, 1.0 / _not_zero(1 - (a + b) * x / (a + 1))
    value = denominator
    for m in range(1, MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            denominator = 1.0 / _not_zero(1 + term * denominator)
            numerator = _not_zero(1 + term / numerator)
            change = numerator * denominator
            value *= change
        if abs(change - 1) < CLOSE:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY


def beta_quantile(share: float, a: float, b: float) -> float:
    """Below which a variable of Beta(a, b) is with this chance."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if beta_share(middle, a, b) < share else (low, middle)
    return (low + high) / 2


def binomial_at_least(hits: int, count: int, chance: float) -> float:
    """The chance of at least so many hits."""
    if hits <= 0:
        return 1.0
    return 0.0 if hits > count else beta_share(chance, hits, count - hits + 1)


def chi_squared_beyond(value: float, degrees: int) -> float:
    """The chance that a variable of chi-squared is at least so large.

    Source: the incomplete gamma function's series, DLMF 8.7.1, and continued fraction, DLMF 8.9.2.
    """
    a, x = degrees / 2, value / 2
    if x <= 0:
        return 1.0
    log_front = a * math.log(x) - x - math.lgamma(a)
    if x < a + 1:
        term = total = 1 / a
        for n in range(1, MOST_TERMS):
            term *= x / (a + n)
            total += term
            if term < total * CLOSE:
                break
        return 1.0 - math.exp(log_front) * total
    b = x + 1 - a
    numerator, denominator = 1 / TINY, 1 / _not_zero(b)
    fraction = denominator
    for n in range(1, MOST_TERMS):
        b += 2
        part = -n * (n - a)
        denominator = 1 / _not_zero(part * denominator + b)
        numerator = _not_zero(b + part / numerator)
        fraction *= numerator * denominator
        if abs(numerator * denominator - 1) < CLOSE:
            break
    return math.exp(log_front) * fraction


def kolmogorov_beyond(value: float) -> float:
    """The chance that Kolmogorov's limit distribution is at least so large."""
    if value < 0.2:
        return 1.0
    if value < 1.1:  # where the other series converges slowly
        odd = np.arange(1, 40, 2)
        terms = np.exp(-(odd**2) * math.pi**2 / (8 * value**2))
        return max(0.0, 1 - math.sqrt(2 * math.pi) / value * float(terms.sum()))
    n = np.arange(1, 40)
    return min(1.0, 2 * float((-((-1.0) ** n) * np.exp(-2 * n**2 * value**2)).sum()))


def holm(chances: list[float]) -> NDArray[np.float64]:
    """p-values to compare with one bound: at most that chance of any false one. Source: Holm, 1979."""
    given = np.asarray(chances, float)
    order = np.argsort(given, kind="stable")
    scaled = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty(len(given))
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted
