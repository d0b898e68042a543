"""Slots are summed up over arms and gateways, each request once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.reading import SlotTotals, packed, unpacked
from kohort.analysis.split import canary_slots
from kohort.observe.counters import Cell
from kohort.observe.slots import FORGIVEN_SECONDS, SlotLedger, Split
from kohort.route.table import ModelKey

COHORT = (ModelKey("shop", "burger"), "everyone")
Counts = dict[str, dict[Cell, int]]


def counts(**processes: int) -> Counts:
    """Each process has counted so many requests of both arms of slot 3, and half as many failures."""

    def cells(number: int) -> dict[Cell, int]:
        bad = {"v1": number // 2, "v2": number - number // 2}
        return {
            Cell(revision, 3, took): n
            for revision, failed in bad.items()
            for took, n in ((None, failed), (5, number - failed))
        }

    return {name: cells(n) if n else {} for name, n in processes.items()}


def totals(taken: SlotTotals) -> tuple[int, int]:
    """Requests and failures of slot 3; no other slot has any."""
    now = taken.now
    assert sum(now.requests) == now.requests[3]
    well = sum(row[5] for row in taken.arms.values())
    assert now.requests[3] - now.failed[3] == well == sum(unpacked(now.took.get(5, 0)))
    return now.requests[3], now.failed[3]


def test_what_was_counted_before_the_first_look_is_nobodys() -> None:
    ledger = SlotLedger()
    assert totals(ledger.take(COHORT, "salt", 0, counts(a=100, b=0))) == (0, 0)
    assert totals(ledger.take(COHORT, "salt", 0, counts(a=110, b=7))) == (34, 17)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=8))
def test_two_gateways_count_what_one_would(new: list[tuple[int, int]]) -> None:
    one, two = SlotLedger(), SlotLedger()
    one.take(COHORT, "salt", 5, counts(a=0))
    two.take(COHORT, "salt", 5, counts(a=0, b=0))
    left = right = 0
    for more_left, more_right in new:
        left, right = left + more_left, right + more_right
        whole = one.take(COHORT, "salt", 5, counts(a=left + right))
        parts = two.take(COHORT, "salt", 5, counts(a=left, b=right))
        assert totals(whole)[0] == totals(parts)[0] == 2 * (left + right)


def test_a_gateway_that_is_gone_or_not_read_takes_nothing_away() -> None:
    ledger = SlotLedger()
    ledger.take(COHORT, "salt", 5, counts(a=0, b=0))
    ledger.take(COHORT, "salt", 5, counts(a=10, b=10))
    assert totals(ledger.take(COHORT, "salt", 5, counts(b=15))) == (50, 25)
    assert totals(ledger.take(COHORT, "salt", 5, counts(a=12, b=15))) == (54, 27)


def test_a_counter_that_fell_counts_from_nought() -> None:
    ledger = SlotLedger()
    ledger.take(COHORT, "salt", 5, counts(a=100))
    assert totals(ledger.take(COHORT, "salt", 5, counts(a=4))) == (8, 4)


def test_the_past_ends_for_good_when_the_canary_has_clients() -> None:
    ledger = SlotLedger()
    ledger.take(COHORT, "salt", 0, counts(a=0))
    past = ledger.take(COHORT, "salt", 0, counts(a=10))
    assert past.past == past.now
    for weight in (5, 0):
        later = ledger.take(COHORT, "salt", weight, counts(a=30))
        assert later.past == past.now


def test_a_ledger_that_begins_with_clients_on_the_canary_knows_no_past() -> None:
    taken = SlotLedger().take(COHORT, "salt", 5, counts(a=10))
    assert taken.past is None


def test_every_rollout_counts_anew_under_another_name() -> None:
    ledger = SlotLedger()
    ledger.take(COHORT, "salt", 5, counts(a=0))
    first = ledger.take(COHORT, "salt", 5, counts(a=10))
    second = ledger.take(COHORT, "pepper", 0, counts(a=20))
    assert totals(second) == (0, 0)
    assert first.counter != second.counter
    ledger.keep(())
    third = ledger.take(COHORT, "pepper", 0, counts(a=30))
    assert totals(third) == (0, 0)
    assert third.counter != second.counter


def test_a_canary_is_forgiven_that_its_pods_were_gone_but_not_for_long() -> None:
    now = 1000.0
    ledger = SlotLedger(lambda: now)
    seen = 0
    for seconds, fell_back, blamed in (
        (0, 0, 0),
        (500, 10, 0),
        (FORGIVEN_SECONDS - 1, 30, 0),
        (2, 45, 15),
        (500, 50, 20),
    ):
        now += seconds
        seen += 100
        counted = {"a": {Cell("v2", 3, 5): seen, Cell("v2", 3, None, True): fell_back}}
        slots = ledger.take(COHORT, "salt", 5, counted).now
        assert (slots.requests[3], slots.failed[3]) == (seen - 100 + blamed, blamed)


CANARY, BORDER = canary_slots(5, "salt")


def routed(number: int, astray: int) -> Counts:
    """Requests of a client of the canary's and of one of stable's; so many went to the other arm."""
    mine, other = min(CANARY), min(set(range(256)) - CANARY - {BORDER})
    return {
        "a": {
            Cell("v2", mine, 5): number - astray,
            Cell("v1", mine, 5): astray,
            Cell("v1", other, 5): number - astray,
            Cell("v2", other, None): astray,
        }
    }


@given(st.lists(st.integers(0, 500), max_size=8))
def test_requests_that_go_where_they_belong_never_alarm(new: list[int]) -> None:
    ledger, total = SlotLedger(), 0
    for more in [0, *new]:
        total += more
        ledger.take(COHORT, "salt", 5, routed(total, 0), Split("v2", 5))
        assert ledger.misrouted(COHORT) == ""


def test_requests_that_the_other_revision_answers_alarm_until_that_is_over() -> None:
    ledger = SlotLedger()
    for number, astray in ((0, 0), (100, 40)):
        ledger.take(COHORT, "salt", 5, routed(number, astray), Split("v2", 5))
    told = ledger.misrouted(COHORT)
    assert told.startswith("80 of 200 requests were answered by the other revision")
    for number in range(1000, 60_000, 1000):
        ledger.take(COHORT, "salt", 5, routed(number, 40), Split("v2", 5))
    assert ledger.misrouted(COHORT) == ""


def test_requests_on_their_way_while_the_weight_changes_do_not_alarm() -> None:
    ledger = SlotLedger()
    for number, split in ((0, Split("v2", 5)), (100, None), (200, Split("v2", 5))):
        ledger.take(COHORT, "salt", 5, routed(number, number // 2), split)
        assert ledger.misrouted(COHORT) == ""


@given(st.lists(st.lists(st.integers(0, 2**50), min_size=256, max_size=256), max_size=4))
def test_packed_rows_add_up_slot_by_slot(rows: list[list[int]]) -> None:
    sums = tuple(sum(column) for column in zip(*[[0] * 256, *rows], strict=True))
    assert unpacked(sum(map(packed, rows))) == sums
