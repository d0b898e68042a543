"""The simulator decides what the product decides, in any world."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from kohort.analysis.reading import Count, Reading, Sample, Series, Slots, SlotTotals
from kohort.analysis.sequential import Rates, Trial, relabelled
from kohort.api.analysis import Metric, MetricName
from kohort.api.prometheus import Counts, MarginType
from kohort.api.status import Verdict
from kohort.plan.evidence import analysis
from tests.bench.counted import ends
from tests.bench.deciders import ALPHA, kohort
from tests.bench.worlds import Run, World, runs

ERRORS = Metric(name=MetricName.ERRORS)
START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

WORLDS = [
    World(harm=5),
    World(harm=4, concentration=2, lost=0.2, resets=0.05, past=0),
    World(broken=1, clients=6, concentration=1, weights=((100, 30),)),
    World(concentration=1, bursts=True, zipf=1.2, weights=((60, 5), (60, 25), (60, 50))),
    World(harm=3, rate=200, weights=((60, 5), (60, 25), (60, 50)), daily=0.5),
]


COUNTED = [
    (Metric(name="m", counts=Counts(total="t", bad="b", slot_label="s")), World(harm=4)),
    (
        Metric(name="m", margin="10%", counts=Counts(total="t", good="g", slot_label="s")),
        World(base=0.4, harm=0.5, concentration=5, weights=((60, 10), (60, 50))),
    ),
    (
        Metric(
            name="m",
            margin="20%",
            counts=Counts(total="t", bad="b", slot_label="s", margin_type=MarginType.RELATIVE),
        ),
        World(concentration=1, harm=3, clients=300, weights=((300, 25),)),
    ),
]


def reading(run: Run, scrape: int) -> Reading:
    """What one gateway says after so many scrapes; 0 is before the canary has clients."""
    requests, failed = run.requests[:scrape].sum(axis=0), run.failed[:scrape].sum(axis=0)
    past = tuple(run.past_requests.tolist()), tuple(run.past_failed.tolist())
    totals = requests.sum(axis=1) + run.past_requests, failed.sum(axis=1) + run.past_failed
    arms = {
        name: Count(int(requests[:, arm].sum()), int(failed[:, arm].sum()))
        for arm, name in enumerate(("v1", "v2"))
    }
    now = Slots(tuple(totals[0].tolist()), tuple(totals[1].tolist()))
    slots = SlotTotals("counter", now, Slots(*past))
    at = START.timestamp() + scrape
    series = {
        Series(name, events, "a"): Sample(count.failed if events else count.requests, at)
        for name, count in arms.items()
        for events in (False, True)
    }
    return Reading(at=at, sources={"a": arms}, slots=slots, series=series)


def by_the_product(run: Run, metric: Metric = ERRORS) -> int | None:
    """After which scrape the operator's own analysis fails the canary."""
    trial, rates, way = Trial("v2", "v1", run.salt), Rates(ALPHA, 0.05), analysis(metric)
    weights = run.world.weight_of_scrape
    evidence = way.begin(metric, reading(run, 0), trial, weights[0], START)
    for scrape, weight in enumerate(weights):
        evidence = relabelled(evidence, weight)
        seen = reading(run, scrape + 1)
        now = datetime.fromtimestamp(seen.at, UTC)
        evidence = way.advance(evidence, seen, trial, metric, rates, now)
        if evidence.verdict is Verdict.FAIL:
            return scrape
    return None


@pytest.mark.parametrize("world", WORLDS)
def test_the_simulated_operator_decides_what_the_real_one_does(world: World) -> None:
    for run in runs(world, 4, seed=1):
        assert kohort(run) == by_the_product(run)


@pytest.mark.parametrize(("metric", "world"), COUNTED)
def test_counters_decide_in_the_simulator_as_they_do_in_the_operator(
    metric: Metric, world: World
) -> None:
    for run in runs(world, 4, seed=1):
        assert ends(run, metric).back == by_the_product(run, metric)


def test_a_world_is_the_same_for_the_same_seed() -> None:
    one, other = (next(runs(WORLDS[3], 1, seed=5)) for _ in range(2))
    assert np.array_equal(one.requests, other.requests)
    assert np.array_equal(one.failed, other.failed)
    assert one.salt == other.salt


def test_clients_send_and_fail_as_often_as_they_are_said_to() -> None:
    world = World(base=0.1, concentration=20, zipf=0, weights=((6000, 25),), clients=100_000)
    run = next(runs(world, 1, seed=6))
    canary, canary_failed, stable, stable_failed = (counts.sum() for counts in run.arms)
    assert canary + stable == pytest.approx(50 * 6000, rel=0.02)
    assert canary / (canary + stable) == pytest.approx(0.25, rel=0.1)
    assert (canary_failed + stable_failed) / (canary + stable) == pytest.approx(0.1, rel=0.1)


def test_harm_meets_the_canary_alone() -> None:
    run = next(runs(World(broken=1.0), 1, seed=7))
    canary, canary_failed, stable, stable_failed = (counts.sum() for counts in run.arms)
    assert canary_failed == canary > 0
    assert stable_failed < 0.05 * stable
