"""What client slots say: exactly right however clients behave, and never swayed by a few of them."""

from __future__ import annotations

import math
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.confirming import (
    GUARD_FACTOR,
    Look,
    chance_of_slots,
    level,
    look,
    surprise,
)
from kohort.analysis.permutation import tail_share
from kohort.analysis.slots import Totals
from kohort.contract import SLOTS

ALPHA = 0.01
CERTAIN = math.log(GUARD_FACTOR / ALPHA) + 1


@given(st.data())
def test_a_tail_is_the_share_of_choices_that_are_counted_one_by_one(data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=9))
    chosen = data.draw(st.integers(0, len(scores)))
    at_least = data.draw(st.integers(-3, 40))
    sums = [sum(choice) for choice in combinations(scores, chosen)]
    expected = sum(total >= at_least for total in sums) / len(sums)
    assert tail_share(scores, chosen, at_least) == pytest.approx(expected, abs=1e-15)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Totals, Totals]:
    """A past and a present of up to eight slots, of which each fails in any way of its own."""
    slots = draw(st.integers(2, 8))

    def period() -> Totals:
        requests = tuple(draw(st.integers(0, 40)) for _ in range(slots))
        return Totals(requests, tuple(draw(st.integers(0, n)) for n in requests))

    return period(), period()


@given(worlds(), st.integers(1, 7))
def test_over_all_ways_to_draw_the_canary_a_small_chance_is_as_rare_as_it_says(
    world: tuple[Totals, Totals], size: int
) -> None:
    past, now = world
    surprises = surprise(past, now)
    draws = list(combinations(surprises, min(size, len(surprises))))
    chances = sorted(chance_of_slots(surprises, draw) for draw in draws)
    for rank, chance in enumerate(chances, 1):
        assert chance == 1 or rank / len(chances) <= chance + 1e-12


@given(worlds(), st.data())
def test_more_failures_of_the_canary_never_make_it_look_better(
    world: tuple[Totals, Totals], data: st.DataObject
) -> None:
    """One slot is the canary's: with more failures there, its surprise ranks no lower."""
    past, now = world
    active = [slot for slot, requests in enumerate(now.requests) if requests]
    if not active:
        return
    slot = data.draw(st.sampled_from(active))
    worse = list(now.failed)
    worse[slot] = data.draw(st.integers(int(now.failed[slot]), now.requests[slot]))
    before, after = surprise(past, now), surprise(past, Totals(now.requests, tuple(worse)))

    def rank(surprises: dict[int, float]) -> int:
        return sum(value < surprises[slot] - 1e-9 for value in surprises.values())

    assert rank(after) >= rank(before)


def test_no_requests_and_no_failures_surprise_nobody() -> None:
    nothing = Totals()
    some = Totals((5, 0, 5, 5, *[0] * (SLOTS - 4)))
    assert surprise(nothing, nothing) == {}
    assert surprise(nothing, some) == {0: 0.0, 2: 0.0, 3: 0.0}


def test_what_all_looks_may_spend_together_is_alpha() -> None:
    spent = math.fsum(level(ALPHA, 8 * 3**epoch) for epoch in range(600))
    assert 0.99 * ALPHA < spent <= ALPHA
    assert level(ALPHA, 0) == level(ALPHA, 11) > level(ALPHA, 12)


CANARY = frozenset(range(0, SLOTS, 10))


def seen(
    past: Totals, now: Totals, *, log_capital: float = CERTAIN, border: int | None = None
) -> Look:
    """A look at a canary of every tenth slot."""
    return look(past, now, CANARY, border, log_capital, ALPHA, round(sum(now.failed)))


def alike(requests: int, failed: int, canary_failed: int) -> Totals:
    """Slots of which all have as many requests, and those of each arm as many failures."""
    return Totals(
        (requests,) * SLOTS, tuple(canary_failed if s in CANARY else failed for s in range(SLOTS))
    )


def test_harm_that_all_clients_meet_is_borne_out() -> None:
    told = seen(alike(50, 1, 1), alike(50, 1, 5))
    assert told.confirmed
    assert told.told == "26 of 256 client slots bear it out, chance 1 in 1,000,000,000"


def test_clients_that_failed_before_are_no_sign_of_harm() -> None:
    told = seen(alike(1000, 10, 300), alike(50, 1, 15))
    assert not told.confirmed
    assert told.told.startswith("client slots do not bear it out: chance 1 in ")


def test_one_client_that_fails_all_the_time_is_no_sign_of_harm() -> None:
    now = Totals((200,) * SLOTS, (200, *[1] * (SLOTS - 1)))
    assert not seen(alike(50, 1, 1), now).confirmed


def test_a_slot_of_both_arms_has_no_say() -> None:
    now = Totals((100,) * SLOTS, (90, *[1] * (SLOTS - 1)))
    without = Totals((100,) * SLOTS, (1,) * SLOTS)
    past = alike(50, 1, 1)
    assert seen(past, now, border=0).chance == seen(past, without, border=0).chance


def few(**slots: tuple[int, int]) -> Totals:
    """(requests, failed) of the few slots that have any; ``s10`` is slot 10."""
    requests, failed = [0] * SLOTS, [0] * SLOTS
    for name, (sent, bad) in slots.items():
        requests[int(name[1:])], failed[int(name[1:])] = sent, bad
    return Totals(tuple(requests), tuple(failed))


def test_with_few_clients_a_guard_decides_and_says_so() -> None:
    past = few(s10=(100, 1), s11=(100, 1), s12=(100, 1))
    now = few(s10=(50, 40), s11=(50, 1), s12=(50, 0))
    told = seen(past, now)
    assert told.confirmed
    assert told.told == (
        "too few clients for an exact test (1 slots of the canary among 3); "
        "1 of them fail more than before"
    )
    assert not seen(past, now, log_capital=math.log(1 / ALPHA) + 1).confirmed


def test_with_few_clients_one_that_failed_before_is_not_the_canarys_doing() -> None:
    past = few(s10=(100, 70), s11=(100, 1), s12=(100, 1))
    now = few(s10=(50, 40), s11=(50, 1), s12=(50, 0))
    assert not seen(past, now).confirmed
    unknown = few()
    assert seen(unknown, now).confirmed
    assert not seen(unknown, few(s10=(50, 20), s11=(50, 1), s12=(50, 0))).confirmed


def test_a_look_at_many_slots_takes_no_chance() -> None:
    random = Random(1)
    requests = tuple(random.randint(1, 400) for _ in range(SLOTS))
    now = Totals(requests, tuple(min(n, random.randint(0, 9)) for n in requests))
    assert seen(alike(50, 1, 1), now) == seen(alike(50, 1, 1), now)
