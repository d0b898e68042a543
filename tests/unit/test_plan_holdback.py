"""A few clients that stay on the former revision for a while, told as stories on a simulated cluster."""

from __future__ import annotations

from msgspec import structs

from kohort.api.cohorts import Holdback
from kohort.api.spec import Spec
from kohort.api.status import CohortPhase, Phase
from tests.unit.plan_simulation import Cluster, Cohort, Step, condition, model, serving

HOLDBACK = Holdback(weight=5, time="10m")
AT_ONCE = 20
"""Ticks of five seconds: long before the holdback is over by itself."""
STAFF = Cohort(name="staff", steps=(Step(weight=50, hold="10s"),), holdback=HOLDBACK)
EVERYONE = Cohort(name="everyone", after=("staff",), steps=(Step(weight=50, hold="10s"),))


def kept(version: int) -> Spec:
    """A model of which some of the staff are held back."""
    return model(version, replicas=2, cohorts=(STAFF, EVERYONE))


def holding() -> tuple[Cluster, str, str]:
    """A cluster that holds back some clients of v1 from v2, and the names of both."""
    cluster = serving(kept(1))
    former = cluster.desired
    cluster.edit(kept(2))
    cluster.until(lambda c: c.cohort("staff").phase is CohortPhase.HOLDING_BACK)
    return cluster, former, cluster.desired


def test_a_few_clients_are_held_back_and_then_follow() -> None:
    cluster, former, new = holding()
    staff = cluster.cohort("staff")
    assert (staff.stable, staff.canary, staff.weight) == (former, new, 95)
    assert staff.message.startswith("95%: holds until ")
    assert cluster.pods[former].wanted == 2
    began = cluster.now
    cluster.until(Cluster.finished)
    assert 600 <= (cluster.now - began).total_seconds() <= 660
    assert cluster.phase() is Phase.HEALTHY


def test_cohorts_that_wait_for_it_go_on_and_the_rollout_counts_as_done() -> None:
    cluster, _, new = holding()
    assert condition(cluster.status, "Ready") == ("False", "Progressing")
    cluster.until(lambda c: c.cohort("everyone").stable == new)
    cluster.tick()
    assert cluster.cohort("staff").weight == 95
    assert cluster.phase() is Phase.HEALTHY
    assert condition(cluster.status, "Ready") == ("True", "HoldingBack")
    assert cluster.status.message.startswith(
        "v2 serves all clients but those that are held back; staff: 95%: holds until "
    )
    assert cluster.status.summary.weight == "95%"
    assert cluster.status.summary.step == "2/2"


def test_harm_that_is_seen_while_some_are_held_back_sends_all_of_them_back() -> None:
    cluster, former, new = holding()
    cluster.bad.add(new)
    cluster.until(lambda c: c.cohort("staff").phase is CohortPhase.ROLLED_BACK)
    staff = cluster.cohort("staff")
    assert (staff.stable, staff.canary, staff.weight, staff.rejected) == (former, "", 0, new)


def test_another_model_is_compared_with_the_one_that_has_nearly_all_clients() -> None:
    cluster, _, second = holding()
    cluster.edit(kept(3))
    cluster.until(lambda c: c.cohort("staff").canary == c.desired, ticks=AT_ONCE)
    assert cluster.cohort("staff").stable == second
    assert [d.action for d in cluster.cohort("staff").decisions][:2] == ["Promoted", "Promoted"]


def test_the_former_model_is_given_back_to_all_at_once() -> None:
    cluster, former, _ = holding()
    cluster.edit(kept(1))
    cluster.until(Cluster.finished, ticks=AT_ONCE)
    assert [d.action for d in cluster.cohort("staff").decisions][:1] == ["Superseded"]
    assert cluster.cohort("staff").stable == former


def test_people_end_it_by_promoting_or_aborting() -> None:
    cluster, _, new = holding()
    cluster.command = "promote staff to=all id=1"
    cluster.until(lambda c: c.cohort("staff").stable == new, ticks=AT_ONCE)
    cluster, former, _ = holding()
    cluster.command = "abort staff id=1"
    cluster.until(lambda c: c.cohort("staff").phase is CohortPhase.ROLLED_BACK, ticks=AT_ONCE)
    assert cluster.cohort("staff").stable == former


def test_a_holdback_that_is_taken_out_ends() -> None:
    cluster, _, new = holding()
    without = structs.replace(STAFF, holdback=None)
    cluster.edit(structs.replace(kept(2), cohorts=(without, EVERYONE)))
    cluster.until(lambda c: c.cohort("staff").stable == new, ticks=AT_ONCE)


def test_a_smaller_holdback_takes_more_clients_along() -> None:
    cluster, _, _ = holding()
    fewer = structs.replace(STAFF, holdback=Holdback(weight=1, time="10m"))
    cluster.edit(structs.replace(kept(2), cohorts=(fewer, EVERYONE)))
    cluster.until(lambda c: c.cohort("staff").weight == 99, ticks=AT_ONCE)
    cluster.until(lambda c: c.cohort("staff").phase is CohortPhase.HOLDING_BACK)
