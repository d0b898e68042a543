"""What metrics and their minimum of clients do to a rollout."""

from __future__ import annotations

from datetime import timedelta

from msgspec import structs

from kohort.analysis.split import split
from kohort.api.analysis import Analysis, Metric, MetricName, Role
from kohort.api.cohorts import Cohort, Step, Until
from kohort.api.status import CohortPhase, CohortStatus, Verdict
from kohort.observe.counters import Cell
from kohort.plan.context import Context, Identity
from tests.unit.plan_simulation import START, Cluster, model, serving

ONE_STEP = Cohort(name="everyone", steps=(Step(weight=25, hold="30s"),))


def test_a_slower_revision_goes_back_with_figures() -> None:
    cluster = serving(model(1))
    good = cluster.desired
    cluster.edit(model(2))
    cluster.slow.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    assert cluster.cohort().stable == good
    assert cluster.cohort().message.startswith("v2 went back to v1: canary answers took ")


def test_a_metric_that_is_watched_is_told_and_sends_nobody_back() -> None:
    metrics = (Metric(name="errors"), Metric(name="latency", role=Role.WATCHED))
    watching = Analysis(metrics=metrics)
    cluster = serving(model(1, analysis=watching))
    cluster.edit(model(2, analysis=watching))
    cluster.slow.add(cluster.desired)
    cluster.until(Cluster.finished)
    errors, latency = cluster.cohort().evidence
    assert (errors.verdict is not Verdict.FAIL, errors.watched) == (True, False)
    assert (latency.verdict, latency.watched) == (Verdict.FAIL, True)
    assert latency.message in cluster.cohort().decisions[0].message


def test_a_watched_metric_takes_no_share_of_the_error_budget() -> None:
    def alone(*metrics: Metric) -> float:
        spec = model(1, analysis=Analysis(metrics=metrics))
        context = Context(Identity("n", "m", "u", 1), spec, Cluster(spec).world(), START)
        return context.alpha(CohortStatus(name="everyone"))

    errors = Metric(name="errors")
    assert alone(errors, Metric(name="latency", role=Role.WATCHED)) == alone(errors)
    assert alone(errors, Metric(name="latency")) < alone(errors)


def test_latency_that_is_not_listed_decides_nothing() -> None:
    errors = Analysis(metrics=(Metric(name=MetricName.ERRORS),))
    cluster = serving(model(1, analysis=errors))
    cluster.edit(model(2, analysis=errors))
    cluster.slow.add(cluster.desired)
    cluster.until(Cluster.finished)


def test_a_step_waits_until_enough_clients_have_called() -> None:
    errors = Metric(name=MetricName.ERRORS, min_clients=100)
    steps = (Step(weight=5, hold="10s"),)
    spec = model(1, cohorts=(Cohort(name="everyone", steps=steps),))
    spec = structs.replace(spec, analysis=Analysis(metrics=(errors,)))
    cluster = serving(spec)
    cluster.edit(structs.replace(spec, model=model(2).model))
    cluster.until(lambda c: c.cohort().step_started_at is not None)
    told = []
    for _ in range(4):
        cluster.pass_time(5)
        cluster.serve(20)
        cluster.read_counters()
        cluster.decide()
        told.append(cluster.cohort().message)
    assert any("errors waits for clients: " in m and " of 13 client slots" in m for m in told)
    cluster.until(Cluster.finished)


def test_an_accused_canary_stays_longer_on_its_step_but_not_for_ever() -> None:
    """One client's requests fail: that may be the client, so that slots do not bear out any harm."""
    cluster = serving(model(1, cohorts=(ONE_STEP,)))
    cluster.edit(model(2, cohorts=(ONE_STEP,)))
    cluster.until(lambda c: c.cohort().step_started_at is not None)
    began, cohort = cluster.now, cluster.cohort()
    shares = split(cohort.weight, cohort.salt)
    client = Cell(cohort.canary, next(share.slot for share in shares if share.canary), None)
    while cluster.cohort().weight == ONE_STEP.steps[0].weight:
        for counted in cluster.counters.values():
            counted["everyone"][client] = counted["everyone"].get(client, 0) + 20
        cluster.tick()
        if cluster.now - began == timedelta(seconds=60):
            assert "stays, as it is accused: " in cluster.cohort().message
    assert timedelta(seconds=120) <= cluster.now - began <= timedelta(seconds=140)
    cluster.until(Cluster.finished)


def passing(hold: str, margin: str) -> Cluster:
    """A rollout whose one step passes by what would have been seen, on its way."""
    errors = Metric(name=MetricName.ERRORS, margin=margin)
    steps = (Step(weight=25, hold=hold, until=Until.PASS),)
    spec = model(1, cohorts=(Cohort(name="everyone", steps=steps),))
    spec = structs.replace(spec, analysis=Analysis(metrics=(errors,)))
    cluster = serving(spec)
    cluster.edit(structs.replace(spec, model=model(2).model))
    cluster.until(lambda c: c.cohort().step_started_at is not None)
    return cluster


def test_a_step_passes_after_its_hold_once_harm_of_the_margin_would_have_been_seen() -> None:
    cluster = passing("10s", "2%")
    for _ in range(6):
        cluster.tick()
    assert cluster.cohort().weight == 25
    assert "harm of 2% of requests would not have been seen yet; a failed share of " in (
        cluster.cohort().message
    )
    cluster.until(Cluster.finished)
    told = next(e for e in cluster.events if e.reason == "StepPassed")
    assert told.message.startswith("everyone: 25%: no harm was seen; a failed share of ")


def test_a_step_passes_no_sooner_than_its_hold() -> None:
    cluster = passing("10m", "90%")
    for _ in range(60):
        cluster.tick()
    assert cluster.cohort().weight == 25
    assert cluster.cohort().message.startswith("25%: holds until ")
    cluster.until(Cluster.finished)


def test_harm_sends_back_what_waits_to_pass() -> None:
    cluster = passing("1h", "1%")
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
