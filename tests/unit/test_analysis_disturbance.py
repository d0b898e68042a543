"""Trouble that both revisions have holds a rollout and blames nobody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.betting import Batch
from kohort.analysis.disturbance import Recent
from kohort.analysis.reading import Count
from kohort.api.cohorts import Cohort, Step
from kohort.api.status import CohortPhase
from tests.unit.plan_simulation import Cluster, model, serving

BEFORE = Recent(before=(10_000, 100))


def seen(
    readings: int, canary: tuple[int, int], stable: tuple[int, int], recent: Recent = BEFORE
) -> Recent:
    """After so many readings with (requests, failed) of both arms in each."""
    for _ in range(readings):
        recent = recent.after(Batch(Count(*canary), Count(*stable)))
    return recent


def test_both_arms_failing_ten_times_as_often_are_disturbed_until_it_is_over() -> None:
    trouble = seen(3, (50, 5), (450, 45))
    assert trouble.disturbed
    assert "0.1 and 0.1 of their requests of late, 0.01 then" in trouble.told()
    assert not seen(40, (50, 0), (450, 5), trouble).disturbed


@given(st.integers(0, 500), st.integers(0, 5000), st.integers(0, 60))
def test_a_canary_that_fails_alone_is_no_disturbance(
    canary: int, stable: int, readings: int
) -> None:
    assert not seen(readings, (canary, canary), (stable, stable // 100)).disturbed


@given(st.integers(1, 60))
def test_stable_alone_is_no_disturbance_either(readings: int) -> None:
    assert not seen(readings, (50, 0), (450, 450)).disturbed


def test_where_nothing_is_known_of_before_nothing_is_disturbed() -> None:
    assert not seen(20, (50, 50), (450, 450), Recent(before=(10, 0))).disturbed


def test_a_step_is_held_while_everybody_fails_and_goes_on_afterwards() -> None:
    steps = (Step(weight=25, hold="30s"),)
    spec = model(1, cohorts=(Cohort(name="everyone", steps=steps),))
    cluster = serving(spec)
    good = cluster.desired
    cluster.edit(model(2, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.until(lambda c: c.cohort().phase is CohortPhase.PREPARING)
    for _ in range(3):  # clients before the canary are counted
        cluster.pass_time(5)
        cluster.serve()
        cluster.read_counters()
        cluster.decide()
    cluster.until(lambda c: c.cohort().step_started_at is not None)
    cluster.bad.update((good, cluster.desired))
    for _ in range(20):
        cluster.tick()
    assert (cluster.cohort().weight, cluster.cohort().stable) == (25, good)
    assert "nobody is blamed" in cluster.cohort().message
    cluster.bad.clear()
    cluster.until(Cluster.finished)
    assert cluster.cohort().stable == cluster.desired
