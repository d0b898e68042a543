"""A proof over slots: not worse is said of slots that bear it out, not of a lucky draw."""

from __future__ import annotations

import pytest

from kohort.analysis.proving import FEWEST_SLOTS, chance_of_luck
from kohort.analysis.slots import Totals
from kohort.contract import SLOTS

CANARY = frozenset(range(0, SLOTS, 4))
PAST = Totals((100,) * SLOTS, (1,) * SLOTS)


def slots(stable: int, canary: int, requests: int = 1000) -> Totals:
    """All slots alike within an arm, but for one more or less failure here and there."""
    failed = tuple((canary if s in CANARY else stable) + (-1) ** (s // 4) for s in range(SLOTS))
    return Totals((requests,) * SLOTS, failed)


def test_an_equal_canary_is_proven_and_one_at_the_margin_is_not() -> None:
    assert chance_of_luck(PAST, slots(10, 10), CANARY, None, 0.01) < 1e-6
    assert chance_of_luck(PAST, slots(10, 20), CANARY, None, 0.01) == pytest.approx(0.5, abs=0.01)


def test_more_failures_of_the_canary_never_make_a_proof_easier() -> None:
    chances = [chance_of_luck(PAST, slots(10, bad), CANARY, None, 0.01) for bad in range(8, 30)]
    assert chances == sorted(chances)


def test_clients_that_differ_much_prove_less() -> None:
    """As many failures in all, of a few slots and of every slot."""
    few = Totals((1000,) * SLOTS, tuple(160 if s % 16 == 1 else 0 for s in range(SLOTS)))
    every = Totals((1000,) * SLOTS, tuple(0 if s in CANARY else 14 - s % 2 for s in range(SLOTS)))
    assert sum(few.failed) == pytest.approx(sum(every.failed), rel=0.05)
    unlike, alike = (chance_of_luck(Totals(), each, CANARY, None, 0.01) for each in (few, every))
    assert unlike > 1e6 * alike


def test_no_failure_at_all_proves_what_so_many_requests_can() -> None:
    none = Totals((10,) * SLOTS)
    more = Totals((10_000,) * SLOTS)
    assert chance_of_luck(Totals(), none, CANARY, None, 0.001) > 0.1
    assert chance_of_luck(Totals(), more, CANARY, None, 0.001) < 1e-6


def test_few_slots_prove_nothing() -> None:
    few = frozenset(range(FEWEST_SLOTS))
    assert chance_of_luck(PAST, slots(10, 10), few, None, 0.01) < 1
    assert chance_of_luck(PAST, slots(10, 10), few, 0, 0.01) == 1
