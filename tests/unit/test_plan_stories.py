"""Rollouts told as stories, on a simulated cluster."""

from __future__ import annotations

import pytest

from kohort.api.spec import OnFailure
from kohort.api.status import CohortPhase, Phase, Status, Verdict
from kohort.plan.outcome import EnsureDeployment, EventType, RecordRevision
from kohort.plan.planner import Identity, plan
from kohort.plan.world import World
from tests.unit.plan_simulation import START, TWO, Cluster, Cohort, Step, condition, model, serving


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
    assert cluster.phase() == "Pending"
    cluster.start_pods()
    cluster.decide()
    assert cluster.cohort().stable == cluster.desired
    assert cluster.phase() == "Progressing"
    assert "waits for gateway" in cluster.status.message
    cluster.update_gateways()
    cluster.decide()
    assert cluster.phase() == "Healthy"
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
    assert cluster.phase() is Phase.DEGRADED
    assert condition(cluster.status, "Ready") == ("False", "RolledBack")
    assert condition(cluster.status, "Stalled") == ("True", "RolledBack")
    assert list(cluster.pods) == [good]


def test_a_rollback_is_under_way_until_no_gateway_has_the_former_routes() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    assert cluster.phase() is Phase.ROLLING_BACK
    cluster.decide()
    assert cluster.phase() is Phase.ROLLING_BACK
    cluster.update_gateways()
    cluster.decide()
    assert cluster.phase() is Phase.DEGRADED


def test_clients_of_a_canary_that_the_spec_asks_for_no_more_are_on_their_way_back() -> None:
    cluster = serving(model(1, replicas=2))
    cluster.edit(model(2, replicas=2))
    cluster.until(lambda c: c.cohort().weight == 50)
    cluster.pods[cluster.cohort().stable].ready = 0  # nobody to go back to, yet
    cluster.edit(model(1, replicas=2))
    cluster.decide()
    assert cluster.cohort().weight == 50
    assert cluster.phase() is Phase.ROLLING_BACK
    cluster.until(Cluster.finished)
    cluster.tick()
    assert cluster.phase() is Phase.HEALTHY


def test_a_cohort_that_goes_back_with_another_is_rolling_back_until_it_is_there() -> None:
    cohorts = (Cohort(name="first"), Cohort(name="second", after=("first",)))
    cluster = serving(model(1, cohorts=cohorts, on_failure=OnFailure.ROLL_BACK_ALL))
    good = cluster.desired
    cluster.edit(model(2, cohorts=cohorts, on_failure=OnFailure.ROLL_BACK_ALL))
    cluster.until(lambda c: c.cohort("second").weight > 0)
    cluster.bad.add(cluster.desired)
    phases = []
    while not (cluster.cohort("first").stable == good and cluster.phase() == "Degraded"):
        cluster.tick()
        phases.append(cluster.phase())
    assert list(dict.fromkeys(phases))[-2:] == ["RollingBack", "Degraded"]


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
    assert cluster.phase() is Phase.HEALTHY


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
    assert cluster.phase() is Phase.DEGRADED
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


def test_a_new_cohort_starts_where_its_clients_were_and_a_removed_one_is_gone() -> None:
    cluster = serving(model(1))
    v1 = cluster.desired
    cluster.edit(model(2, cohorts=(Cohort(name="vip"), Cohort(name="rest"))))
    cluster.decide()
    assert [(c.name, c.stable) for c in cluster.status.cohorts] == [("vip", v1), ("rest", v1)]
    cluster.until(Cluster.finished)


def test_columns_tell_each_cohort_once() -> None:
    slow = Cohort(name="slow", steps=(Step(weight=5, hold="1h"), Step(weight=50, hold="1h")))
    fast = Cohort(name="fast", steps=(Step(weight=25, hold="1h"),))
    cluster = serving(model(1, cohorts=(slow, fast)))
    cluster.edit(model(2, cohorts=(slow, fast)))
    cluster.until(lambda c: all(s.weight for s in c.status.cohorts))
    told = cluster.status.summary
    assert (told.stable, told.canary, told.weight, told.step) == ("v1", "v2", "5%,25%", "1/2,1/1")
