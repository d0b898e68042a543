"""Records and pods of revisions: made, made again, and gone when nobody needs them."""

from __future__ import annotations

import msgspec

from kohort.api.spec import Spec
from kohort.api.status import CohortPhase, Phase, Status
from kohort.plan.capacity import awaits_gateways
from kohort.plan.outcome import EnsureDeployment, RemoveDeployment
from kohort.plan.revisions import revision_name
from kohort.plan.world import Problem
from tests.unit.plan_simulation import NAME, TWO, Cluster, Cohort, Step, condition, model, serving


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


def test_a_revision_is_named_by_what_decides_an_answer() -> None:
    assert revision_name(NAME, model(1)) == revision_name(NAME, model(1, replicas=7, paused=True))
    assert revision_name(NAME, model(1)) != revision_name(NAME, model(1, template={"metadata": {}}))
    assert revision_name(NAME, model(1)) != revision_name(NAME, model(2))


def test_a_default_that_is_written_out_makes_no_other_revision() -> None:
    def name(**written: object) -> str:
        return revision_name(
            NAME, msgspec.convert({"model": {"uri": "file:///m"}, **written}, Spec)
        )

    engine = {"type": "ONNXRuntime", "precision": "FP32"}
    gpu = {
        "count": 1,
        "resource": "/".join(("nvidia.com", "gpu")),
        "products": [],
        "claimTemplate": "",
    }
    assert name(engine=engine) == name()
    assert name(gpu={}) == name(gpu=gpu) == name(gpu={"capacity": "Swap"}) != name()
    assert name(gpu={"resource": "nvidia.com/mig-1g.10gb"}) != name(gpu={})
