"""What metrics and their minimum of clients do to a rollout."""

from __future__ import annotations

from msgspec import structs

from kohort.api.analysis import Analysis, Metric, MetricName
from kohort.api.cohorts import Cohort, Step
from kohort.api.status import CohortPhase
from tests.unit.plan_simulation import Cluster, model, serving


def test_a_slower_revision_goes_back_with_figures() -> None:
    cluster = serving(model(1))
    good = cluster.desired
    cluster.edit(model(2))
    cluster.slow.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    assert cluster.cohort().stable == good
    assert cluster.cohort().message.startswith("v2 went back to v1: canary answers took ")


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
