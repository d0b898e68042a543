"""Counters of an application by client slot: every event once, in its slot, and none that was guessed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.reading import Reading, Sample
from kohort.analysis.split import canary_slots
from kohort.api.prometheus import Counts
from kohort.contract import SLOTS
from kohort.observe import slot_series as ledgers
from kohort.observe.counter_queries import ALL, EVENTS, Query, slot_reading, slot_series
from kohort.observe.prometheus import Answer, Point, PrometheusError
from kohort.observe.slot_series import Asked, SlotSeries, SlotSeriesLedger
from kohort.observe.slots import Split
from kohort.route.table import ModelKey

NAME = (ModelKey("shop", "burger"), "everyone/conversions")
ASKED = Asked("visits_total{…}", "slot", ("events", "all"))
COUNTS = Counts(total="t", bad="b", sum_over=("pod",), slot_label="slot")
QUERIES = tuple(
    Query(revision, events, f"{'b' if events else 't'}_{revision}")
    for revision in ("v2", "v1")
    for events in (False, True)
)
NOW = 1_000_000.0
CANARY, BORDER = canary_slots(25, "salt")
OF_CANARY, OF_STABLE = min(CANARY), min(set(range(SLOTS)) - CANARY - {BORDER})
Values = Mapping[tuple[str, bool, int | None, str], int]


def told(values: Values, at: float) -> dict[SlotSeries, Sample]:
    return {
        SlotSeries(revision, EVENTS if events else ALL, slot, pod): Sample(value, at)
        for (revision, events, slot, pod), value in values.items()
    }


class Ledger:
    """A rollout at 25 % whose counters are read every ten seconds."""

    def __init__(self, weight: int = 25) -> None:
        self.ledger, self.at, self.weight = SlotSeriesLedger(), 0.0, weight

    def take(self, values: Values, at: float | None = None) -> Reading:
        self.at += 10
        split = Split("v2", self.weight) if self.weight else None
        series = told(values, self.at if at is None else at)
        return slot_reading(self.ledger.take(NAME, "salt", self.weight, series, ASKED, split))


def arms(reading: Reading) -> dict[tuple[str, bool], int]:
    """What was counted so far, of both kinds, by arm."""
    return {(s.revision, s.events): sample.value for s, sample in reading.series.items()}


def test_what_was_counted_before_is_nobodys_and_what_comes_is_of_its_slot() -> None:
    world = Ledger()
    first: Values = {("v1", False, OF_STABLE, "a"): 900, ("v1", True, OF_STABLE, "a"): 90}
    world.take(first)
    read = world.take({("v1", False, OF_STABLE, "a"): 950, ("v1", True, OF_STABLE, "a"): 93})
    assert arms(read) == {("v1", False): 50, ("v1", True): 3}
    assert read.slots is not None
    assert (read.slots.now.requests[OF_STABLE], read.slots.now.failed[OF_STABLE]) == (50, 3)
    assert sum(read.slots.now.requests) == 50


def test_a_slots_first_event_counts_where_its_pod_was_told_before() -> None:
    world = Ledger()
    world.take({("v2", False, None, "c"): 0, ("v1", False, None, "a"): 70})
    read = world.take(
        {
            ("v2", False, OF_CANARY, "c"): 4,
            ("v2", True, OF_CANARY, "c"): 1,
            ("v1", False, None, "a"): 70,
            ("v1", False, OF_STABLE, "b"): 10**6,
        }
    )
    assert arms(read) == {
        **{("v2", False): 4, ("v2", True): 1},
        **{("v1", False): 0, ("v1", True): 0},
    }


def test_a_counter_that_fell_counts_from_nought_and_one_that_lags_is_passed_over() -> None:
    world = Ledger()
    name = ("v1", False, OF_STABLE, "a")
    world.take({name: 100})
    world.take({name: 120})
    world.take({name: 110}, at=5)
    read = world.take({name: 7})
    assert arms(read)["v1", False] == 27


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6), st.sets(st.integers(0, 5)))
def test_readings_that_are_missed_change_nothing(steps: list[int], missed: set[int]) -> None:
    both = Ledger(), Ledger()
    total = 5
    for world in both:
        world.take({("v1", False, OF_STABLE, "a"): total})
    for number, step in enumerate(steps):
        total += step
        both[0].take({("v1", False, OF_STABLE, "a"): total})
        if number not in missed:
            both[1].take({("v1", False, OF_STABLE, "a"): total})
    both[1].at = both[0].at
    last: Values = {("v1", False, OF_STABLE, "a"): total}
    assert arms(both[0].take(last)) == arms(both[1].take(last))


def test_the_past_is_what_was_counted_before_any_client_had_the_canary() -> None:
    world = Ledger(weight=0)
    world.take({("v1", False, OF_STABLE, "a"): 10})
    world.take({("v1", False, OF_STABLE, "a"): 30})
    world.weight = 25
    read = world.take({("v1", False, OF_STABLE, "a"): 45, ("v2", False, OF_CANARY, "c"): 5})
    assert read.slots is not None
    assert read.slots.past is not None
    assert read.slots.past.requests[OF_STABLE] == 20
    assert read.slots.now.requests[OF_STABLE] == 35


def test_requests_without_a_slot_are_told_as_soon_as_there_should_be_one() -> None:
    world = Ledger()
    world.take({("v1", False, None, "a"): 10})
    world.take({("v1", False, None, "a"): 10, ("v1", True, None, "a"): 9})
    read = world.take({("v1", False, None, "a"): 30, ("v1", True, None, "a"): 9})
    assert read.errors == (
        "20 of 20 were counted without slot: visits_total{…}; label what is counted with what the "
        "request says in x-kohort-slot",
    )


def test_requests_without_a_slot_before_the_rollout_are_no_fault() -> None:
    world = Ledger(weight=0)
    for number in range(5):
        read = world.take({("v1", False, None, "a"): 100 * number})
    assert read.errors == ()
    assert arms(read)["v1", False] == 0


def test_a_label_that_is_no_slot_of_the_gateways_is_told() -> None:
    world = Ledger()
    for number in range(4):
        read = world.take({("v2", False, OF_STABLE, "c"): 10 * number})
    assert "30 of 30 were counted in slots of the other revision" in read.errors[0]


def test_another_rollout_counts_from_nought() -> None:
    world = Ledger()
    for number in range(3):
        world.take({("v1", False, OF_STABLE, "a"): 10 * number})
    other = told({("v1", False, OF_STABLE, "a"): 90}, 99)
    read = slot_reading(world.ledger.take(NAME, "another", 25, other, ASKED, None))
    assert arms(read)["v1", False] == 0


def test_pods_that_are_gone_are_forgotten_where_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledgers, "SERIES_LIMIT", 3)
    world = Ledger()
    for pod in "abcdefg":
        read = world.take({("v1", False, OF_STABLE, pod): 10, ("v1", True, OF_STABLE, pod): 1})
    assert read.errors == ()
    with pytest.raises(PrometheusError, match="more than 3 series were selected"):
        world.take({("v1", False, slot, "a"): 10 for slot in range(4)})


def answer(*points: Mapping[str, str], value: float = 5) -> Answer:
    """Points with these labels, scraped a second ago."""
    values = [Point({**labels, "__name__": "t"}, (NOW, repr(value))) for labels in points]
    times = [Point(dict(labels), (NOW, repr(NOW - 1))) for labels in points]
    return Answer(values, times)


PLAIN = answer({"pod": "a", "slot": "7"})


def test_slots_and_pods_are_told_apart() -> None:
    of_canary = answer({"pod": "c", "slot": "255"}, {"pod": "c"}, {"pod": "d", "slot": "0"})
    read = slot_series(QUERIES, (of_canary, Answer(), PLAIN, PLAIN), COUNTS, NOW, 60)
    assert set(read) == {
        SlotSeries("v2", ALL, 255, "pod=c"),
        SlotSeries("v2", ALL, None, "pod=c"),
        SlotSeries("v2", ALL, 0, "pod=d"),
        SlotSeries("v1", ALL, 7, "pod=a"),
        SlotSeries("v1", EVENTS, 7, "pod=a"),
    }


@pytest.mark.parametrize("value", ["256", "-1", "07", "1.0", "²", "seven", "9" * 400])
def test_what_is_no_slot_is_told_with_its_query(value: str) -> None:
    odd = answer({"pod": "a", "slot": value})
    with pytest.raises(PrometheusError, match="is no client slot: t_v1; label what is counted"):
        slot_series(QUERIES, (PLAIN, PLAIN, odd, PLAIN), COUNTS, NOW, 60)


def test_an_event_query_that_selects_nothing_at_all_is_no_count_of_none() -> None:
    with pytest.raises(PrometheusError, match="no series: b_v2"):
        slot_series(QUERIES, (PLAIN, Answer(), PLAIN, Answer()), COUNTS, NOW, 60)
    with pytest.raises(PrometheusError, match="no series: t_v2"):
        slot_series(QUERIES, (Answer(), Answer(), PLAIN, PLAIN), COUNTS, NOW, 60)


def test_series_that_differ_in_more_than_slots_are_not_guessed_at() -> None:
    two = answer({"pod": "a", "slot": "7", "zone": "x"}, {"pod": "a", "slot": "7", "zone": "y"})
    with pytest.raises(PrometheusError, match="they differ in zone: name it in sumOver"):
        slot_series(QUERIES, (PLAIN, PLAIN, two, PLAIN), COUNTS, NOW, 60)
