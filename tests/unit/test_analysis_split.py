"""Who moves when a weight changes: exact shares, whole slots, nobody forgotten, others each time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.split import canary_order, split
from kohort.contract import SLOTS, UNITS_PER_SLOT, WEIGHT_UNITS

weights = st.integers(0, 100)
salts = st.text(max_size=20)


def canary_units(weight: int, salt: str) -> set[int]:
    """Units that the canary has, counted as Envoy counts: entry after entry."""
    units: set[int] = set()
    begin = 0
    for share in split(weight, salt):
        if share.canary:
            units.update(range(begin, begin + share.units))
        begin += share.units
    return units


@given(weights, salts)
def test_any_whole_percentage_is_exact_and_the_total_never_changes(weight: int, salt: str) -> None:
    shares = split(weight, salt)
    assert sum(share.units for share in shares) == WEIGHT_UNITS
    assert sum(share.units for share in shares if share.canary) * 100 == weight * WEIGHT_UNITS


@given(weights, weights, salts)
def test_raising_a_weight_only_adds_clients_and_lowering_only_removes(
    a: int, b: int, salt: str
) -> None:
    low, high = sorted((a, b))
    assert canary_units(low, salt) <= canary_units(high, salt)


@given(weights, salts)
def test_every_slot_has_the_same_clients_at_every_weight_and_in_every_rollout(
    weight: int, salt: str
) -> None:
    begin = 0
    for share in split(weight, salt):
        assert share.units > 0
        first, last = begin, begin + share.units - 1
        assert share.slot == first // UNITS_PER_SLOT == last // UNITS_PER_SLOT
        begin += share.units


@given(weights, salts)
def test_only_the_slot_at_the_border_has_both_arms(weight: int, salt: str) -> None:
    arms = Counter(share.slot for share in split(weight, salt))
    assert set(arms) == set(range(SLOTS))
    assert sum(count == 2 for count in arms.values()) <= 1


@given(weights, salts)
def test_the_canary_has_the_slots_that_come_first_in_the_order_of_the_salt(
    weight: int, salt: str
) -> None:
    whole = weight * SLOTS // 100
    canary = {s.slot for s in split(weight, salt) if s.canary and s.units == UNITS_PER_SLOT}
    assert canary == set(canary_order(salt)[:whole])


@given(salts)
def test_every_slot_has_its_turn_once(salt: str) -> None:
    assert sorted(canary_order(salt)) == list(range(SLOTS))


def test_the_order_of_a_salt_is_the_same_on_every_replica_and_in_every_release() -> None:
    assert canary_order("salt")[:8] == (82, 215, 88, 59, 27, 31, 12, 242)


def test_every_slot_comes_first_equally_often_over_many_salts() -> None:
    """Chi-square over the slots of the first eighth: mean 255 − 32, deviation about 21."""
    salts, first = 4096, SLOTS // 8
    seen = Counter(slot for salt in range(salts) for slot in canary_order(str(salt))[:first])
    expected = salts * first / SLOTS
    deviation = sum((seen[slot] - expected) ** 2 / expected for slot in range(SLOTS))
    assert 120 < deviation < 330


def test_rollouts_with_different_salts_have_no_more_clients_in_common_than_chance() -> None:
    """A tenth of a tenth, with the spread of drawing 25 of 256 slots without putting back."""
    units = [len(canary_units(10, f"{n}") & canary_units(10, f"{n + 1}")) for n in range(400)]
    mean = sum(units) / len(units) / WEIGHT_UNITS
    assert abs(mean - 0.01) < 0.001
    assert max(units) < WEIGHT_UNITS * 0.05


@pytest.mark.parametrize("weight", [-1, 101])
def test_a_weight_beyond_a_percentage_is_refused(weight: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        split(weight, "salt")
