"""How many pods each revision has in the middle of a rollout, told as stories on a simulated cluster."""

from __future__ import annotations

import pytest
from msgspec import structs

from kohort.api.spec import GPU, Spec
from kohort.api.status import CohortPhase, EngineStatus, EngineTable, Phase
from kohort.plan.revisions import revision_name
from kohort.plan.world import Problem
from tests.unit.plan_simulation import NAME, Cluster, Cohort, Step, model, serving

STAFF = Cohort(name="staff", steps=(Step(weight=100, hold="1m"),))
EVERYONE = Cohort(
    name="everyone",
    after=("staff",),
    steps=(Step(weight=25, hold="1m"), Step(weight=50, hold="1m")),
)
NO_GPU = Problem("WaitingForGPU", "no node has 1 nvidia.com/gpu free")


def staffed(version: int, replicas: int = 20) -> Spec:
    """A model with few clients among the staff and many elsewhere."""
    return model(version, replicas=replicas, cohorts=(STAFF, EVERYONE))


def requests(cluster: Cluster, **shares: int) -> None:
    """What each cohort sent so far, as the operator has measured it."""
    whole = sum(shares.values())
    cluster.shares = {name: share / whole for name, share in shares.items()}


def test_a_small_cohort_gets_a_small_canary_even_for_all_of_its_clients() -> None:
    cluster = serving(staffed(1))
    cluster.edit(staffed(2))
    requests(cluster, staff=2, everyone=98)
    cluster.decide()
    cluster.decide()
    assert cluster.pods[cluster.desired].wanted == 1
    assert [c.share for c in cluster.status.cohorts] == [2, 98]


def test_a_cohort_of_unknown_share_gets_pods_for_all_of_them() -> None:
    cluster = serving(staffed(1))
    cluster.shares = {}
    cluster.edit(staffed(2))
    cluster.decide()
    cluster.decide()
    assert cluster.pods[cluster.desired].wanted == 20


def test_a_share_that_grows_is_followed_and_one_that_swings_or_falls_is_not() -> None:
    cluster = serving(staffed(1))
    cluster.edit(staffed(2))
    requests(cluster, staff=10, everyone=90)
    cluster.decide()
    cluster.decide()
    cluster.update_gateways()
    sizes = []
    for staff in (10, 11, 5, 20, 10):
        requests(cluster, staff=staff, everyone=100 - staff)
        cluster.decide()
        sizes.append(cluster.pods[cluster.desired].wanted)
    assert sizes == [4, 4, 4, 8, 8]


def test_shares_are_measured_anew_in_the_next_rollout() -> None:
    cluster = serving(staffed(1))
    cluster.edit(staffed(2))
    cluster.until(Cluster.finished)
    assert [c.share for c in cluster.status.cohorts] == [None, None]


def test_an_operator_that_has_forgotten_what_it_measured_wants_the_same_pods() -> None:
    cluster = serving(staffed(1))
    cluster.edit(staffed(2))
    requests(cluster, staff=2, everyone=98)
    cluster.decide()
    cluster.decide()
    cluster.shares = {}
    cluster.decide()
    assert cluster.pods[cluster.desired].wanted == 1


@pytest.mark.parametrize(("replicas", "canary"), [(8, 4), (2, 1), (30, 15)])
def test_replicas_that_change_in_the_middle_are_right_for_every_arm(
    replicas: int, canary: int
) -> None:
    half = (Cohort(name="everyone", steps=(Step(weight=50, hold="1h"),)),)
    cluster = serving(model(1, replicas=4, cohorts=half))
    v1 = cluster.desired
    cluster.edit(model(2, replicas=4, cohorts=half))
    cluster.until(lambda c: c.cohort().weight == 50)
    cluster.tick()
    cluster.edit(structs.replace(cluster.spec, replicas=replicas))
    cluster.tick()
    assert cluster.pods[v1].wanted == replicas
    assert cluster.pods[cluster.desired].wanted == canary


def test_an_autoscaler_is_told_of_the_pods_that_it_asked_for_and_not_of_the_canarys() -> None:
    half = (Cohort(name="everyone", steps=(Step(weight=50, hold="1h"),)),)
    cluster = serving(model(1, replicas=4, cohorts=half))
    cluster.edit(model(2, replicas=4, cohorts=half))
    cluster.until(lambda c: c.cohort().weight == 50)
    cluster.tick()
    assert sum(pods.ready for pods in cluster.pods.values()) == 6
    assert (cluster.status.replicas, cluster.status.ready_replicas) == (4, 6)
    assert cluster.status.selector == f"kohort.dev/model={NAME}"


def test_clients_go_back_from_a_given_up_canary_once_stable_has_its_pods() -> None:
    cluster = serving(model(1, replicas=4))
    v1, v2 = cluster.desired, revision_name(NAME, model(2))
    cluster.edit(model(2, replicas=4))
    cluster.until(lambda c: c.cohort().weight == 25)
    cluster.update_gateways()
    cluster.pods[v1].ready = 3
    cluster.edit(model(3, replicas=4))
    cluster.decide()
    assert (cluster.cohort().canary, cluster.cohort().weight) == (v2, 25)
    assert cluster.cohort().message == (
        "v2 was given up: the spec asks for v3; before: 3 of 4 pods of v1 are ready"
    )
    cluster.start_pods()
    cluster.decide()
    assert cluster.cohort().weight == 0


def test_clients_do_not_wait_on_a_canary_that_is_short_of_pods_itself() -> None:
    cluster = serving(model(1, replicas=4))
    v1, v2 = cluster.desired, revision_name(NAME, model(2))
    cluster.edit(model(2, replicas=4))
    cluster.until(lambda c: c.cohort().weight == 25)
    cluster.update_gateways()
    cluster.pods[v1].ready, cluster.pods[v2].ready = 3, 0
    cluster.edit(model(3, replicas=4))
    cluster.decide()
    assert cluster.cohort().weight == 0


def test_clients_do_not_wait_for_stable_longer_than_the_progress_deadline() -> None:
    cluster = serving(model(1, replicas=4))
    v1 = cluster.desired
    cluster.edit(model(2, replicas=4))
    cluster.until(lambda c: c.cohort().weight == 25)
    cluster.update_gateways()
    cluster.pods[v1].ready, cluster.pods[v1].problem = 3, NO_GPU
    cluster.edit(model(3, replicas=4))
    cluster.decide()
    assert cluster.cohort().weight == 25
    cluster.pass_time(601)
    cluster.decide()
    assert cluster.cohort().weight == 0


def test_harm_goes_back_at_once_and_says_that_stable_is_short() -> None:
    cluster = serving(model(1, replicas=4))
    v1 = cluster.desired
    cluster.edit(model(2, replicas=4))
    cluster.until(lambda c: c.cohort().weight == 25)
    cluster.bad.add(cluster.desired)
    cluster.pods[v1].ready, cluster.pods[v1].problem = 3, NO_GPU
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    assert cluster.pods[v1].ready == 3
    assert cluster.status.message.startswith(
        "3 of 4 pods of v1 are ready: no node has 1 nvidia.com/gpu free; everyone: v2 went back"
    )


def test_a_canary_that_waits_for_a_gpu_says_so_then_stalls_and_leaves_stable_alone() -> None:
    cluster = serving(model(1, replicas=2, gpu=GPU()))
    v1, cluster.gpus = cluster.desired, 2
    cluster.edit(model(2, replicas=2, gpu=GPU()))
    cluster.tick()
    cluster.tick()
    cluster.pods[cluster.desired].problem = NO_GPU
    cluster.tick()
    assert cluster.cohort().phase is CohortPhase.WAITING_FOR_GPU
    assert cluster.phase() is Phase.WAITING_FOR_GPU
    assert cluster.cohort().message == f"before 5%: 0 of 1 pods of v2 are ready: {NO_GPU.message}"
    conditions = {c.type: c for c in cluster.status.conditions}
    assert conditions["Ready"].reason == "WaitingForGPU"
    assert "Stalled" not in conditions
    cluster.tick(601)
    conditions = {c.type: c for c in cluster.status.conditions}
    assert conditions["Stalled"].reason == "ProgressDeadlineExceeded"
    assert NO_GPU.message in conditions["Stalled"].message
    assert (cluster.pods[v1].wanted, cluster.pods[v1].ready) == (2, 2)
    cluster.pods[cluster.desired].problem, cluster.gpus = None, 4
    cluster.until(Cluster.finished)


def test_a_first_revision_that_waits_for_a_gpu_says_so() -> None:
    cluster = Cluster(model(1, gpu=GPU()))
    cluster.decide()
    cluster.decide()
    cluster.pods[cluster.desired].problem = NO_GPU
    cluster.decide()
    assert cluster.cohort().phase is CohortPhase.WAITING_FOR_GPU
    assert cluster.phase() is Phase.WAITING_FOR_GPU


COMPILING = Problem("Compiling", "Compiling 62 %, 3 min left: building OpenVINO")
TABLE = EngineTable(tried=(EngineStatus(engine="OpenVINO", chosen=True),), choice="the fastest")


@pytest.mark.parametrize("reason", ["Compiling", "Downloading"])
def test_a_first_revision_says_what_its_pods_do_that_takes_long(reason: str) -> None:
    cluster = Cluster(model(1))
    cluster.decide()
    cluster.decide()
    cluster.pods[cluster.desired].problem = Problem(reason, f"{reason} 62 %, 3 min left")
    cluster.decide()
    assert cluster.status.phase is Phase(reason)
    assert cluster.cohort().phase is CohortPhase(reason)
    assert f"pods of v1 are ready: {reason} 62 %, 3 min left" in cluster.status.message
    conditions = {c.type: c for c in cluster.status.conditions}
    assert conditions["Ready"].reason == reason
    assert "Stalled" not in conditions


def test_what_a_canary_does_that_takes_long_is_told_while_stable_serves() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.tick()
    cluster.tick()
    cluster.pods[cluster.desired].problem = COMPILING
    cluster.tick()
    assert (cluster.status.phase, cluster.cohort().phase) == (
        Phase.COMPILING,
        CohortPhase.COMPILING,
    )
    assert cluster.cohort().message.endswith(COMPILING.message)
    cluster.pods[cluster.desired].problem = None
    cluster.until(Cluster.finished)
    assert cluster.status.phase is Phase.HEALTHY


def test_the_engines_that_a_pod_told_of_stay_known_when_nobody_tells_of_them_any_more() -> None:
    cluster = serving(model(1))
    cluster.pods[cluster.desired].engines = TABLE
    cluster.decide()
    cluster.pods[cluster.desired].engines = None
    cluster.decide()
    (revision,) = cluster.status.revisions
    assert revision.engines == TABLE
