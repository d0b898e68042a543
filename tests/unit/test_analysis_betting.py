"""The bets are fair in every small world, counted exactly, and they win where there is harm."""

from __future__ import annotations

import math
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.betting import (
    HARM_BETS,
    PROOF_BETS,
    Batch,
    log_factor,
    log_mean,
    raised,
    requests_to_tell,
)
from kohort.analysis.reading import Count

ROUNDING = 1e-12
ALPHA, BETA = 0.01, 0.05


def batch(canary: tuple[int, int], stable: tuple[int, int]) -> Batch:
    """A batch of (requests, failed) of both arms."""
    return Batch(Count(*canary), Count(*stable))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Any batch in which no arm has more failures than requests."""
    canary, stable = draw(st.integers(0, 500)), draw(st.integers(0, 5000))
    failed = draw(st.integers(0, canary)), draw(st.integers(0, stable))
    return batch((canary, failed[0]), (stable, failed[1]))


def binomial(n: int, k: int, rate: float) -> float:
    """Chance of k failures of n."""
    return math.comb(n, k) * rate**k * (1 - rate) ** (n - k)


def expected_factor(
    n: int, m: int, canary: float, stable: float, bet: float, margin: float
) -> float:
    """Expectation of a bet's factor over all outcomes of n canary and m stable requests."""
    return math.fsum(
        binomial(n, x, canary)
        * binomial(m, y, stable)
        * math.exp(log_factor(batch((n, x), (m, y)), bet, margin))
        for x, y in product(range(n + 1), range(m + 1))
    )


SIZES = [(1, 1), (1, 5), (2, 3), (5, 5), (4, 9), (7, 2)]
RATES = [0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0]


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_no_bet_on_harm_gains_in_any_world_where_the_canary_is_not_worse(n: int, m: int) -> None:
    for stable, canary, bet in product(RATES, RATES, HARM_BETS):
        if canary <= stable:
            assert expected_factor(n, m, canary, stable, bet, 0.0) <= 1 + ROUNDING


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_no_bet_on_proof_gains_in_any_world_where_the_canary_is_worse_by_the_margin(
    n: int, m: int
) -> None:
    for stable, excess, bet, margin in product(
        RATES, (0.0, 0.1), PROOF_BETS, (0.0, 0.01, 0.1, 0.5)
    ):
        canary = stable + margin + excess
        if canary <= 1:
            assert expected_factor(n, m, canary, stable, bet, margin) <= 1 + ROUNDING


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_no_bet_on_harm_gains_when_failures_fall_on_exchangeable_requests(n: int, m: int) -> None:
    for failures, bet in product(range(n + m + 1), HARM_BETS):
        mean = math.fsum(
            math.comb(n, x)
            * math.comb(m, failures - x)
            / math.comb(n + m, failures)
            * math.exp(log_factor(batch((n, x), (m, failures - x)), bet))
            for x in range(max(0, failures - m), min(n, failures) + 1)
        )
        assert mean <= 1 + ROUNDING


@given(batches(), st.sampled_from([*HARM_BETS, *PROOF_BETS]))
def test_a_batch_in_which_an_arm_is_missing_says_nothing(seen: Batch, bet: float) -> None:
    nothing = Count(0, 0)
    assert log_factor(Batch(seen.canary, nothing), bet, 0.01) == 0
    assert log_factor(Batch(nothing, seen.stable), bet, 0.01) == 0


@given(batches(), st.sampled_from([0.0, 0.01, 0.5]))
def test_all_bets_at_once_gain_what_each_of_them_does(seen: Batch, margin: float) -> None:
    for bets in (HARM_BETS, PROOF_BETS):
        each = [log_factor(seen, bet, margin) for bet in bets]
        assert raised((0.0,) * len(bets), bets, seen, margin) == pytest.approx(each, abs=1e-6)


@given(batches().filter(lambda b: b.stable.requests and b.canary.failed < b.canary.requests))
def test_one_more_failure_of_the_canary_speaks_for_harm_and_against_proof(seen: Batch) -> None:
    worse = Batch(Count(seen.canary.requests, seen.canary.failed + 1), seen.stable)
    start = (0.0,) * len(HARM_BETS)
    assert log_mean(raised(start, HARM_BETS, worse)) > log_mean(raised(start, HARM_BETS, seen))
    assert log_mean(raised(start, PROOF_BETS, worse, 0.01)) < log_mean(
        raised(start, PROOF_BETS, seen, 0.01)
    )


@given(batches().filter(lambda b: b.canary.requests and b.stable.failed < b.stable.requests))
def test_one_more_failure_of_stable_speaks_against_harm(seen: Batch) -> None:
    worse = Batch(seen.canary, Count(seen.stable.requests, seen.stable.failed + 1))
    start = (0.0,) * len(HARM_BETS)
    assert log_mean(raised(start, HARM_BETS, worse)) < log_mean(raised(start, HARM_BETS, seen))


def test_the_information_limit_is_the_published_one() -> None:
    assert requests_to_tell(0.1, 0.005, 0.01, ALPHA) == pytest.approx(27_077, rel=0.001)
    assert requests_to_tell(0.1, 0.01, 0.02, ALPHA) == pytest.approx(13_448, rel=0.001)
    assert requests_to_tell(0.1, 0.01, 0.05, ALPHA) == pytest.approx(1_350, rel=0.001)
    assert requests_to_tell(0.1, 0.01, 0.01, ALPHA) == math.inf


def draws(random: Random, n: int, rate: float) -> int:
    """Failures of n requests, by counting the gaps between failures: quick where they are rare."""
    failed, at = 0, 0
    while True:
        at += int(math.log(1 - random.random()) / math.log(1 - rate)) + 1
        if at > n:
            return failed
        failed += 1


def watched(
    random: Random,
    bets: tuple[float, ...],
    border: float,
    rates: tuple[float, float],
    size: tuple[int, int],
    margin: float = 0.0,
    scrapes: int = 60,
) -> tuple[int, int] | None:
    """(scrapes, canary failures) until the border is crossed; None when it never is."""
    logs: tuple[float, ...] = (0.0,) * len(bets)
    failures = 0
    for scrape in range(1, scrapes + 1):
        failed = draws(random, size[0], rates[0]), draws(random, size[1], rates[1])
        failures += failed[0]
        logs = raised(logs, bets, batch((size[0], failed[0]), (size[1], failed[1])), margin)
        if log_mean(logs) >= math.log(1 / border):
            return scrape, failures
    return None


def test_a_harmless_canary_is_hardly_ever_accused_however_often_it_is_looked_at() -> None:
    random = Random(1)
    accused = sum(
        watched(random, HARM_BETS, ALPHA, (0.01, 0.01), (50, 450)) is not None for _ in range(2000)
    )
    assert accused <= 0.01 * 2000


def test_a_fivefold_failure_rate_is_caught_after_about_ten_failures() -> None:
    random = Random(2)
    ends = [watched(random, HARM_BETS, ALPHA, (0.05, 0.01), (50, 450)) for _ in range(300)]
    caught = sorted(end for end in ends if end is not None)
    assert len(caught) >= 0.99 * len(ends)
    assert sorted(failures for _, failures in caught)[len(caught) // 2] <= 12
    assert caught[len(caught) // 2][0] <= 5


def test_a_canary_that_always_fails_is_caught_within_two_scrapes() -> None:
    caught = watched(Random(3), HARM_BETS, ALPHA, (0.999, 0.01), (5, 45))
    assert caught is not None
    assert caught[0] <= 2


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05])
def test_a_canary_worse_by_the_margin_is_hardly_ever_passed(rate: float) -> None:
    random = Random(4)
    passed = sum(
        watched(random, PROOF_BETS, BETA, (rate + 0.01, rate), (50, 150), 0.01) is not None
        for _ in range(1000)
    )
    assert passed <= 0.05 * 1000


@pytest.mark.parametrize(("rate", "scrapes"), [(0.001, 16), (0.01, 60), (0.05, 250)])
def test_an_equal_canary_is_proven_not_worse(rate: float, scrapes: int) -> None:
    random = Random(5)
    passed = sum(
        watched(random, PROOF_BETS, BETA, (rate, rate), (50, 150), 0.01, scrapes) is not None
        for _ in range(100)
    )
    assert passed >= 80
