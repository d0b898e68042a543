"""The simulator of durations decides what the product decides."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from kohort.analysis.betting import log_mean
from kohort.analysis.latency import advance, begin, decode
from kohort.analysis.reading import Reading, Slots, SlotTotals, packed
from kohort.analysis.sequential import Rates, Trial
from kohort.api.status import Verdict
from kohort.contract import SLOTS
from tests.bench.deciders import ALPHA
from tests.bench.durations import LATENCY, End, Timed, Timing, end, shares, timed

START = 1.77e9

WORLDS = [
    Timing(slower=1.5, seconds=100),
    Timing(slower=1.5, seconds=100, unlike=0.8, past=0),
    Timing(slower=2, beyond=60, seconds=100, unlike=0.8, weight=30),
    Timing(clients=40, unlike=0.8, moods=0.8, seconds=100),
    Timing(clients=4, unlike=0.8, slower=3, weight=40, seconds=100),
]


def slots(rows: np.ndarray) -> Slots:
    took = {k: packed(rows[:, k].tolist()) for k in np.flatnonzero(rows.sum(axis=0)).tolist()}
    return Slots(tuple(rows.sum(axis=1).tolist()), (0,) * SLOTS, took)


def reading(run: Timed, scrape: int) -> Reading:
    """What one gateway says after so many scrapes; 0 is before the canary has clients."""
    arms = run.drawn[:scrape].sum(axis=0)
    arms[0] += run.past.sum(axis=0)
    now = run.past + run.slots[scrape - 1] if scrape else run.past
    told = {name: tuple(arms[arm].tolist()) for arm, name in enumerate(("v1", "v2"))}
    totals = SlotTotals("counter", slots(now), slots(run.past), told)
    return Reading(START + scrape * run.world.scrape, {}, slots=totals)


def by_the_product(run: Timed) -> End:
    """When the operator's own analysis accuses and fails the canary."""
    trial, rates = Trial("v2", "v1", run.salt), Rates(ALPHA, 0.05)
    first = reading(run, 0)
    evidence = begin(LATENCY, first, trial, run.world.weight, datetime.fromtimestamp(START, UTC))
    accused = None
    for scrape in range(1, run.world.scrapes + 1):
        seen = reading(run, scrape)
        now = datetime.fromtimestamp(seen.at, UTC)
        evidence = advance(evidence, seen, trial, LATENCY, rates, now)
        state = decode(evidence.state)
        assert state is not None
        if accused is None and log_mean(state.logs) >= math.log(1 / ALPHA):
            accused = seen.at - START
        if evidence.verdict is Verdict.FAIL:
            return End(accused, seen.at - START)
    return End(accused, None)


def test_the_simulated_operator_decides_what_the_real_one_does() -> None:
    back = []
    for world in WORLDS:
        for run in timed(world, 2, seed=1):
            assert end(run) == by_the_product(run)
            back.append(end(run).back is not None)
    assert 0 < sum(back) < len(back)


def test_slots_add_up_to_what_their_arms_were_drawn_to_send() -> None:
    run = next(timed(WORLDS[3], 1, seed=2))
    assert np.array_equal(run.slots[-1].sum(axis=0), run.drawn.sum(axis=(0, 1)))


def test_clients_take_as_long_as_they_are_said_to() -> None:
    """Half of the requests of a client take longer than its median, on the canary ``slower`` times it."""
    world = Timing(median=25.0, slower=1.8)
    of_stable, of_canary = shares(world, np.full(2, math.log(25)), np.array([False, True]))
    assert of_stable[6:].sum() == pytest.approx(0.5, abs=1e-3)  # from 25 ms on
    assert of_canary[7:].sum() == pytest.approx(0.5, abs=1e-3)  # from 45 ms on
