"""Rollouts without spare GPUs: pods are swapped a few at a time, told as stories on a simulated cluster."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kohort.api.cohorts import Mirror
from kohort.api.spec import GPU, GPUCapacity, Spec
from kohort.api.status import CohortPhase, Phase
from kohort.plan.outcome import EnsureDeployment
from kohort.plan.revisions import revision_name
from kohort.plan.world import Problem
from tests.unit.plan_simulation import NAME, START, Cluster, Cohort, Step, model, serving

SWAP = GPU(capacity=GPUCapacity.SWAP)
EVERYONE = Cohort(
    name="everyone",
    after=("staff",),
    steps=(Step(weight=25, hold="1m"), Step(weight=50, hold="1m")),
)
NO_GPU = Problem("WaitingForGPU", "no node has 1 nvidia.com/gpu free")


def swap(version: int, replicas: int = 4, *steps: Step) -> Spec:
    """A model on a cluster with no spare GPUs."""
    cohort = Cohort(name="everyone", steps=steps or EVERYONE.steps)
    return model(version, replicas=replicas, gpu=SWAP, cohorts=(cohort,))


@pytest.mark.parametrize("replicas", [2, 3, 4, 7, 16])
def test_a_swap_needs_no_spare_gpu_and_never_leaves_an_arm_without_its_pods(replicas: int) -> None:
    cluster = serving(swap(1, replicas))
    v1, cluster.gpus = cluster.desired, replicas
    few = max(1, replicas // 4)
    cluster.edit(swap(2, replicas))
    v2 = cluster.desired
    while not cluster.finished():
        cluster.tick()
        weight = cluster.cohort().weight if cluster.cohort().canary else 100
        for name, share in ((v1, 100 - weight), (v2, weight)):
            if share and cluster.cohort().stable == v1 and name in cluster.pods:
                assert cluster.pods[name].ready >= max(1, replicas * share / 100 - few - 1)
    cluster.until(lambda c: v1 not in c.pods)
    cluster.tick()
    assert (cluster.pods[v2].wanted, cluster.pods[v2].ready) == (replicas, replicas)
    assert cluster.phase() is Phase.HEALTHY


def test_without_spare_gpus_pods_are_replaced_by_taking_some_away_but_never_the_only_one() -> None:
    for replicas, spare in ((4, False), (1, True)):
        cluster = serving(swap(1, replicas, Step(weight=100)))
        (kept,) = cluster.decide().actions
        assert isinstance(kept, EnsureDeployment)
        assert kept.spare is spare
    (kept,) = serving(model(1)).decide().actions
    assert isinstance(kept, EnsureDeployment)
    assert kept.spare


def test_the_weight_of_a_swap_follows_the_pods_and_its_clients_are_watched_on_the_way() -> None:
    cluster = serving(swap(1, 4, Step(weight=100)))
    cluster.gpus = 4
    cluster.edit(swap(2, 4, Step(weight=100)))
    seen: dict[int, bool] = {}
    while not cluster.finished():
        cluster.pass_time(1)
        cluster.decide()
        cluster.start_pods()
        cluster.update_gateways()
        seen[cluster.cohort().weight] = bool(cluster.cohort().evidence)
    assert list(seen) == [0, 25, 50, 100]
    assert seen[25]
    assert seen[50]


def test_clients_on_their_way_are_watched_also_after_a_step_of_mirrored_requests() -> None:
    steps = Step(weight=0, mirror=Mirror(percent=10), hold="10s"), Step(weight=100)
    cluster = serving(swap(1, 4, *steps))
    cluster.gpus = 4
    cluster.edit(swap(2, 4, *steps))
    seen: dict[int, set[str]] = {}
    while not cluster.finished():
        cluster.tick(1)
        seen[cluster.cohort().weight] = {e.metric for e in cluster.cohort().evidence}
        assert cluster.now < START + timedelta(minutes=5), cluster.status.message
    assert seen[25] == seen[50] == {"mirror", "errors", "latency"}


def test_harm_on_the_way_of_a_swap_gives_all_pods_back() -> None:
    cluster = serving(swap(1, 4, Step(weight=100)))
    v1, cluster.gpus = cluster.desired, 4
    cluster.edit(swap(2, 4, Step(weight=100)))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().weight == 25)
    for _ in range(3):
        cluster.pods[cluster.desired].ready = 1
        cluster.pods[cluster.desired].problem = NO_GPU
        cluster.tick()
    assert cluster.cohort().phase is CohortPhase.ROLLED_BACK
    cluster.until(lambda c: list(c.pods) == [v1])
    cluster.tick()
    assert cluster.pods[v1].ready == 4


def test_a_swap_that_is_given_up_goes_back_as_it_came() -> None:
    cluster = serving(swap(1, 4))
    v1, cluster.gpus = cluster.desired, 4
    cluster.edit(swap(2, 4))
    v2 = cluster.desired
    cluster.until(lambda c: c.cohort().weight == 50)
    cluster.tick()
    assert (cluster.pods[v1].wanted, cluster.pods[v2].wanted) == (2, 2)
    cluster.edit(swap(1, 4))
    weights = []
    while not cluster.finished():
        cluster.tick()
        weights.append(cluster.cohort().weight)
        assert cluster.pods[v1].ready >= 1
    assert weights == sorted(weights, reverse=True)
    cluster.until(lambda c: list(c.pods) == [v1])
    cluster.tick()
    assert cluster.pods[v1].ready == 4


def test_a_single_pod_cannot_be_swapped_and_waits_for_a_spare_gpu() -> None:
    cluster = serving(swap(1, 1))
    v1, cluster.gpus = cluster.desired, 1
    cluster.edit(swap(2, 1))
    for _ in range(5):
        cluster.tick()
    assert cluster.pods[v1].ready == 1
    assert cluster.cohort().weight == 0
    cluster.gpus = 2
    cluster.until(Cluster.finished)


def test_a_look_at_pods_that_others_use_needs_no_more_of_them_than_there_are() -> None:
    """Five pods of two revisions with a load each: one of them has two, and is to have no more."""
    cohorts = (
        Cohort(name="a", steps=(Step(weight=100),)),
        Cohort(name="all", after=("a",), steps=(Step(weight=0, hold="5s"), Step(weight=100))),
    )
    cluster = serving(model(1, replicas=5, gpu=SWAP, cohorts=cohorts))
    for version in (2, 3, 4, 5):  # names decide who gets the odd pod
        cluster.edit(model(version, replicas=5, gpu=SWAP, cohorts=cohorts))
        cluster.shares.clear()
        cluster.until(Cluster.finished)


@pytest.mark.parametrize("order", [("held", "served"), ("served", "held")])
def test_a_cohort_that_was_held_before_its_first_revision_gets_it_without_spare_gpus(
    order: tuple[str, str],
) -> None:
    steps = (Step(weight=50, hold="5s"),)
    cohorts = (
        Cohort(name=order[0], steps=steps),
        Cohort(name=order[1], steps=steps, after=order[:1]),
    )

    def spec(version: int) -> Spec:
        return model(version, replicas=3, gpu=SWAP, cohorts=cohorts)

    cluster = Cluster(spec(1), gpus=3)
    cluster.command = "pause held id=1"
    cluster.decide()
    cluster.until(lambda c: c.cohort("served").phase is CohortPhase.STABLE)
    assert cluster.cohort("held").stable == ""
    cluster.edit(spec(2))
    cluster.command = "resume held id=2"
    cluster.until(Cluster.finished)
    assert {c.stable for c in cluster.status.cohorts} == {cluster.desired}


def test_where_gpus_come_from_makes_no_revision() -> None:
    assert revision_name(NAME, model(1, gpu=SWAP)) == revision_name(NAME, model(1, gpu=GPU()))
    assert revision_name(NAME, model(1, gpu=SWAP)) != revision_name(NAME, model(1))
