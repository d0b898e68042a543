"""Bets on durations are fair in every small world, counted exactly, and they win where there is harm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.betting import log_mean
from kohort.analysis.distortions import DISTORTIONS, bets, raised
from kohort.analysis.durations import CLASSES, quantile, slow_bounds, slower
from kohort.analysis.reading import Row
from kohort.contract import TOOK_MS

ROUNDING = 1e-9
START = (0.0,) * len(DISTORTIONS)
ALPHA = 0.01

rows = st.lists(st.integers(0, 10**6), min_size=CLASSES, max_size=CLASSES).map(tuple)


def row(*counts: int) -> Row:
    """Counts of the first classes; the others have none."""
    return (*counts, *(0,) * (CLASSES - len(counts)))


def outcomes(requests: int, classes: int) -> Iterator[Row]:
    """All ways in which requests can fall into classes."""
    if classes == 1:
        yield (requests,)
        return
    for first in range(requests + 1):
        for rest in outcomes(requests - first, classes - 1):
            yield (first, *rest)


def chance(outcome: Row, shares: tuple[float, ...]) -> float:
    """That of an outcome, with these shares of each class."""
    ways = math.factorial(sum(outcome))
    for count in outcome:
        ways //= math.factorial(count)
    return ways * math.prod(p**n for p, n in zip(shares, outcome, strict=True))


DISTRIBUTIONS = [(0.6, 0.3, 0.1), (0.2, 0.3, 0.5), (0.05, 0.05, 0.9), (1.0, 0.0, 0.0)]
REFERENCES = [row(60, 30, 10), row(1000), row(*(1,) * CLASSES), row(0, 0, 0, 50)]


def slower_or_equal(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether at every duration at least as great a share of one takes longer."""
    return all(a <= b + 1e-12 for a, b in zip(accumulate(one), accumulate(other), strict=True))


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (2, 3), (4, 2)])
def test_no_bet_gains_in_any_world_where_the_canary_is_not_slower(
    n: int, m: int, reference: Row
) -> None:
    for canary, stable in product(DISTRIBUTIONS, repeat=2):
        if not slower_or_equal(stable, canary):
            continue
        means = [0.0] * len(START)
        for x, y in product(outcomes(n, 3), outcomes(m, 3)):
            weight = chance(x, canary) * chance(y, stable)
            for bet, log in enumerate(raised(START, reference, row(*x), row(*y))):
                means[bet] += weight * math.exp(log)
        assert max(means) <= 1 + ROUNDING


@given(rows)
def test_ratios_never_fall_with_duration_and_are_bounded(reference: Row) -> None:
    for ratios, logs in bets(reference):
        assert list(ratios) == sorted(ratios)
        assert ratios[0] > 0
        assert list(logs) == [math.log(ratio) for ratio in ratios]


@given(rows, rows)
def test_a_batch_in_which_an_arm_is_missing_says_nothing(reference: Row, seen: Row) -> None:
    assert raised(START, reference, seen, row()) == START
    assert raised(START, reference, row(), seen) == START


@given(rows, rows, rows, st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1))
def test_it_speaks_against_the_canary_when_the_slower_of_two_requests_is_its_own(
    reference: Row, canary: Row, stable: Row, one: int, other: int
) -> None:
    def more(seen: Row, index: int) -> Row:
        return tuple(n + (k == index) for k, n in enumerate(seen))

    fast, slow = sorted((one, other))
    better = raised(START, reference, more(canary, fast), more(stable, slow))
    worse = raised(START, reference, more(canary, slow), more(stable, fast))
    assert all(b <= w + 1e-6 * abs(w) for b, w in zip(better, worse, strict=True))


@given(rows.filter(any))
def test_slow_begins_at_two_different_classes(reference: Row) -> None:
    near, far = slow_bounds(reference)
    assert 0 < near < far < CLASSES


@given(rows.filter(any), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_quantiles_rise_with_their_share(seen: Row, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert quantile(seen, low) <= quantile(seen, high) * (1 + ROUNDING)


@given(rows)
def test_what_is_as_fast_is_not_slower(seen: Row) -> None:
    assert not slower(seen, seen, 0.0)


def test_slower_is_what_takes_longer_by_the_margin_and_by_what_anybody_notices() -> None:
    fast, slow = row(*(0,) * 8, 100), row(*(0,) * 9, 100)
    assert slower(slow, fast, 0.6)
    assert not slower(slow, fast, 1.0)
    assert not slower(row(0, 100), row(100), 0.1)
    assert not slower(row(*(0,) * 9, 5), fast, 0.1)


def drawn(random: Random, requests: int, factor: float = 1.0, beyond: float = 0.0) -> Row:
    """Durations of requests, lognormal about 25 ms; longer by a factor, beyond a duration or all."""
    counts = [0] * CLASSES
    for _ in range(requests):
        took = random.lognormvariate(math.log(25), 0.6)
        took *= factor if took >= beyond else 1.0
        counts[max(k for k, bound in enumerate(TOOK_MS) if took >= bound)] += 1
    return tuple(counts)


def accused_after(random: Random, factor: float, beyond: float, scrapes: int) -> int | None:
    """Requests of both arms after which bets accuse a canary that has a tenth of them."""
    reference, logs = drawn(random, 2000), START
    for scrape in range(1, scrapes + 1):
        canary, stable = drawn(random, 25, factor, beyond), drawn(random, 225)
        logs = raised(logs, reference, canary, stable)
        if log_mean(logs) >= math.log(1 / ALPHA):
            return 250 * scrape
    return None


def test_a_canary_that_is_as_fast_is_hardly_ever_accused() -> None:
    random = Random(1)
    assert sum(accused_after(random, 1.0, 0.0, 20) is not None for _ in range(150)) <= 4


@pytest.mark.parametrize(
    ("factor", "beyond", "median"), [(1.25, 0.0, 1750), (1.5, 0.0, 750), (2.0, 60.0, 2500)]
)
def test_a_slower_canary_is_accused_soon(factor: float, beyond: float, median: int) -> None:
    random = Random(2)
    ends = sorted(accused_after(random, factor, beyond, 60) or 10**9 for _ in range(25))
    assert ends[len(ends) // 2] <= median
