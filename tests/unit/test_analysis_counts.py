"""Evidence from two counters of each revision: right at any border, nothing twice, nothing guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kohort.analysis import counts
from kohort.analysis.betting import Batch, log_factor, raised
from kohort.analysis.counts import BETS, FEWER, MORE, State
from kohort.analysis.reading import Count, Reading, Sample, Series
from kohort.analysis.sequential import Rates, Trial
from kohort.analysis.tolerance import Border, border
from kohort.api.analysis import Metric
from kohort.api.prometheus import Counts, MarginType
from kohort.api.status import Evidence, Verdict

TRIAL = Trial("v2", "v1", "salt")
RATES = Rates(0.01, 0.05)
START = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = Metric(name="conversions", counts=Counts(total="t", good="g"))
BAD = Metric(name="complaints", counts=Counts(total="t", bad="b"))
Row = Mapping[tuple[str, bool, str], int]

shares = st.floats(0.01, 0.99)
few = st.integers(1, 4)


def reading(seconds: float, row: Row, **options: object) -> Reading:
    """Samples of all series, taken so long after the start."""
    at = START.timestamp() + seconds
    series = {Series(*name): Sample(value, at) for name, value in row.items()}
    return Reading(at, {}, series=series, sampled=True, **options)  # type: ignore[arg-type]


def totals(canary: int, canary_events: int, stable: int, stable_events: int) -> Row:
    """One pod of each revision."""
    return {
        ("v2", False, "a"): canary,
        ("v2", True, "a"): canary_events,
        ("v1", False, "b"): stable,
        ("v1", True, "b"): stable_events,
    }


NOTHING = totals(0, 0, 0, 0)


def seen(
    rows: Sequence[Row],
    metric: Metric = BAD,
    first: Reading | None = None,
) -> Evidence:
    """Evidence after readings ten seconds apart; the first of them is its snapshot."""
    evidence = counts.begin(metric, first or reading(0, rows[0]), TRIAL, 10, START)
    for number, row in enumerate(rows[1:], start=1):
        evidence = after(evidence, reading(10 * number, row), metric)
    return evidence


def after(evidence: Evidence, read: Reading, metric: Metric = BAD) -> Evidence:
    now = datetime.fromtimestamp(read.at, UTC)
    return counts.advance(evidence, read, TRIAL, metric, RATES, now)


def state_of(evidence: Evidence) -> State:
    state = counts.decode(evidence.state)
    assert state is not None
    return state


def expectation(
    canary: int, stable: int, bad: float, control: float, bet: float, at: Border
) -> float:
    """Of the factor of a bet on bad ones, exactly: over all that both arms' requests can do."""
    total = 0.0
    for of_canary, of_stable in product(range(canary + 1), range(stable + 1)):
        chance = math.comb(canary, of_canary) * bad**of_canary * (1 - bad) ** (canary - of_canary)
        chance *= math.comb(stable, of_stable)
        chance *= control**of_stable * (1 - control) ** (stable - of_stable)
        batch = Batch(Count(canary, of_canary), Count(stable, of_stable))
        total += chance * math.exp(log_factor(batch, bet, at.added, at.ratio))
    return total


@given(few, few, shares, st.floats(0, 0.5), st.floats(0.2, 2), shares, st.sampled_from(MORE))
def test_a_bet_that_there_are_more_gains_nothing_while_there_are_not(
    canary: int, stable: int, control: float, added: float, ratio: float, part: float, bet: float
) -> None:
    bad = part * min(1.0, ratio * control + added)
    assert expectation(canary, stable, bad, control, bet, Border(ratio, added)) <= 1 + 1e-9


@given(few, few, shares, st.floats(-0.5, 0.5), st.floats(0.2, 2), shares, st.sampled_from(FEWER))
def test_a_bet_that_there_are_fewer_gains_nothing_while_there_are_not(
    canary: int, stable: int, control: float, added: float, ratio: float, part: float, bet: float
) -> None:
    least = max(0.0, ratio * control + added)
    bad = min(1.0, least + part * (1 - least))
    if bad >= ratio * control + added:
        assert expectation(canary, stable, bad, control, bet, Border(ratio, added)) <= 1 + 1e-9


@given(few, few, st.data(), st.floats(0, 0.5), st.floats(0.2, 2))
def test_all_bets_at_once_are_each_alone(
    canary: int, stable: int, data: st.DataObject, added: float, ratio: float
) -> None:
    failed = (data.draw(st.integers(0, canary)), data.draw(st.integers(0, stable)))
    batch = Batch(Count(canary, failed[0]), Count(stable, failed[1]))
    together = raised((0.5,) * len(MORE), MORE, batch, added, ratio)
    assert together == pytest.approx([0.5 + log_factor(batch, b, added, ratio) for b in MORE])


@given(shares, st.floats(0, 0.99), st.booleans(), st.sampled_from(MarginType))
def test_the_border_of_good_ones_is_that_of_bad_ones(
    stable: float, margin: float, good: bool, kind: MarginType
) -> None:
    metric = Metric(
        name="m",
        margin=f"{margin:.2%}",
        counts=Counts(
            total="t", margin_type=kind, good="g" if good else None, bad=None if good else "b"
        ),
    )
    bad, told = border(metric), metric.allowed
    of_good = bad.of_good()
    canary = 1 - (bad.ratio * stable + bad.added)
    assert of_good.ratio * (1 - stable) + of_good.added == pytest.approx(canary)
    relative = kind is MarginType.RELATIVE
    expected = (
        ((1 - stable) * (1 - told) if relative else 1 - stable - told)
        if good
        else 1 - (stable * (1 + told) if relative else stable + told)
    )
    assert canary == pytest.approx(expected)


def growing(canary: float, stable: float, looks: int = 60) -> list[Row]:
    """Rows of a canary and a stable revision with these shares of events, 100 and 900 at each look."""
    return [
        totals(n * 100, round(n * 100 * canary), n * 900, round(n * 900 * stable))
        for n in range(looks)
    ]


def test_a_canary_with_more_bad_ones_is_accused_with_figures_and_not_sent_back() -> None:
    told = seen(growing(0.05, 0.01, 200))
    assert (told.verdict, told.undecided) == (Verdict.INSUFFICIENT, True)
    assert " of the canary were bad against " in told.message
    assert "tell no client slots (slotLabel), so that it may be a few clients" in told.message


def test_a_canary_with_fewer_good_ones_is_accused_whether_they_are_rare_or_common() -> None:
    assert seen(growing(0.01, 0.03), GOOD).undecided
    assert seen(growing(0.95, 0.99), GOOD).undecided


def test_a_canary_that_is_better_is_proven_to_be_no_worse() -> None:
    assert seen(growing(0.01, 0.05)).verdict is Verdict.PASS
    assert seen(growing(0.05, 0.01), GOOD).verdict is Verdict.PASS


def test_harm_within_the_margin_accuses_nobody() -> None:
    lenient = structs.replace(BAD, margin="6%")
    assert not seen(growing(0.05, 0.01), lenient).undecided


def test_a_goal_is_proven_within_its_margin() -> None:
    lenient = structs.replace(GOOD, margin="3%")
    told = seen(growing(0.10, 0.10, 400), lenient)
    assert told.verdict is Verdict.PASS
    assert "not worse by 3%" in told.message
    assert counts.proof_share(told, RATES.beta) == 1.0


def test_an_accusation_ends_when_the_evidence_does() -> None:
    rows = growing(0.05, 0.01, 10)
    accused = seen(rows)
    assert accused.undecided
    assert counts.accused(accused, RATES.alpha)
    well = [totals(900 + n * 100, 45, 8100 + n * 900, 81 + n * 9) for n in range(1, 40)]
    assert not seen([*rows, *well]).undecided


def test_a_proof_by_single_requests_alone_must_be_surer_where_nobody_tells_slots() -> None:
    rows = growing(0.01, 0.05)
    told = [seen(rows[:looks]) for looks in range(2, len(rows))]
    short = [e for e in told if 0.5 < counts.proof_share(e, RATES.beta) < 1]
    assert "these counters tell no client slots, so that chance 1 in " in short[-1].message
    assert told[-1].verdict is Verdict.PASS


def test_nothing_is_counted_before_the_snapshot() -> None:
    told = seen([totals(10**6, 9 * 10**5, 10**7, 0), totals(10**6 + 10, 9 * 10**5, 10**7 + 90, 1)])
    assert (told.canary.requests, told.canary.failed) == (10, 0)
    assert (told.stable.requests, told.stable.failed) == (90, 1)


@given(st.lists(st.tuples(few, few), min_size=3, max_size=8), st.data())
def test_errors_in_between_and_readings_told_again_change_nothing(
    steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    rows, row = [NOTHING], (0, 0, 0, 0)
    for canary, stable in steps:
        row = (row[0] + canary, row[1] + canary // 2, row[2] + stable, row[3] + stable // 3)
        rows.append(totals(*row))
    plain = seen(rows)
    evidence = counts.begin(BAD, reading(0, rows[0]), TRIAL, 10, START)
    for number, each in enumerate(rows[1:], start=1):
        fresh = reading(10 * number, each)
        if data.draw(st.booleans()):
            failed = Reading(fresh.at + 5, {}, errors=("Prometheus is away",))
            evidence = after(evidence, failed)
            assert evidence.verdict is Verdict.METRICS_ERROR
            assert "Prometheus is away" in evidence.message
        evidence = after(evidence, fresh)
        if data.draw(st.booleans()):
            evidence = after(evidence, fresh)
    assert state_of(evidence) == state_of(plain)
    assert evidence == plain


def test_a_counter_that_was_reset_counts_from_nought_and_its_neighbours_go_on() -> None:
    rows = [
        {**totals(50, 5, 500, 5), ("v2", False, "c"): 70, ("v2", True, "c"): 7},
        {**totals(60, 6, 600, 6), ("v2", False, "c"): 3, ("v2", True, "c"): 1},
    ]
    told = seen(rows)
    assert (told.canary.requests, told.canary.failed) == (13, 2)
    assert (told.stable.requests, told.stable.failed) == (100, 1)


def test_series_that_come_later_count_from_when_they_are_first_seen() -> None:
    later = {("v1", False, "old"): 10**6, ("v1", True, "old"): 10**5}
    told = seen(
        [
            NOTHING,
            {**totals(10, 1, 90, 1), **later},
            {
                **totals(20, 2, 180, 2),
                ("v1", False, "old"): 10**6 + 5,
                ("v1", True, "old"): 10**5 + 1,
            },
        ]
    )
    assert (told.stable.requests, told.stable.failed) == (185, 3)


def test_a_replica_that_lags_is_no_reset() -> None:
    evidence = seen([NOTHING, totals(100, 1, 900, 9)])
    lagging = reading(30, totals(120, 1, 980, 9))
    behind = {
        name: Sample(90, START.timestamp() + 5) for name in lagging.series if name.name == "a"
    }
    mixed = Reading(lagging.at, {}, series={**lagging.series, **behind}, sampled=True)
    evidence = after(evidence, mixed)
    assert evidence.canary.requests == 100
    evidence = after(evidence, reading(40, totals(130, 2, 1000, 9)))
    assert (evidence.canary.requests, evidence.canary.failed) == (130, 2)


def test_conversions_that_come_after_their_visits_are_not_lost() -> None:
    rows = [
        NOTHING,
        totals(10, 0, 90, 0),
        totals(10, 3, 90, 20),
        totals(20, 3, 180, 20),
        totals(30, 5, 270, 40),
    ]
    told = seen(rows, GOOD)
    assert (told.canary.requests, told.canary.requests - told.canary.failed) == (30, 5)
    assert (told.stable.requests, told.stable.requests - told.stable.failed) == (270, 40)


def test_queries_that_were_mixed_up_are_told() -> None:
    told = seen([NOTHING, totals(200, 900, 1000, 9000)], GOOD)
    assert told.verdict is Verdict.METRICS_ERROR
    assert "more good ones than there are at all: check both queries" in told.message


@pytest.mark.parametrize(
    "changed",
    [
        structs.replace(BAD, margin="1%"),
        Metric(name="complaints", counts=Counts(total="t", bad="others")),
    ],
)
def test_another_margin_or_query_begins_anew_and_says_so(changed: Metric) -> None:
    evidence = seen(growing(0.03, 0.01, 8))
    assert state_of(evidence).harm != (0.0,) * BETS
    evidence = after(evidence, reading(1000, totals(3000, 90, 30000, 300)), changed)
    assert evidence.message == counts.CHANGED
    assert state_of(evidence).harm == (0.0,) * BETS
    assert evidence.canary.requests == 0


def test_a_state_of_another_version_begins_anew_and_fail_is_final() -> None:
    evidence = structs.replace(seen(growing(0.03, 0.01, 5)), state="7:what")
    again = after(evidence, reading(1000, totals(3000, 90, 30000, 300)))
    assert "started anew" in again.message
    failed = structs.replace(seen(growing(0.05, 0.01)), verdict=Verdict.FAIL)
    assert after(failed, reading(10_000, totals(10**6, 0, 10**7, 10**6))) == failed


def test_an_arm_that_has_nothing_is_told() -> None:
    told = seen([NOTHING, totals(0, 0, 90, 1)])
    assert told.message == "no request of the canary or stable was seen yet"
    assert counts.unseen_since(told, START + timedelta(seconds=1)) == ("canary",)


def test_the_state_fits_into_status() -> None:
    series = {
        (revision, events, str(pod)): 10**9 + pod
        for revision in ("v1", "v2")
        for events in (False, True)
        for pod in range(200)
    }
    told = seen([series, {name: value + 7 for name, value in series.items()}])
    assert len(told.state) <= 16384
    assert len(state_of(told).series) == counts.SERIES_LIMIT
