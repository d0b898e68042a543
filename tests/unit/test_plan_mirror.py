"""A step in which both revisions answer some requests once more, and only their answers decide."""

from __future__ import annotations

from kohort.api.cohorts import Mirror
from kohort.api.status import CohortPhase, Verdict
from kohort.contract import MIRROR
from tests.unit.plan_simulation import Cluster, Cohort, Step, model, serving

STEPS = (Step(weight=0, mirror=Mirror(percent=10), hold="1m"), Step(weight=50, hold="1m"))
EVERYONE = Cohort(name="everyone", steps=STEPS)


def mirroring(*, bad: bool = False) -> Cluster:
    """A cluster whose first mirrored step has just begun."""
    cluster = serving(model(1, cohorts=(EVERYONE,)))
    cluster.edit(model(2, cohorts=(EVERYONE,)))
    if bad:
        cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().step_started_at is not None)
    return cluster


def test_a_revision_that_fails_where_stable_does_not_goes_back_before_it_has_a_client() -> None:
    cluster = mirroring(bad=True)
    weights = {0}
    while cluster.cohort().phase is not CohortPhase.ROLLED_BACK:
        cluster.tick()
        weights.add(cluster.cohort().weight)
    assert weights == {0}
    assert cluster.cohort().rejected == cluster.desired
    assert "failed on the canary alone and 0 on stable alone" in cluster.cohort().message
    (seen,) = cluster.cohort().evidence
    assert (seen.metric, seen.verdict) == ("mirror", Verdict.FAIL)


def test_answers_that_differ_are_told_and_hold_nothing_up() -> None:
    cluster = mirroring()
    cluster.until(lambda c: c.cohort().weight == 50)
    (seen,) = cluster.cohort().evidence
    assert seen.verdict is Verdict.INSUFFICIENT
    pairs = seen.canary.requests
    assert pairs > 0
    assert seen.message == (
        f"of {pairs:,} mirrored requests 0 failed on the canary alone and 0 on stable alone; "
        f"{pairs:,} answers differ"
    )
    cluster.until(Cluster.finished)
    metrics = [e.metric for e in cluster.cohort().evidence]
    assert metrics == ["errors", "latency", "mirror"]
    assert cluster.cohort().evidence[2].canary.requests == pairs


def test_requests_are_mirrored_in_this_step_alone() -> None:
    cluster = serving(model(1, cohorts=(EVERYONE,)))
    cluster.edit(model(2, cohorts=(EVERYONE,)))
    seen = set()
    while not cluster.finished():
        cluster.tick()
        table = cluster.table()
        assert table is not None
        cohort = cluster.cohort()
        seen.add((bool(cohort.canary), cohort.step, table.cohorts[0].mirror))
    assert seen == {(True, 0, 10), (True, 1, 0), (True, 2, 0), (False, 0, 0)}


def test_a_step_is_not_over_before_a_request_was_compared() -> None:
    cluster = mirroring()
    for _ in range(60):
        cluster.pass_time(5)
        cluster.read_counters()
        cluster.decide()
    assert cluster.cohort().step == 0
    assert "no mirrored request was compared yet" in cluster.cohort().message
    cluster.until(Cluster.finished)


def test_counts_that_cannot_be_read_hold_the_step_and_say_so() -> None:
    cluster = mirroring()
    cluster.tick()
    for _ in range(60):
        cluster.pass_time(5)
        cluster.serve()
        cluster.read_counters(unreachable=("gateway-a",))
        cluster.decide()
    assert cluster.cohort().step == 0
    assert "mirrored requests could not be read: gateway-a" in cluster.cohort().message
    assert cluster.cohort().evidence[0].verdict is Verdict.METRICS_ERROR
    cluster.until(Cluster.finished)


def test_time_before_pairs_could_first_be_counted_does_not_count() -> None:
    cluster = serving(model(1, cohorts=(EVERYONE,)))
    cluster.edit(model(2, cohorts=(EVERYONE,)))
    while not cluster.cohort().step_started_at:
        cluster.pass_time(5)
        cluster.start_pods()
        cluster.update_gateways()
        cluster.decide()
    cluster.pass_time(600)
    cluster.tick()
    cluster.tick()
    assert cluster.cohort().evidence[0].canary.requests > 0
    for _ in range(10):
        assert cluster.cohort().weight == 0
        cluster.tick()
    cluster.until(Cluster.finished)


def test_pairs_in_which_both_fare_alike_never_send_anybody_back() -> None:
    cluster = mirroring()
    for _ in range(20):
        cluster.tick()
        pairs = cluster.counters["gateway-a"]["everyone" + MIRROR]
        for cell in list(pairs):
            for took in (None, 0):
                same = cell._replace(took=took)
                pairs[same] = pairs.get(same, 0) + 5
    cluster.until(Cluster.finished)
