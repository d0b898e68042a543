"""Rollouts told as stories, on a simulated cluster."""

from __future__ import annotations

import pytest
from msgspec import structs

from kohort.api.analysis import MetricName
from kohort.api.spec import OnFailure
from kohort.api.status import CohortPhase, Phase, Status, Verdict
from kohort.plan.capacity import awaits_gateways
from kohort.plan.outcome import EnsureDeployment, EventType, RecordRevision, RemoveDeployment
from kohort.plan.planner import Identity, plan
from kohort.plan.revisions import revision_name
from kohort.plan.world import Problem, World
from tests.unit.plan_simulation import NAME, START, Cluster, Cohort, Step, Until, model, serving

TWO = (
    Cohort(name="staff", steps=(Step(weight=100),)),
    Cohort(name="everyone", after=("staff",)),
)


def condition(status: Status, kind: str) -> tuple[str, str] | None:
    """Status and reason of a condition."""
    return next(((c.status, c.reason) for c in status.conditions if c.type == kind), None)


def test_the_first_revision_serves_once_all_of_its_pods_are_ready() -> None:
    cluster = Cluster(model(1, replicas=2))
    assert cluster.decide().actions == (RecordRevision(cluster.desired, 1),)
    written = cluster.status
    assert cluster.decide().actions == (EnsureDeployment(cluster.desired, 2),)
    assert cluster.status == written
    cluster.pods[cluster.desired].ready = 1
    cluster.decide()
    assert cluster.cohort().stable == ""
    assert cluster.cohort().message == "1 of 2 pods of v1 are ready"
    assert cluster.status.phase == "Pending"
    cluster.start_pods()
    cluster.decide()
    assert cluster.cohort().stable == cluster.desired
    assert cluster.status.phase == "Progressing"
    assert "waits for gateway" in cluster.status.message
    cluster.update_gateways()
    cluster.decide()
    assert cluster.status.phase == "Healthy"
    assert cluster.status.message == "v1 serves every client with 2 of 2 pods ready"
    assert condition(cluster.status, "Ready") == ("True", "Promoted")
    assert condition(cluster.status, "Reconciling") is None


def test_a_harmless_revision_is_promoted_step_by_step() -> None:
    cluster = serving(model(1, replicas=4))
    cluster.edit(model(2, replicas=4))
    weights = []
    while not cluster.finished():
        cluster.tick()
        weights.append(cluster.cohort().weight)
    assert list(dict.fromkeys(weights)) == [0, 5, 25, 50, 100]
    assert [e.reason for e in cluster.events] == [
        "RevisionWanted",
        "RolloutStarted",
        "WeightChanged",
        "WeightChanged",
        "WeightChanged",
        "WeightChanged",
        "Promoted",
    ]
    assert cluster.cohort().decisions[0].action == "Promoted"
    assert "canary requests failed against" in cluster.cohort().decisions[0].message


def test_a_harmful_revision_goes_back_at_once_and_is_not_tried_again() -> None:
    cluster = serving(model(1))
    good = cluster.desired
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    cohort = cluster.cohort()
    assert (cohort.stable, cohort.canary, cohort.weight) == (good, "", 0)
    assert cohort.rejected == cluster.desired
    assert cohort.message.startswith("v2 went back to v1: ")
    assert cohort.evidence[0].verdict is Verdict.FAIL
    assert cohort.evidence[0].state == ""
    assert cluster.events[-1].type is EventType.WARNING
    for _ in range(50):
        cluster.tick()
    assert cluster.cohort().canary == ""
    assert cluster.status.phase is Phase.DEGRADED
    assert condition(cluster.status, "Ready") == ("False", "RolledBack")
    assert condition(cluster.status, "Stalled") == ("True", "RolledBack")
    assert list(cluster.pods) == [good]


def test_a_rollback_is_under_way_until_no_gateway_has_the_former_routes() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    assert cluster.status.phase is Phase.ROLLING_BACK
    cluster.decide()
    assert cluster.status.phase is Phase.ROLLING_BACK
    cluster.update_gateways()
    cluster.decide()
    assert cluster.status.phase is Phase.DEGRADED


def test_clients_of_a_canary_that_the_spec_asks_for_no_more_are_on_their_way_back() -> None:
    cluster = serving(model(1, replicas=2))
    cluster.edit(model(2, replicas=2))
    cluster.until(lambda c: c.cohort().weight == 50)
    cluster.pods[cluster.cohort().stable].ready = 0  # nobody to go back to, yet
    cluster.edit(model(1, replicas=2))
    cluster.decide()
    assert cluster.cohort().weight == 50
    assert cluster.status.phase is Phase.ROLLING_BACK
    cluster.until(Cluster.finished)
    cluster.tick()
    assert cluster.status.phase is Phase.HEALTHY


def test_a_cohort_that_goes_back_with_another_is_rolling_back_until_it_is_there() -> None:
    cohorts = (Cohort(name="first"), Cohort(name="second", after=("first",)))
    cluster = serving(model(1, cohorts=cohorts, on_failure=OnFailure.ROLL_BACK_ALL))
    good = cluster.desired
    cluster.edit(model(2, cohorts=cohorts, on_failure=OnFailure.ROLL_BACK_ALL))
    cluster.until(lambda c: c.cohort("second").weight > 0)
    cluster.bad.add(cluster.desired)
    phases = []
    while not (cluster.cohort("first").stable == good and cluster.status.phase == "Degraded"):
        cluster.tick()
        phases.append(cluster.status.phase)
    assert list(dict.fromkeys(phases))[-2:] == ["RollingBack", "Degraded"]


def test_a_deleted_record_is_made_again_if_the_spec_can_tell_what_was_in_it() -> None:
    cluster = serving(model(1))
    cluster.records.clear()
    cluster.tick()
    assert cluster.records == {cluster.desired: 1}
    assert condition(cluster.status, "Recorded") is None


def test_a_deleted_record_that_nobody_can_make_again_is_told_and_its_pods_serve_on() -> None:
    cluster = serving(model(1))
    good = cluster.desired
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.status.phase is Phase.DEGRADED)
    number = cluster.records.pop(good)
    for _ in range(5):
        cluster.tick()
    assert condition(cluster.status, "Recorded") == ("False", "RecordDeleted")
    assert cluster.cohort().stable == good
    assert cluster.pods[good].ready == 1
    cluster.records[good] = number
    cluster.tick()
    assert condition(cluster.status, "Recorded") is None


def test_an_outage_after_a_rollback_is_said_before_the_rollback() -> None:
    cluster = serving(model(1))
    good = cluster.desired
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    cluster.pods[good].ready = 0
    cluster.decide()
    assert condition(cluster.status, "Available") == ("False", "NoReadyPods")
    assert cluster.status.message.startswith("no ready pod serves everyone; everyone: v2 went back")


def test_the_first_model_applied_again_after_a_rollback_is_healthy_at_once() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    cluster.edit(model(1))
    cluster.tick()
    assert cluster.finished()
    assert cluster.cohort().rejected == ""
    assert cluster.status.phase is Phase.HEALTHY


def test_one_cohort_goes_back_alone() -> None:
    singles, batchers = Cohort(name="singles"), Cohort(name="batchers")
    cluster = serving(model(1, cohorts=(batchers, singles)))
    v1 = cluster.desired
    cluster.edit(model(2, cohorts=(batchers, singles)))

    cluster.until(lambda c: c.cohort("batchers").weight > 0)
    arms = cluster.counters["gateway-a"]["batchers"]
    cluster.tick()
    cluster.tick()
    for cell in [cell for cell in arms if cell.revision == cluster.desired]:
        failed = cell._replace(took=None)
        arms[failed] = arms.get(failed, 0) + 10
    cluster.until(lambda c: c.cohort("batchers").phase is CohortPhase.ROLLED_BACK)
    cluster.until(lambda c: c.cohort("singles").phase is CohortPhase.STABLE)
    assert cluster.cohort("batchers").stable == v1
    assert cluster.cohort("singles").stable == cluster.desired
    assert set(cluster.pods) == {v1, cluster.desired}
    assert cluster.status.summary.stable == "v1,v2"


def test_a_cohort_waits_for_those_it_names_and_says_so() -> None:
    cluster = serving(model(1, cohorts=TWO))
    cluster.edit(model(2, cohorts=TWO))
    cluster.decide()
    cluster.decide()
    assert cluster.cohort("staff").phase is CohortPhase.PREPARING
    assert cluster.cohort("everyone").message == "waits for staff"
    cluster.until(lambda c: c.cohort("staff").phase is CohortPhase.STABLE)
    assert cluster.cohort("everyone").phase is CohortPhase.PREPARING


def test_a_cohort_that_waits_for_a_rolled_back_one_stays_and_says_so() -> None:
    first = Cohort(name="first")
    last = Cohort(name="last", after=("first",))
    cluster = serving(model(1, cohorts=(first, last)))
    cluster.edit(model(2, cohorts=(first, last)))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort("first").phase is CohortPhase.ROLLED_BACK)
    cluster.tick()
    assert cluster.cohort("last").phase is CohortPhase.WAITING
    assert cluster.cohort("last").message == (
        "waits for first, which went back to v1; apply another model, or take it out of after"
    )
    assert cluster.status.phase is Phase.DEGRADED
    assert condition(cluster.status, "Reconciling") is None


def test_cohorts_that_wait_for_each_other_are_told_so() -> None:
    circle = (Cohort(name="a", after=("b",)), Cohort(name="b", after=("a",)))
    cluster = serving(model(1, cohorts=circle))
    cluster.edit(model(2, cohorts=circle))
    cluster.tick()
    cluster.tick()
    assert "wait for each other" in cluster.cohort("a").message
    assert condition(cluster.status, "Stalled") == ("True", "CircularAfter")


def test_an_unknown_name_in_after_is_ignored_and_told() -> None:
    cohorts = (Cohort(name="everyone", after=("nobody",)),)
    cluster = serving(model(1, cohorts=cohorts))
    cluster.edit(model(2, cohorts=cohorts))
    cluster.until(Cluster.finished)
    assert condition(cluster.status, "Accepted") == ("False", "UnknownCohort")


@pytest.mark.parametrize(
    ("namespace", "name", "kind", "told"),
    [
        ("v2", "burger", "Accepted", ("True", "ByHostOnly")),
        ("v2", "burger.king", "Accepted", None),
        ("v2", "burger.king", "Stalled", ("True", "NoAddress")),
        ("shop", "burger.king", "Stalled", None),
    ],
)
def test_a_model_that_has_no_path_at_a_gateway_says_so(
    namespace: str, name: str, kind: str, told: tuple[str, str] | None
) -> None:
    identity = Identity(namespace, name, "uid", 1)
    outcome = plan(identity, model(1), Status(), World(), START)
    assert condition(outcome.status, kind) == told


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


def test_a_revision_whose_pods_fail_stalls_and_touches_nothing() -> None:
    cluster = serving(model(1, replicas=2))
    v1 = cluster.desired
    cluster.edit(model(2, replicas=2))
    cluster.decide()
    cluster.decide()
    cluster.pods[cluster.desired].problem = Problem(
        "ModelNotFound", "no file /models/2.onnx: correct the uri"
    )
    outcome = cluster.decide()
    assert outcome.wake_after == 600
    cluster.tick(601)
    assert cluster.cohort().weight == 0
    assert cluster.cohort().message == (
        "before 5%: 0 of 1 pods of v2 are ready: no file /models/2.onnx: correct the uri"
    )
    assert condition(cluster.status, "Stalled") == ("True", "ProgressDeadlineExceeded")
    assert condition(cluster.status, "Reconciling") is None
    assert condition(cluster.status, "Available") == ("True", "Serving")
    assert condition(cluster.status, "Ready") == ("False", "ModelNotFound")
    assert cluster.pods[v1].ready == 2
    assert [e.reason for e in cluster.events].count("ProgressDeadlineExceeded") == 1


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
    assert cluster.status.phase is Phase.PAUSED
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


def test_a_third_model_in_the_middle_takes_clients_off_the_second_first() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().weight == 25)
    v2 = cluster.desired
    cluster.update_gateways()
    cluster.edit(model(3))
    cluster.decide()
    assert (cluster.cohort().canary, cluster.cohort().weight) == (v2, 0)
    cluster.update_gateways()
    cluster.decide()
    assert (cluster.cohort().canary, cluster.cohort().weight) == (cluster.desired, 0)
    assert cluster.cohort().decisions[0].action == "Superseded"
    cluster.until(Cluster.finished)
    assert cluster.cohort().stable == cluster.desired != v2


def test_a_canary_keeps_its_pods_until_its_clients_have_left() -> None:
    steps = (Step(weight=5, hold="1m"), Step(weight=50, hold="1m"))
    cohorts = (Cohort(name="everyone", steps=steps),)
    cluster = serving(model(1, replicas=4, cohorts=cohorts))
    cluster.edit(model(2, replicas=4, cohorts=cohorts))
    v2 = cluster.desired
    cluster.until(lambda c: c.cohort().weight == 50)
    cluster.update_gateways()
    cluster.edit(model(3, replicas=4, cohorts=cohorts))
    cluster.decide()
    assert cluster.cohort().weight == 0
    assert cluster.pods[v2].wanted == 2
    cluster.decide()
    assert cluster.pods[v2].wanted == 2


def test_a_model_that_comes_back_in_the_middle_starts_again_at_its_first_step() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().weight == 25)
    cluster.edit(model(3))
    cluster.decide()
    cluster.edit(model(2))
    cluster.decide()
    assert (cluster.cohort().weight, cluster.cohort().step) == (0, 0)
    cluster.tick()
    assert cluster.cohort().weight == 5


def test_going_back_to_the_first_model_in_the_middle_ends_the_rollout() -> None:
    cluster = serving(model(1))
    v1 = cluster.desired
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().weight == 25)
    cluster.edit(model(1))
    cluster.until(Cluster.finished)
    assert cluster.cohort().stable == v1
    assert cluster.cohort().decisions[0].message == "v2 was given up: the spec asks for v1"
    for _ in range(5):
        cluster.tick()
    assert list(cluster.pods) == [v1]


def test_a_model_corrected_before_it_was_recorded_leaves_no_trace() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.decide(actions_done=0)
    cluster.edit(model(3))
    cluster.decide()
    assert [(r.uri, r.number) for r in cluster.status.revisions] == [
        ("file:///models/1.onnx", 1),
        ("file:///models/3.onnx", 3),
    ]


def test_a_new_cohort_starts_where_its_clients_were_and_a_removed_one_is_gone() -> None:
    cluster = serving(model(1))
    v1 = cluster.desired
    cluster.edit(model(2, cohorts=(Cohort(name="vip"), Cohort(name="rest"))))
    cluster.decide()
    assert [(c.name, c.stable) for c in cluster.status.cohorts] == [("vip", v1), ("rest", v1)]
    cluster.until(Cluster.finished)


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


def test_more_replicas_reach_the_stable_revision_at_once() -> None:
    cluster = serving(model(1, replicas=2))
    cluster.edit(model(1, replicas=5))
    assert cluster.decide().actions == (EnsureDeployment(cluster.desired, 5),)
    assert condition(cluster.status, "Ready") == ("False", "PodsNotReady")
    cluster.tick()
    assert condition(cluster.status, "Ready") == ("True", "Promoted")


def test_a_deployment_that_vanished_is_there_again() -> None:
    cluster = serving(model(1, replicas=2))
    del cluster.pods[cluster.desired]
    cluster.decide()
    assert cluster.pods[cluster.desired].wanted == 2
    assert condition(cluster.status, "Available") == ("False", "NoReadyPods")


def test_the_former_revision_goes_after_requests_had_time_to_end() -> None:
    cluster = serving(model(1, cohorts=TWO[:1], keep_warm="0s"))
    v1 = cluster.desired
    cluster.edit(model(2, cohorts=TWO[:1], keep_warm="0s"))
    cluster.until(Cluster.finished)
    cluster.update_gateways()
    assert cluster.decide().wake_after == 10
    cluster.pass_time(9)
    assert v1 in cluster.pods
    cluster.pass_time(1)
    assert cluster.decide().actions[-1] == RemoveDeployment(v1)
    assert list(cluster.pods) == [cluster.desired]
    assert v1 in cluster.records


def test_pods_stay_as_long_as_a_gateway_may_still_send_to_them() -> None:
    cluster = serving(model(1, cohorts=TWO[:1]))
    v1 = cluster.desired
    cluster.gateways["gateway-b"] = cluster.table()
    cluster.edit(model(2, cohorts=TWO[:1]))
    cluster.until(Cluster.finished)
    cluster.gateways["gateway-a"] = cluster.table()
    for _ in range(10):
        cluster.pass_time(60)
        cluster.decide()
    assert v1 in cluster.pods


def test_pods_of_a_rejected_revision_stay_until_every_gateway_has_left_them() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    assert awaits_gateways(cluster.status)
    for _ in range(10):
        cluster.pass_time(60)
        cluster.decide()
    assert cluster.desired in cluster.pods
    for _ in range(4):
        cluster.tick()
    assert cluster.desired not in cluster.pods
    assert not awaits_gateways(cluster.status)


def test_a_first_revision_that_never_served_goes_without_any_gateway() -> None:
    cluster = Cluster(model(1), gateways={})
    cluster.tick()
    broken = cluster.desired
    cluster.tick()
    cluster.pods[broken].problem = Problem("ModelInvalid", "no ONNX model: correct the uri")
    cluster.edit(model(2))
    for seconds in (0, 5, 10):
        cluster.pass_time(seconds)
        cluster.decide()
    assert list(cluster.pods) == [cluster.desired]


def test_a_step_says_until_when_it_holds_and_what_was_seen() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().step_started_at is not None)
    cluster.tick()
    assert cluster.cohort().message.startswith(
        "5%: holds until 12:01:40 UTC; 0 of 10 canary requests failed against 1 of 190 of stable; "
        "to show a doubled failure rate takes at least "
    )


def test_history_keeps_ten_revisions() -> None:
    cluster = serving(model(1, cohorts=TWO[:1]))
    for version in range(2, 15):
        cluster.edit(model(version, cohorts=TWO[:1]))
        cluster.until(Cluster.finished)
    for _ in range(10):
        cluster.tick()
    assert [r.number for r in cluster.status.revisions] == list(range(5, 15))
    assert cluster.records == {r.name: r.number for r in cluster.status.revisions}


def test_pods_that_nobody_knows_leave_by_the_same_way() -> None:
    cluster = serving(model(1))
    cluster.records["burger-lost"] = 7
    cluster.pods["burger-lost"] = cluster.pods[cluster.desired]
    for _ in range(4):
        cluster.tick()
    assert list(cluster.pods) == [cluster.desired]


def test_numbers_go_on_from_the_records_after_a_status_is_lost() -> None:
    cluster = serving(model(1))
    for version in (2, 3):
        cluster.edit(model(version))
        cluster.until(Cluster.finished)
    numbers = {r.name: r.number for r in cluster.status.revisions}
    cluster.status = Status()
    cluster.decide()
    assert {r.name: r.number for r in cluster.status.revisions} == numbers
    cluster.status = Status()
    cluster.edit(model(4))
    cluster.decide()
    assert {r.name: r.number for r in cluster.status.revisions} == {**numbers, cluster.desired: 4}


def test_two_records_with_one_number_are_told_apart() -> None:
    cluster = serving(model(1))
    cluster.records |= {"burger-lost": 1, "burger-other": 1}
    cluster.decide()
    numbers = [r.number for r in cluster.status.revisions]
    assert sorted(set(numbers)) == sorted(numbers)


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


def test_columns_tell_each_cohort_once() -> None:
    slow = Cohort(name="slow", steps=(Step(weight=5, hold="1h"), Step(weight=50, hold="1h")))
    fast = Cohort(name="fast", steps=(Step(weight=25, hold="1h"),))
    cluster = serving(model(1, cohorts=(slow, fast)))
    cluster.edit(model(2, cohorts=(slow, fast)))
    cluster.until(lambda c: all(s.weight for s in c.status.cohorts))
    told = cluster.status.summary
    assert (told.stable, told.canary, told.weight, told.step) == ("v1", "v2", "5%,25%", "1/2,1/1")


def test_a_revision_is_named_by_what_decides_an_answer() -> None:
    assert revision_name(NAME, model(1)) == revision_name(NAME, model(1, replicas=7, paused=True))
    assert revision_name(NAME, model(1)) != revision_name(NAME, model(1, template={"metadata": {}}))
    assert revision_name(NAME, model(1)) != revision_name(NAME, model(2))


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
