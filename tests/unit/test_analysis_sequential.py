"""Evidence: what it counts, what it survives, and what it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kohort.analysis.counting import MISSING_LIMIT, SOURCE_LIMIT
from kohort.analysis.reading import Count, Reading, Slots, SlotTotals
from kohort.analysis.sequential import (
    Rates,
    Trial,
    advance,
    begin,
    proof_share,
    relabelled,
    unseen_since,
)
from kohort.analysis.slots import SlotState, Totals, decode
from kohort.analysis.split import canary_slots
from kohort.analysis.timestamps import from_time, to_time
from kohort.api.analysis import Metric, MetricName
from kohort.api.status import Evidence, Tally, Verdict

START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ERRORS = Metric(name=MetricName.ERRORS)
TRIAL = Trial(canary="v2", stable="v1", salt="salt")
RATES = Rates(alpha=0.01, beta=0.05)
WEIGHT = 25
Pair = tuple[int, int]


def reading(second: int, errors: tuple[str, ...] = (), **sources: tuple[Pair, Pair]) -> Reading:
    """Cumulative (requests, failed) of canary and stable at each source, so many seconds after the start."""
    return Reading(
        at=START.timestamp() + second,
        sources={
            name: {"v2": Count(*canary), "v1": Count(*stable)}
            for name, (canary, stable) in sources.items()
        },
        errors=errors,
        slots=slots(list(sources.values())),
    )


def slots(pairs: list[tuple[Pair, Pair]]) -> SlotTotals:
    """Totals of many clients that are all alike: every slot of an arm has its share of requests."""
    canary, _ = canary_slots(WEIGHT, TRIAL.salt)
    arms = sorted(canary), [slot for slot in range(256) if slot not in canary]
    numbers = [[0] * 256, [0] * 256]
    for of_arm, arm in enumerate(arms):
        for kind, number in enumerate(numbers):
            total = sum(pair[of_arm][kind] for pair in pairs)
            for place, slot in enumerate(arm):
                number[slot] = total // len(arm) + (place < total % len(arm))
    nothing = (0,) * 256
    now = Slots(tuple(numbers[0]), tuple(numbers[1]))
    return SlotTotals("counter", now, Slots(nothing, nothing))


EMPTY = ((0, 0), (0, 0))


def started(first: Reading | None = None) -> Evidence:
    """Evidence that begins at the start."""
    return begin(ERRORS, first or reading(0, a=EMPTY), TRIAL, WEIGHT, START)


def after(evidence: Evidence, *readings: Reading, metric: Metric = ERRORS) -> Evidence:
    """Evidence after readings."""
    for each in readings:
        now = datetime.fromtimestamp(each.at, UTC)
        evidence = advance(evidence, each, TRIAL, metric, RATES, now)
    return evidence


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Pair, Pair]]:
    """Cumulative counts of both arms at one source over some readings."""
    totals, history = [0, 0, 0, 0], []
    for _ in range(draw(st.integers(1, 8))):
        for arm in (0, 2):
            requests = draw(st.integers(0, 300))
            totals[arm] += requests
            totals[arm + 1] += draw(st.integers(0, min(requests, 5)))
        history.append(((totals[0], totals[1]), (totals[2], totals[3])))
    return history


def pairs(counts: list[int]) -> tuple[Pair, Pair]:
    """Canary's and stable's (requests, failed) of four numbers in a row."""
    return (counts[0], counts[1]), (counts[2], counts[3])


def halves(history: list[tuple[Pair, Pair]]) -> list[tuple[tuple[Pair, Pair], tuple[Pair, Pair]]]:
    """The same requests at two processes: each takes half of what is new at every reading."""
    left, right, former = [0] * 4, [0] * 4, [0] * 4
    split = []
    for (requests, failed), (others, failed_others) in history:
        now = [requests, failed, others, failed_others]
        for arm in (0, 2):
            new, bad = now[arm] - former[arm], now[arm + 1] - former[arm + 1]
            mine = new // 2, min(bad, new // 2)
            for half, (n, x) in ((left, mine), (right, (new - mine[0], bad - mine[1]))):
                half[arm] += n
                half[arm + 1] += x
        former = now
        split.append((pairs(left), pairs(right)))
    return split


@given(histories())
def test_two_gateways_say_what_one_with_all_their_requests_says(
    history: list[tuple[Pair, Pair]],
) -> None:
    one, two = started(), started(reading(0, a=EMPTY, b=EMPTY))
    for second, (whole, (left, right)) in enumerate(zip(history, halves(history), strict=True), 1):
        one = after(one, reading(second, a=whole))
        two = after(two, reading(second, a=left, b=right))
    assert (one.verdict, one.message, one.canary, one.stable) == (
        two.verdict,
        two.message,
        two.canary,
        two.stable,
    )


@given(histories())
def test_readings_in_between_change_no_count(history: list[tuple[Pair, Pair]]) -> None:
    often = after(started(), *(reading(s, a=pair) for s, pair in enumerate(history, 1)))
    once = after(started(), reading(len(history), a=history[-1]))
    if Verdict.FAIL not in (often.verdict, once.verdict):
        assert (often.canary, often.stable) == (once.canary, once.stable)


@given(histories())
def test_the_same_reading_twice_adds_nothing(history: list[tuple[Pair, Pair]]) -> None:
    evidence = started()
    for second, pair in enumerate(history, 1):
        evidence = after(evidence, reading(second, a=pair))
        assert after(evidence, reading(second, a=pair)) == evidence
    nobody_there = reading(len(history) + 1)
    evidence = after(evidence, nobody_there)
    assert after(evidence, nobody_there) == evidence


@given(histories())
def test_an_older_reading_is_not_mistaken_for_a_restart(history: list[tuple[Pair, Pair]]) -> None:
    evidence = after(started(), *(reading(s, a=pair) for s, pair in enumerate(history, 1)))
    assert after(evidence, reading(0, a=EMPTY)) == evidence


@given(histories())
def test_an_operator_killed_between_readings_goes_on_as_if_nothing_had_happened(
    history: list[tuple[Pair, Pair]],
) -> None:
    evidence = survivor = started()
    for second, pair in enumerate(history, 1):
        evidence = after(evidence, reading(second, a=pair))
        stored = msgspec.json.encode(survivor)
        survivor = after(msgspec.json.decode(stored, type=Evidence), reading(second, a=pair))
    assert survivor == evidence


@given(histories(), histories())
def test_a_counter_that_was_reset_counts_from_nought(
    first: list[tuple[Pair, Pair]], second: list[tuple[Pair, Pair]]
) -> None:
    evidence = after(started(), reading(1, a=first[-1]))
    evidence = structs.replace(evidence, verdict=Verdict.INSUFFICIENT)
    fell = second[-1][0][0] < first[-1][0][0] and second[-1][1][0] < first[-1][1][0]
    counted = after(evidence, reading(2, a=second[-1]))
    if fell:
        assert counted.canary.requests == first[-1][0][0] + second[-1][0][0]
        assert counted.stable.requests == first[-1][1][0] + second[-1][1][0]


def test_what_was_there_at_the_beginning_does_not_count() -> None:
    evidence = started(reading(0, a=((1000, 500), (9000, 10))))
    evidence = after(evidence, reading(10, a=((1010, 500), (9090, 11))))
    assert evidence.canary == Tally(requests=10, failed=0)
    assert evidence.stable == Tally(requests=90, failed=1)


def test_a_process_that_appears_later_counts_from_its_start() -> None:
    evidence = after(started(), reading(10, a=EMPTY, b=((10, 1), (90, 2))))
    assert evidence.canary == Tally(requests=10, failed=1)


def test_a_process_that_the_first_reading_missed_counts_from_when_it_is_read() -> None:
    evidence = started(reading(0, ("b: refused",), a=EMPTY))
    evidence = after(evidence, reading(10, a=EMPTY, b=((1000, 100), (9000, 90))))
    assert evidence.canary == Tally()
    evidence = after(evidence, reading(20, a=EMPTY, b=((1010, 100), (9090, 90))))
    assert evidence.canary == Tally(requests=10)


def test_a_process_missed_more_than_once_still_brings_no_history() -> None:
    evidence = begin(ERRORS, None, TRIAL, WEIGHT, START)
    evidence = after(evidence, reading(10, ("b: refused",), a=EMPTY))
    evidence = after(evidence, reading(20, a=EMPTY, b=((1000, 900), (9000, 90))))
    assert (evidence.canary, evidence.verdict) == (Tally(), Verdict.INSUFFICIENT)


def test_a_process_that_is_gone_is_forgotten_but_not_while_readings_fail() -> None:
    gone = [reading(s) for s in range(1, MISSING_LIMIT + 1)]
    unread = [reading(s, ("a: refused",)) for s in range(1, MISSING_LIMIT + 1)]
    assert '"sources"' not in after(started(), *gone).state
    assert '"sources"' in after(started(), *unread).state


def test_without_a_first_reading_the_next_one_is_the_snapshot() -> None:
    evidence = begin(ERRORS, None, TRIAL, WEIGHT, START)
    evidence = after(evidence, reading(10, a=((7, 1), (70, 1))), reading(20, a=((9, 1), (90, 1))))
    assert (evidence.canary.requests, evidence.stable.requests) == (2, 20)


def test_a_lost_scrape_is_made_up_for_by_the_next_one() -> None:
    evidence = after(started(), reading(10, ("a: refused",)))
    assert evidence.verdict is Verdict.METRICS_ERROR
    assert evidence.message.startswith("counters cannot be used: a: refused; 0 of 0")
    assert evidence.updated is None
    evidence = after(evidence, reading(20, a=((10, 0), (90, 1))))
    assert (evidence.verdict, evidence.canary.requests) == (Verdict.INSUFFICIENT, 10)


def test_a_source_that_comes_back_is_not_counted_twice() -> None:
    full = ((10, 0), (90, 1))
    evidence = after(started(), reading(1, a=full))
    evidence = after(evidence, *(reading(s) for s in range(2, MISSING_LIMIT)))
    assert after(evidence, reading(MISSING_LIMIT, a=full)).canary == Tally(requests=10)


def test_state_stays_small_however_many_processes_come_and_go() -> None:
    evidence = started()
    for second in range(1, 3 * SOURCE_LIMIT):
        counted = ((10**6 * second, 5), (10**9 * second, 10**6))
        sources = {f"gateway-{second}": reading(second, a=counted).sources["a"]}
        evidence = after(evidence, Reading(at=START.timestamp() + second, sources=sources))
        evidence = structs.replace(evidence, verdict=Verdict.INSUFFICIENT)
    assert len(evidence.state) <= 16384
    assert len(evidence.slots) <= 12288


def test_harm_fails_with_figures_and_stays_failed() -> None:
    evidence = after(started(), reading(10, a=((402, 11), (3611, 9))))
    assert evidence.verdict is Verdict.FAIL
    assert evidence.message.startswith(
        "11 of 402 canary requests failed against 9 of 3,611 of stable; chance under 1 in "
    )
    later = after(evidence, reading(20, a=((9000, 11), (9000, 9000))), reading(30, ("a: gone",)))
    assert later == evidence


def test_a_canary_that_is_not_worse_passes() -> None:
    evidence = after(started(), *(reading(s, a=((100 * s, 0), (300 * s, 0))) for s in range(1, 9)))
    assert evidence.verdict is Verdict.PASS
    assert "not worse by 1% of requests" in evidence.message
    assert proof_share(evidence, 0.05) == 1


def test_a_proof_by_requests_of_a_few_lucky_clients_is_none() -> None:
    """All of stable's failures are one slot's: with such clients it is luck not to have one."""
    whole = reading(10, a=((10_000, 0), (30_000, 300)))
    assert whole.slots is not None
    canary, _ = canary_slots(WEIGHT, TRIAL.salt)
    one = min(set(range(256)) - canary)
    failed = tuple(300 if slot == one else 0 for slot in range(256))
    requests = tuple(n + 300 * (slot == one) for slot, n in enumerate(whole.slots.now.requests))
    clumped = replace(whole, slots=replace(whole.slots, now=Slots(requests, failed)))
    evidence = after(started(), clumped)
    assert evidence.verdict is Verdict.INSUFFICIENT
    assert "client slots do not bear it out" in evidence.message


def test_another_margin_needs_another_proof() -> None:
    proven = [reading(s, a=((100 * s, 0), (300 * s, 0))) for s in range(1, 9)]
    evidence = after(started(), *proven)
    stricter = Metric(name=MetricName.ERRORS, margin="0.1%")
    last = reading(9, a=((900, 0), (2700, 0)))
    assert after(evidence, last, metric=stricter).verdict is Verdict.INSUFFICIENT


def test_a_missing_arm_is_named() -> None:
    evidence = after(started(), reading(10, a=((0, 0), (90, 80))))
    assert (evidence.verdict, evidence.message) == (
        Verdict.INSUFFICIENT,
        "no request of the canary was seen yet",
    )
    assert unseen_since(evidence, START) == ("canary",)
    evidence = after(evidence, reading(20, a=((10, 0), (90, 80))))
    assert evidence.message.endswith("; no new request of stable")
    assert unseen_since(evidence, START + timedelta(seconds=15)) == ("stable",)


def test_what_is_still_needed_is_told_in_requests_and_time() -> None:
    strict = Metric(name=MetricName.ERRORS, margin="0.0001%")
    evidence = after(started(), reading(10, a=((50, 0), (450, 5))), metric=strict)
    assert "to show a doubled failure rate takes at least " in evidence.message
    assert evidence.message.endswith(" min at this traffic")
    evidence = after(evidence, reading(20, a=((50_000, 500), (450_000, 4500))), metric=strict)
    assert evidence.message.endswith("enough requests to show a doubled failure rate")


def test_harm_that_only_a_few_clients_meet_is_not_the_canarys_doing() -> None:
    """All that fails in the canary fails in one slot: a client that would fail anywhere."""
    whole = reading(10, a=((402, 20), (3611, 9)))
    assert whole.slots is not None
    (first, *others), _ = canary_slots(WEIGHT, TRIAL.salt)
    failed = [0 if slot in others else count for slot, count in enumerate(whole.slots.now.failed)]
    failed[first] = 20
    requests = [count + 20 * (slot == first) for slot, count in enumerate(whole.slots.now.requests)]
    evidence = after(
        started(),
        replace(whole, slots=replace(whole.slots, now=Slots(tuple(requests), tuple(failed)))),
    )
    assert evidence.verdict is Verdict.INSUFFICIENT
    assert "if requests were independent, but client slots do not bear it out" in evidence.message


def test_slots_are_labelled_anew_at_another_weight_and_keep_their_past() -> None:
    evidence = after(started(), reading(10, a=((100, 1), (300, 3))))
    counted = slot_state(evidence)
    assert (sum(counted.since().requests), sum(counted.since().failed)) == (400, 4)
    raised = slot_state(relabelled(evidence, 50))
    assert (raised.since(), raised.weight) == (Totals(), 50)
    assert raised.before() == counted.before()
    assert relabelled(evidence, WEIGHT) == evidence
    later = after(relabelled(evidence, 50), reading(20, a=((300, 1), (500, 3))))
    assert sum(slot_state(later).since().requests) == 400
    assert later.canary.requests == 300


def test_an_operator_that_starts_anew_counts_no_slot_twice() -> None:
    evidence = after(started(), reading(10, a=((100, 1), (300, 3))))
    full = reading(20, a=((200, 1), (600, 3)))
    assert full.slots is not None
    other = replace(full.slots, counter="another", past=None)
    evidence = after(evidence, replace(full, slots=other))
    assert sum(slot_state(evidence).since().requests) == 400
    more = reading(30, a=((300, 1), (900, 3)))
    assert more.slots is not None
    evidence = after(evidence, replace(more, slots=replace(more.slots, counter="another")))
    assert sum(slot_state(evidence).since().requests) == 800


@pytest.mark.parametrize("slots", ["", "0:", "2:=", "2:AAAA", "2:kA=="])
def test_slots_of_another_version_are_never_guessed_at(slots: str) -> None:
    evidence = after(started(), reading(10, a=((10, 0), (90, 1))))
    anew = after(structs.replace(evidence, slots=slots), reading(20, a=((20, 0), (180, 2))))
    assert anew.canary == Tally()
    assert "started anew" in anew.message


def slot_state(evidence: Evidence) -> SlotState:
    """The slots that evidence has counted."""
    state = decode(evidence.slots)
    assert state is not None
    return state


@pytest.mark.parametrize("state", ["", "0:{}", "1:{", "1:[]", '1:{"margin":0.01,"harm":[0.0]}'])
def test_state_of_another_version_is_never_guessed_at(state: str) -> None:
    evidence = after(started(), reading(10, a=((10, 9), (90, 1))))
    unreadable = structs.replace(evidence, state=state, verdict=Verdict.INSUFFICIENT)
    anew = after(unreadable, reading(20, a=((20, 19), (180, 2))))
    assert (anew.canary, anew.verdict) == (Tally(), Verdict.INSUFFICIENT)
    assert "started anew" in anew.message
    assert after(anew, reading(30, a=((21, 19), (190, 2)))).canary == Tally(requests=1)


@given(st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)))
def test_a_time_in_status_is_the_moment_to_the_millisecond(moment: datetime) -> None:
    kept = from_time(to_time(moment))
    assert timedelta(0) <= moment - kept < timedelta(milliseconds=1)
    assert to_time(kept) == to_time(moment)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        from_time("2026-01-31T12:00:00")
