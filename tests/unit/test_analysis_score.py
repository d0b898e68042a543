"""Scores that become worse for all clients send a canary back; other buckets, and a few clients, do not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kohort.analysis import score
from kohort.analysis.durations import CLASSES
from kohort.analysis.reading import Reading, Row
from kohort.analysis.sequential import Rates, Trial
from kohort.analysis.split import canary_slots
from kohort.api.analysis import Metric
from kohort.api.prometheus import Better, MarginType, Score
from kohort.api.status import Evidence, Verdict
from kohort.contract import SLOTS
from kohort.observe.score_series import score_reading
from kohort.observe.slot_series import Totals

WEIGHT = 25
TRIAL = Trial("v2", "v1", "salt", WEIGHT)
CANARY, _ = canary_slots(WEIGHT, "salt")
RATES = Rates(0.01, 0.05)
BOUNDS = ("0.5", "0.8", "0.9", "+Inf")
USUAL: Row = (1, 3, 6, 10)
"""Of twenty scores of a slot in turn, those in each bucket, lowest first."""
WORSE: Row = (3, 5, 6, 6)
SCORE = Score(buckets="q", slot_label="slot")
QUALITY = Metric(name="quality", score=SCORE)
PLAIN = Metric(name="quality", score=Score(buckets="q"))
Scores = Callable[[int, bool], Row]
"""Of a slot, and whether the canary answers it: how many of twenty scores are in each bucket."""


def totals(scores: Scores, look: int, earlier: int = 10) -> Totals:
    """After so many rounds of twenty scores of each slot, and ten of the past."""

    def cumulative(row: Row) -> Row:
        return tuple(sum(row[: k + 1]) for k in range(len(row)))

    past = [cumulative(scores(slot, False)) for slot in range(SLOTS)]
    own = [cumulative(scores(slot, slot in CANARY)) for slot in range(SLOTS)]
    now = [
        tuple(earlier * before + look * each for before, each in zip(*both, strict=True))
        for both in zip(past, own, strict=True)
    ]
    arms = {
        "v2": [tuple(look * n for n in own[slot]) for slot in CANARY],
        "v1": [now[slot] for slot in set(range(SLOTS)) - CANARY]
        + [tuple(earlier * n for n in past[slot]) for slot in CANARY],
    }
    return Totals(
        counter="one",
        at=1e9 + 10 * (look + 1),
        now=tuple(zip(*now, strict=True)),
        past=tuple(zip(*(tuple(earlier * n for n in row) for row in past), strict=True)),
        arms={name: tuple(map(sum, zip(*rows, strict=True))) for name, rows in arms.items()},
        errors=(),
    )


def read(metric: Metric, scores: Scores, look: int) -> Reading:
    assert metric.score is not None
    return score_reading(totals(scores, look), BOUNDS, metric.score)


def after(seen: Evidence, reading: Reading, metric: Metric) -> Evidence:
    now = datetime.fromtimestamp(reading.at, UTC)
    return score.advance(seen, reading, TRIAL, metric, RATES, now)


def evidence(metric: Metric, scores: Scores, looks: int = 12) -> Evidence:
    seen = score.begin(metric, None, TRIAL, WEIGHT, datetime.fromtimestamp(1e9, UTC))
    for look in range(looks):
        seen = after(seen, read(metric, scores, look), metric)
    return seen


def everywhere(of_canary: Row, usual: Row = USUAL) -> Scores:
    return lambda slot, canary: of_canary if canary else usual


def test_worse_scores_in_all_slots_send_the_canary_back_with_figures() -> None:
    told = evidence(QUALITY, everywhere(WORSE))
    assert told.verdict is Verdict.FAIL
    assert "0.4 of the canary's scores were at most 0.8 against 0.2 of stable's" in told.message
    assert "client slots bear it out" in told.message
    assert told.slow_from is None


def test_better_scores_accuse_nobody_whichever_way_is_better() -> None:
    lower = Metric(
        name="toxicity", score=Score(buckets="q", better=Better.LOWER, slot_label="slot")
    )
    assert evidence(lower, everywhere(WORSE)).message.endswith("; not worse")
    assert evidence(QUALITY, everywhere(USUAL, WORSE)).message.endswith("; not worse")
    harmed = evidence(lower, everywhere(USUAL, WORSE))
    assert harmed.verdict is Verdict.FAIL
    assert "of the canary's scores were above 0." in harmed.message


def test_worse_scores_of_a_few_clients_send_nobody_back() -> None:
    few = sorted(CANARY)[:3]
    told = evidence(QUALITY, lambda slot, _: (20, 0, 0, 0) if slot in few else USUAL, looks=40)
    assert (told.verdict, told.undecided) == (Verdict.INSUFFICIENT, False)
    assert score.accused(told, RATES.alpha)
    assert "if requests were independent, but" in told.message


def test_where_nobody_tells_slots_worse_scores_hold_the_step() -> None:
    told = evidence(PLAIN, everywhere(WORSE))
    assert (told.verdict, told.undecided, told.slots) == (Verdict.INSUFFICIENT, True, "")
    assert "tell no client slots (slotLabel)" in told.message


@pytest.mark.parametrize(
    ("margin", "kind", "verdict"),
    [
        ("25%", MarginType.ABSOLUTE, Verdict.INSUFFICIENT),
        ("15%", MarginType.ABSOLUTE, Verdict.FAIL),
        ("99%", MarginType.RELATIVE, Verdict.FAIL),
    ],
)
def test_worse_by_less_than_the_margin_sends_nobody_back(
    margin: str, kind: MarginType, verdict: Verdict
) -> None:
    scored = structs.replace(SCORE, margin_type=kind)
    told = evidence(Metric(name="quality", margin=margin, score=scored), everywhere(WORSE))
    assert told.verdict is verdict
    if verdict is not Verdict.FAIL:
        assert told.message.endswith(f"worse, but by less than {margin}")


def test_other_buckets_begin_anew_and_say_so() -> None:
    seen = evidence(QUALITY, everywhere(USUAL), looks=3)
    other = structs.replace(SCORE, better=Better.LOWER)
    changed = Metric(name="quality", score=other)
    again = after(seen, read(changed, everywhere(USUAL), 9), changed)
    assert again.message == score.CHANGED
    assert again.canary.requests == 0


def test_an_error_decides_nothing_and_nothing_is_lost_by_it() -> None:
    seen = evidence(QUALITY, everywhere(USUAL), looks=4)
    failed = Reading(2e9, {}, errors=("stale: q",), sampled=True)
    told = after(seen, failed, QUALITY)
    assert told.verdict is Verdict.METRICS_ERROR
    assert "counters cannot be used: stale: q" in told.message
    later = after(told, read(QUALITY, everywhere(USUAL), 5), QUALITY)
    plain = after(seen, read(QUALITY, everywhere(USUAL), 5), QUALITY)
    assert (later.canary, later.stable) == (plain.canary, plain.stable)


def test_an_arm_without_scores_is_told() -> None:
    seen = score.begin(QUALITY, None, TRIAL, WEIGHT, datetime.fromtimestamp(1e9, UTC))
    moment = datetime.fromtimestamp(1e9, UTC) + timedelta(seconds=1)
    assert score.unseen_since(seen, moment) == ("canary", "stable")
    assert score.unseen_since(evidence(QUALITY, everywhere(USUAL), 3), moment) == ()


rows = st.lists(st.integers(0, 10**4), min_size=CLASSES, max_size=CLASSES).map(tuple)


@given(rows, st.integers(0, CLASSES - 2))
def test_a_score_that_moves_towards_worse_never_makes_it_look_better(row: Row, at: int) -> None:
    moved = list(row)
    moved[at], moved[at + 1] = 0, row[at] + row[at + 1]
    assert not score.worse(row, row, QUALITY)
    assert not score.worse(row, tuple(moved), QUALITY)
    if row[at] >= 5:
        assert score.worse(tuple(moved), row, QUALITY)
