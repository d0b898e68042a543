"""What harm would have been seen: more with more requests, and about as often as it is said."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.betting import HARM_BETS
from kohort.analysis.power import SEEN, dispersion, seen_rate
from kohort.analysis.slots import Totals
from kohort.contract import SLOTS
from tests.unit.test_analysis_betting import watched

requests = st.integers(0, 10**7)
rates = st.floats(1e-6, 0.5)


@given(requests, requests, rates)
def test_more_requests_show_less_harm(canary: int, stable: int, rate: float) -> None:
    few = seen_rate(canary, stable, rate, 0.01)
    many = seen_rate(10 * canary, 10 * stable, rate, 0.01)
    assert rate <= many <= few * (1 + 1e-6)
    assert few <= 1


@given(requests, requests, rates, st.floats(1, 50))
def test_clients_that_clump_show_less_harm(
    canary: int, stable: int, rate: float, spread: float
) -> None:
    alike = seen_rate(canary, stable, rate, 0.01)
    assert seen_rate(canary, stable, rate, 0.01, spread) >= alike * (1 - 1e-6)


def test_without_an_arm_no_harm_would_have_been_seen() -> None:
    assert seen_rate(0, 100, 0.01, 0.01) == seen_rate(100, 0, 0.01, 0.01) == 1


@pytest.mark.parametrize(("size", "rate"), [((50, 450), 0.01), ((100, 300), 0.05)])
def test_harm_that_is_told_as_visible_is_seen_about_that_often(
    size: tuple[int, int], rate: float
) -> None:
    scrapes, random = 40, Random(1)
    harm = seen_rate(size[0] * scrapes, size[1] * scrapes, rate, 0.01)
    assert rate < harm < 1
    found = sum(
        watched(random, HARM_BETS, 0.01, (harm, rate), size, scrapes=scrapes) is not None
        for _ in range(200)
    )
    assert SEEN - 0.1 <= found / 200 <= 0.97


def test_slots_of_clients_that_are_alike_vary_as_independent_requests_do() -> None:
    random = Random(2)
    failed = tuple(sum(random.random() < 0.05 for _ in range(100)) for _ in range(SLOTS))
    alike = Totals((100,) * SLOTS, failed)
    assert dispersion(Totals(), alike) == pytest.approx(1, abs=0.35)
    clumped = Totals((100,) * SLOTS, tuple(100 * (slot % 20 == 0) for slot in range(SLOTS)))
    assert dispersion(Totals(), clumped) > 50
    # What slots always did harms no power.
    assert (
        dispersion(Totals((10**6,) * SLOTS, tuple(10**4 * n for n in clumped.failed)), clumped) < 2
    )
    assert dispersion(Totals(), Totals((5,) * SLOTS)) == 1


def test_nothing_is_told_that_is_not_a_share() -> None:
    assert math.isfinite(seen_rate(10**9, 10**9, 1e-9, 1e-9))
