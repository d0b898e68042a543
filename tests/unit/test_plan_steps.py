"""What a step waits for: counters, gateways, time, a proof."""

from __future__ import annotations

import pytest
from msgspec import structs

from kohort.api.analysis import MetricName
from kohort.api.status import CohortPhase, Phase, Verdict
from kohort.plan.world import Problem
from tests.unit.plan_simulation import Cluster, Cohort, Step, Until, condition, model, serving


def test_a_canary_without_requests_is_never_promoted() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    for _ in range(100):
        cluster.pass_time(60)
        cluster.start_pods()
        cluster.update_gateways()
        cluster.read_counters()
        cluster.decide()
    assert cluster.cohort().weight == 5
    assert cluster.cohort().message == "5%: no request of the canary or stable was seen yet"


def test_counters_that_cannot_be_read_freeze_a_rollout_until_they_can() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().weight == 5)
    cluster.tick()
    for _ in range(100):
        cluster.pass_time(60)
        cluster.serve()
        cluster.read_counters(unreachable=("gateway-a",))
        cluster.decide()
    assert cluster.cohort().weight == 5
    assert cluster.cohort().evidence[0].verdict is Verdict.METRICS_ERROR
    assert "gateway-a: connection refused" in cluster.cohort().message
    cluster.until(Cluster.finished)


def test_a_silent_scraper_never_promotes() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().weight == 5)
    cluster.tick()
    cluster.tick()
    for _ in range(100):
        cluster.pass_time(60)
        cluster.serve()
        cluster.decide()
    assert cluster.cohort().weight == 5
    assert "waits for one more look at the counters" in cluster.cohort().message


def test_a_gateway_that_is_behind_holds_the_next_weight_back() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    for _ in range(20):
        cluster.pass_time(5)
        cluster.start_pods()
        cluster.decide()
    assert cluster.cohort().weight == 0
    assert cluster.cohort().message == "before 5%: waits for gateway gateway-a"
    cluster.gateways.clear()
    cluster.decide()
    assert cluster.cohort().message == "before 5%: no gateway is ready"


def test_paused_time_does_not_count_for_a_hold() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().step_started_at is not None)
    cluster.edit(structs.replace(cluster.spec, paused=True))
    cluster.decide()
    cluster.pass_time(3600)
    cluster.serve()
    cluster.read_counters()
    cluster.decide()
    assert cluster.phase() is Phase.PAUSED
    assert cluster.cohort().message == "paused with 5% of clients on v2"
    cluster.edit(structs.replace(cluster.spec, paused=False))
    cluster.decide()
    cluster.tick(30)
    assert cluster.cohort().weight == 5
    cluster.tick(31)
    assert cluster.cohort().weight == 25


def test_harm_sends_a_paused_cohort_back() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().weight == 5)
    cluster.edit(structs.replace(cluster.spec, paused=True))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)


def test_paused_time_does_not_bring_the_progress_deadline_nearer() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.decide()
    cluster.decide()
    cluster.pods[cluster.desired].problem = Problem("ImagePullBackOff", "correct the image")
    cluster.pass_time(300)
    cluster.edit(structs.replace(cluster.spec, paused=True))
    cluster.decide()
    cluster.pass_time(3600)
    cluster.decide()
    cluster.edit(structs.replace(cluster.spec, paused=False))
    assert cluster.decide().wake_after == 300
    assert condition(cluster.status, "Stalled") is None


def test_a_step_says_until_when_it_holds_and_what_was_seen() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().step_started_at is not None)
    cluster.tick()
    assert cluster.cohort().message.startswith(
        "5%: holds until 12:01:40 UTC; 0 of 10 canary requests failed against 1 of 190 of stable; "
        "to show a doubled failure rate takes at least "
    )


def test_a_proof_of_non_inferiority_ends_a_step() -> None:
    steps = (Step(weight=25, until=Until.NON_INFERIOR),)
    cluster = serving(model(1, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.edit(model(2, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.until(lambda c: c.cohort().weight == 25)
    for _ in range(3):
        cluster.tick()
    assert cluster.cohort().message.startswith("25%: proof at ")
    cluster.until(Cluster.finished)
    assert cluster.cohort().evidence[0].verdict is Verdict.PASS


def test_a_proof_ends_a_step_though_nothing_proves_the_guardrails() -> None:
    steps = (Step(weight=25, until=Until.NON_INFERIOR), Step(weight=60, hold="10m"))
    cluster = serving(model(1, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.edit(model(2, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.until(lambda c: c.cohort().step == 1)
    assert {e.metric: e.verdict for e in cluster.cohort().evidence} == {
        MetricName.ERRORS: Verdict.PASS,
        MetricName.LATENCY: Verdict.INSUFFICIENT,
    }


def test_a_proof_at_one_weight_is_none_at_the_next() -> None:
    steps = tuple(Step(weight=weight, until=Until.NON_INFERIOR) for weight in (25, 50))
    cluster = serving(model(1, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.edit(model(2, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.until(lambda c: c.cohort().weight == 50)
    cluster.update_gateways()
    cluster.decide()  # before anybody has read what clients of the second step got
    assert (cluster.cohort().weight, cluster.cohort().step) == (50, 1)
    assert cluster.cohort().message.endswith("nothing was seen at 50% yet")


def test_steps_without_a_gate_need_only_the_gateways() -> None:
    steps = (Step(weight=10), Step(weight=50))
    cluster = serving(model(1, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.edit(model(2, cohorts=(Cohort(name="everyone", steps=steps),)))
    weights = []
    while not cluster.finished():
        cluster.pass_time(0.01)
        cluster.start_pods()
        cluster.update_gateways()
        cluster.decide()
        weights.append(cluster.cohort().weight)
    assert list(dict.fromkeys(weights)) == [0, 10, 50, 100]


@pytest.mark.parametrize(("gateways", "told"), [(3, ""), (5, " and 2 more")])
def test_of_many_gateways_that_are_behind_some_are_named(gateways: int, told: str) -> None:
    cluster = Cluster(model(1))
    cluster.gateways = {f"gateway-{i}": None for i in range(gateways)}
    cluster.decide()
    cluster.decide()
    cluster.start_pods()
    cluster.decide()
    cluster.decide()
    assert cluster.cohort().message == f"waits for gateway gateway-0, gateway-1, gateway-2{told}"


def test_time_in_which_nobody_could_look_is_no_hold() -> None:
    """The operator was away for the whole hold; clients met the canary meanwhile."""
    steps = (Step(weight=50, hold="10s"),)
    cluster = serving(model(1, cohorts=(Cohort(name="everyone", steps=steps),)))
    cluster.edit(structs.replace(cluster.spec, model=model(2).model))
    cluster.bad.add(cluster.desired)
    while cluster.cohort().step_started_at is None:
        cluster.pass_time(1)
        cluster.start_pods()
        cluster.update_gateways()
        cluster.decide()
    cluster.pass_time(60)
    for _ in range(3):
        cluster.serve(4)
        cluster.pass_time(1)
        cluster.read_counters()
        cluster.decide()
    assert (cluster.cohort().weight, cluster.cohort().step) == (50, 0)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK, ticks=10)
