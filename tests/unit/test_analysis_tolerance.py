"""Counters that tell client slots: only harm that many clients have sends a canary back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kohort.analysis import counts
from kohort.analysis.confirming import surprise
from kohort.analysis.reading import Reading, Sample, Series, Slots, SlotTotals
from kohort.analysis.sequential import Rates, Trial, relabelled
from kohort.analysis.slots import Totals
from kohort.analysis.slots import decode as decode_slots
from kohort.analysis.split import canary_slots
from kohort.analysis.tolerance import Border, worse
from kohort.api.analysis import Metric
from kohort.api.prometheus import Counts, MarginType
from kohort.api.status import Evidence, Verdict
from kohort.contract import SLOTS

WEIGHT = 25
TRIAL = Trial("v2", "v1", "salt", WEIGHT)
CANARY, _ = canary_slots(WEIGHT, "salt")
RATES = Rates(0.01, 0.05)
BAD = Metric(name="complaints", counts=Counts(total="t", bad="b", slot_label="slot"))
GOOD = Metric(name="conversions", counts=Counts(total="t", good="g", slot_label="slot"))
Shares = Callable[[int, bool], float]
"""Of a slot, and whether the canary answers it: the share of its requests that are events."""
EACH = 20


def evidence(
    metric: Metric, shares: Shares, looks: int = 60, before: float | None = None
) -> Evidence:
    """After so many readings, of 20 requests of each slot, and ten of the past.

    ``before``: the share of events then, if it was another one.
    """
    seen = counts.begin(metric, None, TRIAL, WEIGHT, datetime.fromtimestamp(1e9, UTC))
    for look in range(looks):
        seen = after(seen, metric, shares, look, before=before)
    return seen


def after(
    seen: Evidence,
    metric: Metric,
    shares: Shares,
    look: int,
    counter: str = "one",
    before: float | None = None,
) -> Evidence:
    read = reading(shares, look, counter, before)
    now = datetime.fromtimestamp(read.at, UTC)
    return counts.advance(seen, read, TRIAL, metric, RATES, now)


def reading(shares: Shares, look: int, counter: str, before: float | None) -> Reading:
    at, earlier = 1e9 + 10 * (look + 1), 10 * EACH
    rates = [shares(slot, False) if before is None else before for slot in range(SLOTS)]
    past = [round(earlier * rate) for rate in rates]
    own = [round(look * EACH * shares(slot, slot in CANARY)) for slot in range(SLOTS)]
    now = Slots((earlier + EACH * look,) * SLOTS, tuple(map(sum, zip(past, own, strict=True))))
    series = {}
    for revision, theirs in (("v2", CANARY), ("v1", set(range(SLOTS)) - CANARY)):
        known = 0 if revision == "v2" else sum(past)
        sent = len(theirs) * EACH * look
        series[Series(revision, False, counter)] = Sample(sent, at)
        series[Series(revision, True, counter)] = Sample(known + sum(own[s] for s in theirs), at)
    totals = SlotTotals(counter, now, Slots((earlier,) * SLOTS, tuple(past)))
    return Reading(at, {}, slots=totals, series=series, sampled=True)


def test_harm_in_all_slots_sends_the_canary_back_with_what_slots_say() -> None:
    told = evidence(BAD, lambda slot, canary: 0.1 if canary else 0.05)
    assert told.verdict is Verdict.FAIL
    assert "of the canary were bad against" in told.message
    assert "64 of 256 client slots bear it out, chance 1 in " in told.message


def test_a_few_clients_that_complain_all_day_send_nobody_back_and_are_told() -> None:
    loud = sorted(CANARY)[:3]
    told = evidence(BAD, lambda slot, _: 1.0 if slot in loud else 0.05)
    assert (told.verdict, told.undecided) == (Verdict.INSUFFICIENT, False)
    assert counts.accused(told, RATES.alpha)
    assert "if requests were independent, but client slots do not bear it out" in told.message


@pytest.mark.parametrize("usual", [0.1, 0.9])
def test_fewer_good_ones_in_all_slots_send_the_canary_back(usual: float) -> None:
    worse_by = 0.05
    told = evidence(GOOD, lambda slot, canary: usual - worse_by * canary)
    assert told.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("metric", "at_border"),
    [
        (structs.replace(BAD, margin="5%"), 0.15),
        (structs.replace(GOOD, margin="5%"), 0.05),
    ],
)
def test_harm_of_the_margin_sends_nobody_back(metric: Metric, at_border: float) -> None:
    told = evidence(metric, lambda slot, canary: at_border if canary else 0.1)
    assert told.verdict is not Verdict.FAIL


@pytest.mark.parametrize("metric", [BAD, GOOD])
@pytest.mark.parametrize("usual", [0.1, 0.9])
def test_an_equal_canary_is_proven_within_a_margin_when_slots_bear_it_out(
    metric: Metric, usual: float
) -> None:
    told = evidence(structs.replace(metric, margin="5%"), lambda slot, _: usual)
    assert told.verdict is Verdict.PASS
    assert counts.proof_share(told, RATES.beta) == 1.0


def test_a_proof_that_slots_do_not_bear_out_is_none() -> None:
    loud = sorted(set(range(SLOTS)) - CANARY)[:10]
    margin = structs.replace(BAD, margin="1%")
    told = evidence(margin, lambda slot, _: 0.5 if slot in loud else 0.05, before=0.05)
    assert told.verdict is Verdict.INSUFFICIENT
    assert "client slots do not bear it out: chance" in told.message


def test_a_proof_at_one_weight_is_none_at_the_next() -> None:
    told = evidence(structs.replace(BAD, margin="5%"), lambda slot, _: 0.1)
    assert told.verdict is Verdict.PASS
    later = relabelled(told, 50)
    assert (later.verdict, later.message) == (
        Verdict.INSUFFICIENT,
        "nothing was seen at 50% yet",
    )


def test_an_operator_that_starts_anew_counts_nothing_twice() -> None:
    plain = evidence(BAD, lambda slot, _: 0.1, looks=10)
    again = plain
    for look in range(3, 6):
        again = after(again, BAD, lambda slot, _: 0.1, look + 20, "other")
    assert again.canary.requests == plain.canary.requests + 2 * EACH * len(CANARY)
    slots = decode_slots(again.slots)
    assert slots is not None
    assert sum(slots.since().requests) == (9 + 2) * EACH * SLOTS


def test_a_label_that_is_added_in_the_middle_begins_anew_at_the_weight_that_there_is() -> None:
    plain = Metric(name="complaints", counts=Counts(total="t", bad="b"))
    seen = counts.begin(plain, None, TRIAL, WEIGHT, datetime.fromtimestamp(1e9, UTC))
    seen = after(seen, plain, lambda slot, _: 0.1, 1)
    assert seen.slots == ""
    seen = after(seen, BAD, lambda slot, _: 0.1, 2)
    assert seen.message == counts.CHANGED
    slots = decode_slots(seen.slots)
    assert slots is not None
    assert slots.weight == WEIGHT


@given(st.randoms(use_true_random=False), st.sampled_from([2, 1.25]), st.sampled_from([0, 0.125]))
def test_a_canary_at_the_margin_looks_as_it_would_without_harm(
    random: Random, ratio: float, added: float
) -> None:
    requests = [8 * random.randint(0, 30) for _ in range(SLOTS)]
    bad = [random.randint(0, each // 4) for each in requests]
    harmed = [
        ratio * b + added * n if slot in CANARY else b
        for slot, (n, b) in enumerate(zip(requests, bad, strict=True))
    ]
    past = Totals()
    harmless = surprise(past, Totals(tuple(requests), tuple(bad)))
    told = worse(past, Totals(tuple(requests), tuple(harmed)), CANARY, Border(ratio, added))
    assert told == pytest.approx(harmless)


@given(st.randoms(use_true_random=False))
def test_of_common_bad_ones_the_good_ones_are_counted(random: Random) -> None:
    requests = [random.randint(1, 30) for _ in range(SLOTS)]
    good = [random.randint(0, each // 3) for each in requests]
    bad = tuple(n - g for n, g in zip(requests, good, strict=True))
    told = worse(Totals(), Totals(tuple(requests), bad), CANARY, Border(1.0, 0.0))
    of_good = surprise(Totals(), Totals(tuple(requests), tuple(good)))
    assert told == {slot: -value for slot, value in of_good.items()}


def test_a_relative_margin_of_good_ones_is_taken_off_too() -> None:
    counted = Counts(total="t", good="g", slot_label="slot", margin_type=MarginType.RELATIVE)
    lenient = Metric(name="conversions", margin="20%", counts=counted)
    at_border = evidence(lenient, lambda slot, canary: 0.08 if canary else 0.1)
    beyond = evidence(lenient, lambda slot, canary: 0.04 if canary else 0.1)
    assert (at_border.verdict, beyond.verdict) == (Verdict.INSUFFICIENT, Verdict.FAIL)
