"""Who moves when a weight changes: exact shares, whole slots, nobody forgotten."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.contract import SLOTS, UNITS_PER_SLOT, WEIGHT_UNITS
from kohort.route.split import split

weights = st.integers(0, 100)


def canary_units(weight: int) -> set[int]:
    """Units that the canary has, counted as Envoy counts: entry after entry."""
    units: set[int] = set()
    begin = 0
    for share in split(weight):
        if share.canary:
            units.update(range(begin, begin + share.units))
        begin += share.units
    return units


@given(weights)
def test_any_whole_percentage_is_exact_and_the_total_never_changes(weight: int) -> None:
    shares = split(weight)
    assert sum(share.units for share in shares) == WEIGHT_UNITS
    assert sum(share.units for share in shares if share.canary) * 100 == weight * WEIGHT_UNITS


@given(weights, weights)
def test_raising_a_weight_only_adds_clients_and_lowering_only_removes(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert canary_units(low) <= canary_units(high)


@given(weights)
def test_every_slot_has_the_same_clients_at_every_weight(weight: int) -> None:
    begin = 0
    for share in split(weight):
        assert share.units > 0
        first, last = begin, begin + share.units - 1
        assert share.slot == first // UNITS_PER_SLOT == last // UNITS_PER_SLOT
        begin += share.units


@given(weights)
def test_only_the_slot_at_the_border_has_both_arms(weight: int) -> None:
    arms = Counter(share.slot for share in split(weight))
    assert set(arms) == set(range(SLOTS))
    assert sum(count == 2 for count in arms.values()) <= 1


@pytest.mark.parametrize("weight", [-1, 101])
def test_a_weight_beyond_a_percentage_is_refused(weight: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        split(weight)
