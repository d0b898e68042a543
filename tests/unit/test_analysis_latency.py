"""Evidence on durations: what it counts, what it survives, and what it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from kohort.analysis.durations import CLASSES
from kohort.analysis.latency import State, advance, begin, decode, unseen_since
from kohort.analysis.reading import Reading, Row, Slots, SlotTotals, packed
from kohort.analysis.sequential import Rates, Trial, relabelled
from kohort.analysis.slots import decode as decode_slots
from kohort.analysis.split import canary_slots
from kohort.api.analysis import Metric, MetricName
from kohort.api.status import Evidence, Tally, Verdict
from kohort.contract import SLOTS

START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
LATENCY = Metric(name=MetricName.LATENCY)
TRIAL = Trial(canary="v2", stable="v1", salt="salt")
RATES = Rates(alpha=0.01, beta=0.05)
WEIGHT = 25
CANARY, _ = canary_slots(WEIGHT, TRIAL.salt)
NOBODY = Slots((0,) * SLOTS, (0,) * SLOTS)
FAST = (7, 7, 7, 8, 8, 9)
"""Classes of duration that answers take in turn: from 18 ms on."""


class Gateway:
    """Counts what clients of all slots send, in turn; the canary's have other durations."""

    def __init__(self, past: int = 4000) -> None:
        self.took = [[0] * SLOTS for _ in range(CLASSES)]
        self.arms = {"v1": [0] * CLASSES, "v2": [0] * CLASSES}
        self.counter, self.random = "one", Random(1)
        for number in range(past):
            self.answer(number % SLOTS, FAST[number % len(FAST)], "v1")
        self.past = self.slots()

    def answer(self, slot: int, took: int, arm: str | None = None) -> None:
        self.took[took][slot] += 1
        self.arms[arm or ("v2" if slot in CANARY else "v1")][took] += 1

    def serve(self, rounds: int, slower: int = 0) -> None:
        for number in range(rounds * SLOTS):
            slot = number % SLOTS
            took = self.random.choice(FAST)
            self.answer(slot, took + (slower if slot in CANARY else 0))

    def slots(self) -> Slots:
        took = {k: packed(row) for k, row in enumerate(self.took) if any(row)}
        return Slots(tuple(map(sum, zip(*self.took, strict=True))), (0,) * SLOTS, took)

    def read(self, second: int, errors: tuple[str, ...] = ()) -> Reading:
        arms = {arm: tuple(row) for arm, row in self.arms.items()}
        totals = SlotTotals(self.counter, self.slots(), self.past, arms)
        return Reading(START.timestamp() + second, {}, errors, totals)


def started(gateway: Gateway) -> Evidence:
    return begin(LATENCY, gateway.read(0), TRIAL, WEIGHT, START)


def after(evidence: Evidence, *readings: Reading, metric: Metric = LATENCY) -> Evidence:
    for reading in readings:
        now = datetime.fromtimestamp(reading.at, UTC)
        evidence = advance(evidence, reading, TRIAL, metric, RATES, now)
    return evidence


def watched(gateway: Gateway, scrapes: int, slower: int = 0, metric: Metric = LATENCY) -> Evidence:
    evidence = started(gateway)
    for second in range(1, scrapes + 1):
        gateway.serve(1, slower)
        evidence = after(evidence, gateway.read(second), metric=metric)
    return evidence


def test_a_slower_canary_fails_with_figures_and_stays_failed() -> None:
    gateway = Gateway()
    evidence = watched(gateway, 4, slower=2)
    assert evidence.verdict is Verdict.FAIL
    assert evidence.message.startswith("canary answers took ")
    assert " at the 95th percentile, those of stable " in evidence.message
    assert "client slots bear it out" in evidence.message
    assert evidence.slow_from == 150
    gateway.serve(1)
    assert after(evidence, gateway.read(99)) == evidence


def test_a_canary_that_is_as_fast_is_told_so() -> None:
    evidence = watched(Gateway(), 20)
    assert evidence.verdict is Verdict.INSUFFICIENT
    assert evidence.message.endswith("; not slower")
    assert evidence.canary.requests == 20 * len(CANARY)
    assert evidence.stable.requests == 20 * (SLOTS - len(CANARY))


def test_what_is_tolerated_is_no_reason_to_go_back() -> None:
    tolerant = Metric(name=MetricName.LATENCY, margin="300%")
    evidence = watched(Gateway(), 6, slower=2, metric=tolerant)
    assert evidence.verdict is Verdict.INSUFFICIENT
    assert evidence.message.endswith("; slower, but by less than 300% or 2 ms")


def test_slowness_that_a_few_clients_have_is_not_the_canarys_doing() -> None:
    gateway = Gateway()
    evidence = started(gateway)
    for second in range(1, 8):
        gateway.serve(1)
        for _ in range(60):
            gateway.answer(min(CANARY), 14)
        evidence = after(evidence, gateway.read(second))
    assert evidence.verdict is Verdict.INSUFFICIENT
    assert "if requests were independent, but client slots do not bear it out" in evidence.message


def test_a_slow_far_end_alone_is_seen() -> None:
    random, gateway = Random(1), Gateway(past=20_000)
    evidence = started(gateway)
    for second in range(1, 41):
        for slot in range(SLOTS):
            for _ in range(4):
                late = random.random() < (0.06 if slot in CANARY else 0.01)
                gateway.answer(slot, 13 if late else random.choice(FAST))
        evidence = after(evidence, gateway.read(second))
    assert evidence.verdict is Verdict.FAIL


def test_before_enough_is_known_of_stable_nothing_is_bet() -> None:
    gateway = Gateway(past=0)
    evidence = started(gateway)
    assert evidence.slow_from is None
    gateway.serve(1, slower=5)
    evidence = after(evidence, gateway.read(1))
    assert decode(evidence.state) == structs.replace(
        decode(evidence.state) or State(), logs=State().logs
    )
    evidence = after(evidence, *_later(gateway, 2, 30, slower=5))
    assert evidence.verdict is Verdict.FAIL


def _later(gateway: Gateway, first: int, last: int, slower: int) -> list[Reading]:
    readings = []
    for second in range(first, last):
        gateway.serve(1, slower)
        readings.append(gateway.read(second))
    return readings


def test_the_same_reading_twice_and_an_older_one_add_nothing() -> None:
    gateway = Gateway()
    evidence = watched(gateway, 3)
    assert after(evidence, gateway.read(3)) == evidence
    assert after(evidence, gateway.read(1)) == evidence


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_an_operator_killed_between_readings_goes_on_as_if_nothing_had_happened(
    rounds: list[int],
) -> None:
    gateway = Gateway(past=512)
    evidence = survivor = started(gateway)
    for second, more in enumerate(rounds, 1):
        gateway.serve(more)
        evidence = after(evidence, gateway.read(second))
        stored = msgspec.json.encode(survivor)
        survivor = after(msgspec.json.decode(stored, type=Evidence), gateway.read(second))
    assert survivor == evidence


def test_an_operator_that_starts_anew_counts_nothing_twice() -> None:
    gateway = Gateway()
    evidence = watched(gateway, 3)
    gateway.counter, gateway.past = "another", NOBODY
    evidence = after(evidence, replace(gateway.read(4)))
    assert evidence.canary.requests == 3 * len(CANARY)
    gateway.serve(1)
    evidence = after(evidence, gateway.read(5))
    assert evidence.canary.requests == 4 * len(CANARY)
    slots = decode_slots(evidence.slots)
    assert slots is not None
    assert sum(slots.since().requests) == 4 * SLOTS


def test_a_missing_arm_is_named_and_where_nobody_counts_none_is_missing() -> None:
    gateway = Gateway()
    evidence = started(gateway)
    for slot in set(range(SLOTS)) - CANARY:
        gateway.answer(slot, 7)
    evidence = after(evidence, gateway.read(1))
    assert evidence.message == "no request of the canary was seen yet"
    assert unseen_since(evidence, START) == ("canary",)
    uncounted = begin(LATENCY, Reading(START.timestamp(), {}), TRIAL, WEIGHT, START)
    assert unseen_since(uncounted, START) == ()


def test_a_gateway_that_cannot_be_read_is_no_verdict() -> None:
    gateway = Gateway()
    evidence = after(watched(gateway, 2), gateway.read(3, ("a: refused",)))
    assert evidence.verdict is Verdict.METRICS_ERROR
    assert evidence.message.startswith("counters cannot be used: a: refused; canary answers took")


def test_slots_are_labelled_anew_at_another_weight() -> None:
    gateway = Gateway()
    evidence = relabelled(watched(gateway, 2), 50)
    slots = decode_slots(evidence.slots)
    assert slots is not None
    assert (sum(slots.since(2).requests), slots.weight) == (0, 50)


@pytest.mark.parametrize("state", ["", "0:{}", "1:{", "1:[]", '1:{"logs":[0.0]}', '1:{"near":99}'])
def test_state_of_another_version_is_never_guessed_at(state: str) -> None:
    gateway = Gateway()
    evidence = structs.replace(watched(gateway, 2), state=state)
    anew = after(evidence, gateway.read(9))
    assert (anew.canary, anew.verdict) == (Tally(), Verdict.INSUFFICIENT)
    assert "started anew" in anew.message


def test_state_stays_small_however_much_is_counted() -> None:
    gateway = Gateway(past=0)
    big: Row = (10**12,) * CLASSES
    gateway.arms = {"v1": list(big), "v2": list(big)}
    gateway.took = [[10**9] * SLOTS for _ in range(CLASSES)]
    evidence = after(started(gateway), gateway.read(1))
    assert len(evidence.state) <= 16384
    assert len(evidence.slots) <= 18432
