"""Rollouts through gateways that Kohort cannot look into: nothing is taken for evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from kohort.api.cohorts import Pause
from kohort.api.routing import GatewayAPI, ParentRef, Route, RouteType
from kohort.api.spec import Spec
from kohort.api.status import Verdict
from kohort.plan.planner import Identity, plan
from kohort.plan.world import World
from tests.unit.plan_simulation import (
    KEY,
    NAME,
    Cluster,
    Cohort,
    Step,
    Until,
    condition,
    model,
    serving,
)

STEPS = (Step(weight=5, hold="1s"), Step(weight=50, hold="1s"))


def portable(
    version: int, *, by_time: bool = False, steps: tuple[Step, ...] = STEPS, replicas: int = 1
) -> Spec:
    gateway = GatewayAPI(parent_refs=(ParentRef(name="public"),), steps_by_time=by_time)
    return model(
        version,
        replicas=replicas,
        cohorts=(Cohort(name="everyone", steps=steps),),
        route=Route(type=RouteType.GATEWAY_API, gateway_api=gateway),
    )


def decide(cluster: Cluster, world: World) -> None:
    identity = Identity(KEY.namespace, NAME, "uid", cluster.generation)
    outcome = plan(identity, cluster.spec, cluster.status, world, cluster.now)
    cluster.status = outcome.status
    for action in outcome.actions:
        cluster.act(action)


def ticks(cluster: Cluster, count: int) -> None:
    for _ in range(count):
        cluster.tick()


def test_without_evidence_the_first_step_waits_for_a_person_however_much_was_counted() -> None:
    cluster = serving(portable(1))
    cluster.edit(portable(2))
    ticks(cluster, 100)
    assert cluster.cohort().weight == 5
    assert not cluster.cohort().evidence
    assert "kubectl kohort promote" in cluster.cohort().message
    assert cluster.phase() == "Paused"
    assert condition(cluster.status, "Ready") == ("False", "Paused")


def test_a_person_leads_it_from_step_to_step() -> None:
    cluster = serving(portable(1))
    cluster.edit(portable(2))
    weights = []
    for number in range(3):
        ticks(cluster, 20)
        weights.append(cluster.cohort().weight)
        cluster.command = f"promote everyone to=next id={number}"
    assert weights == [5, 50, 0]
    assert cluster.finished()


def test_time_alone_ends_the_steps_where_the_spec_says_so() -> None:
    cluster = serving(portable(1))
    cluster.edit(portable(2, by_time=True))
    cluster.bad.add(cluster.desired)  # nobody can see it
    cluster.until(Cluster.finished)
    assert cluster.cohort().decisions[0].message == "its steps compared nothing"


@pytest.mark.parametrize(
    "step", [Step(weight=5, pause=Pause()), Step(weight=5, until=Until.NON_INFERIOR)]
)
def test_time_ends_no_step_that_asks_for_a_person_or_a_proof(step: Step) -> None:
    cluster = serving(portable(1))
    cluster.edit(portable(2, by_time=True, steps=(step,)))
    ticks(cluster, 100)
    assert cluster.cohort().weight == 5


def test_a_step_with_all_clients_compares_nothing_anywhere_and_goes_by_time() -> None:
    cluster = serving(portable(1))
    cluster.edit(portable(2, steps=(Step(weight=0, hold="1s"), Step(weight=100, hold="1s"))))
    cluster.until(Cluster.finished)


def test_what_such_a_gateway_cannot_do_is_said_of_models_behind_one_alone() -> None:
    portable_status, own_status = serving(portable(1)).status, serving(model(1)).status
    assert condition(portable_status, "Sticky") == ("False", "NotExpressible")
    assert condition(portable_status, "Compared") == ("False", "NoCounters")
    assert condition(own_status, "Sticky") is None
    assert condition(own_status, "Compared") is None


def test_a_gateway_that_no_longer_follows_is_told_also_when_nothing_is_under_way() -> None:
    cluster = serving(portable(1))
    assert condition(cluster.status, "RoutesAccepted") == ("True", "Accepted")
    world = cluster.world()
    gone = replace(world.gateways, behind=("default/public (Accepted is False)",))
    decide(cluster, replace(world, gateways=gone))
    assert condition(cluster.status, "RoutesAccepted") == ("False", "Waiting")
    assert condition(cluster.status, "Ready") == ("False", "RoutesNotAccepted")
    assert condition(cluster.status, "Reconciling") == ("True", "Progressing")
    assert "Accepted is False" in cluster.status.message
    cluster.decide()
    assert condition(cluster.status, "Ready") == ("True", "Promoted")


def test_routes_that_cannot_be_written_stall_the_model_and_move_no_weight() -> None:
    cluster = serving(portable(1))
    cluster.edit(portable(2, by_time=True))
    for _ in range(5):
        world = cluster.world()
        refused = replace(world.gateways, behind=(), refused="too many cohorts: merge some")
        decide(cluster, replace(world, gateways=refused))
        cluster.start_pods()
    assert cluster.cohort().weight == 0
    assert condition(cluster.status, "Stalled") == ("True", "RoutesRefused")
    assert "merge some" in cluster.status.message


def test_a_name_that_is_taken_is_told_and_hinders_nothing() -> None:
    cluster = serving(model(1))
    decide(cluster, replace(cluster.world(), name_taken="services burger is there"))
    assert condition(cluster.status, "NameResolves") == ("False", "NameTaken")
    assert condition(cluster.status, "Ready") == ("True", "Promoted")
    cluster.decide()
    assert condition(cluster.status, "NameResolves") is None


def test_a_step_that_began_unseen_is_held_for_evidence_once_it_can_be_seen() -> None:
    steps = (Step(weight=25, until=Until.NON_INFERIOR), Step(weight=60, hold="10m"))
    cluster = serving(portable(1, steps=steps))
    cluster.edit(portable(2, steps=steps))
    ticks(cluster, 10)
    cluster.edit(structs.replace(cluster.spec, route=Route()))
    cluster.tick()
    assert (cluster.cohort().weight, cluster.cohort().step) == (25, 0)
    cluster.until(lambda c: c.cohort().step == 1)
    verdicts = {e.metric: e.verdict for e in cluster.cohort().evidence}
    assert verdicts["errors"] is Verdict.PASS
