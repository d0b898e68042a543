"""Edits in the middle of a rollout, the way back, and who goes it together, told as stories."""

from __future__ import annotations

import pytest
from msgspec import structs

from kohort.api.cohorts import HeaderMatch, Match
from kohort.api.spec import OnFailure
from kohort.api.status import CohortPhase
from kohort.plan.capacity import UNSCHEDULABLE
from kohort.plan.world import WAITING_FOR_GPU, Problem
from tests.unit.plan_simulation import Cluster, Cohort, Step, model, serving
from tests.unit.test_plan_commands import promoted, rolling, say

SLOW = (Step(weight=10, hold="10m"), Step(weight=50, hold="10m"))
QUICK = (Step(weight=50, hold="10s"),)


def match(value: str) -> tuple[Match, ...]:
    return (Match(headers=(HeaderMatch(name="x-org", value=value),)),)


def three(steps: tuple[Step, ...] = SLOW) -> tuple[Cohort, ...]:
    return (
        Cohort(name="staff", match=match("acme"), steps=QUICK),
        Cohort(name="eu", match=match("eu"), steps=steps, after=("staff",)),
        Cohort(name="everyone", steps=steps, after=("eu",)),
    )


def test_a_cohort_that_is_only_renamed_goes_on_where_it_was() -> None:
    cluster = rolling(
        cohorts=(
            Cohort(name="shops", match=match("eu"), steps=SLOW),
            Cohort(name="everyone", steps=SLOW),
        )
    )
    before = cluster.cohort("shops")
    shops, everyone = cluster.spec.cohorts
    renamed = (structs.replace(shops, name="eu-shops"), structs.replace(everyone, name="rest"))
    cluster.edit(structs.replace(cluster.spec, cohorts=renamed))
    cluster.decide()
    after = cluster.cohort("eu-shops")
    assert (after.salt, after.weight, after.step_started_at) == (
        before.salt,
        before.weight,
        before.step_started_at,
    )
    assert cluster.cohort("rest").canary == cluster.desired


def test_a_cohort_that_changes_places_with_another_keeps_what_it_has() -> None:
    cohorts = (*three()[:2], Cohort(name="us", match=match("us"), steps=SLOW), three()[2])
    cluster = rolling(cohorts=cohorts)
    before = {c.name: c for c in cluster.status.cohorts}
    staff, eu, us, everyone = cohorts
    cluster.edit(structs.replace(cluster.spec, cohorts=(staff, us, eu, everyone)))
    cluster.decide()
    for cohort in cluster.status.cohorts:
        assert (cohort.salt, cohort.stable, cohort.weight) == (
            before[cohort.name].salt,
            before[cohort.name].stable,
            before[cohort.name].weight,
        )


def test_other_clients_in_a_cohort_are_judged_anew_and_held_anew() -> None:
    cluster = rolling(
        cohorts=(
            Cohort(name="shops", match=match("eu"), steps=SLOW),
            Cohort(name="everyone", steps=SLOW),
        )
    )
    for _ in range(60):
        cluster.tick()
    began = cluster.cohort("shops").step_started_at
    shops, everyone = cluster.spec.cohorts
    cluster.edit(
        structs.replace(cluster.spec, cohorts=(structs.replace(shops, match=match("us")), everyone))
    )
    cluster.decide()
    assert cluster.cohort("shops").evidence == ()
    cluster.tick()
    cluster.tick()
    cohort = cluster.cohort("shops")
    assert cohort.step_started_at is not None
    assert began is not None
    assert cohort.step_started_at > began
    assert cohort.evidence[0].since == cohort.step_started_at
    assert cohort.weight == 10


def test_a_removed_cohort_leaves_the_others_alone() -> None:
    cluster = rolling(cohorts=three())
    cluster.until(lambda c: c.cohort("eu").weight == 10)
    before = cluster.cohort("eu")
    cluster.edit(structs.replace(cluster.spec, cohorts=(three()[1], structs.replace(three()[2]))))
    cluster.tick()
    assert [c.name for c in cluster.status.cohorts] == ["eu", "everyone"]
    assert cluster.cohort("eu").salt == before.salt


def test_going_back_to_a_revision_that_is_still_warm_takes_no_steps() -> None:
    cluster = promoted()
    v1 = cluster.cohort().former
    cluster.edit(structs.replace(cluster.spec, model=model(1).model))
    cluster.until(Cluster.finished, ticks=4)
    assert cluster.cohort().stable == v1


def test_going_back_to_a_revision_whose_pods_are_gone_is_a_rollout_like_any_other() -> None:
    cluster = promoted()
    v1 = cluster.cohort().former
    cluster.until(lambda c: v1 not in c.pods)
    cluster.edit(structs.replace(cluster.spec, model=model(1).model))
    for _ in range(20):
        cluster.tick()
    assert (cluster.cohort().canary, cluster.cohort().weight) == (v1, 10)


def test_a_former_revision_stays_warm_for_as_long_as_asked_for() -> None:
    cluster = rolling(keep_warm="10m")
    v1 = cluster.cohort().stable
    say(cluster, "promote to=all")
    cluster.until(Cluster.finished)
    cluster.tick()
    cluster.pass_time(595)
    cluster.decide()
    assert cluster.pods[v1].ready == 1
    cluster.pass_time(10)
    cluster.decide()
    assert v1 not in cluster.pods


@pytest.mark.parametrize("reason", [UNSCHEDULABLE, WAITING_FOR_GPU])
def test_a_warm_revision_makes_room_for_pods_that_find_none(reason: str) -> None:
    cluster = rolling(keep_warm="10h")
    v1 = cluster.cohort().stable
    say(cluster, "promote to=all")
    cluster.until(Cluster.finished)
    cluster.tick()
    cluster.edit(structs.replace(cluster.spec, model=model(3).model))
    cluster.decide()
    cluster.decide()
    assert v1 in cluster.pods
    cluster.pods[cluster.desired].problem = Problem(reason, "no node takes the pod")
    cluster.pass_time(60)
    cluster.update_gateways()
    cluster.decide()
    assert v1 not in cluster.pods


def test_a_revision_that_failed_is_not_kept_warm() -> None:
    cluster = rolling(keep_warm="10h")
    bad = cluster.desired
    cluster.bad.add(bad)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    cluster.tick(1)
    cluster.tick(15)
    assert bad not in cluster.pods


def test_all_cohorts_go_back_together_where_that_is_asked_for() -> None:
    cluster = rolling(cohorts=three(), on_failure=OnFailure.ROLL_BACK_ALL)
    v1, v2 = cluster.cohort("everyone").stable, cluster.desired
    cluster.until(lambda c: c.cohort("staff").stable == v2 and c.cohort("eu").weight == 10)
    cluster.bad.add(v2)
    cluster.until(lambda c: c.cohort("eu").phase is CohortPhase.ROLLED_BACK)
    assert "v2 failed in eu" in cluster.cohort("staff").decisions[0].message
    assert "v2 failed in eu" in cluster.cohort("everyone").decisions[0].message
    cluster.until(lambda c: c.cohort("staff").stable == v1, ticks=5)
    for _ in range(30):
        cluster.tick()
    assert {c.stable for c in cluster.status.cohorts} == {v1}
    assert {c.phase for c in cluster.status.cohorts} == {CohortPhase.ROLLED_BACK}
    assert list(cluster.pods) == [v1]


def test_cohorts_that_went_back_together_are_retried_together() -> None:
    cluster = rolling(cohorts=three(), on_failure=OnFailure.ROLL_BACK_ALL)
    v2 = cluster.desired
    cluster.until(lambda c: c.cohort("eu").weight == 10)
    cluster.bad.add(v2)
    cluster.until(lambda c: c.cohort("eu").phase is CohortPhase.ROLLED_BACK)
    cluster.until(lambda c: c.cohort("staff").stable != v2, ticks=5)
    cluster.bad.clear()
    cluster.pass_time(60)
    say(cluster, "retry eu")
    cluster.until(Cluster.finished)


def test_the_others_go_on_when_one_cohort_fails_by_default() -> None:
    cohorts = (
        Cohort(name="eu", match=match("eu"), steps=SLOW),
        Cohort(name="everyone", steps=SLOW),
    )
    cluster = rolling(cohorts=cohorts)
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort("eu").phase is CohortPhase.ROLLED_BACK)
    assert cluster.cohort("everyone").rejected in ("", cluster.desired)
    assert "failed in eu" not in cluster.cohort("everyone").message


def test_a_smaller_history_forgets_the_oldest_revisions_that_nobody_needs() -> None:
    cluster = serving(
        model(1, keep_warm="0s", history_limit=2, cohorts=(Cohort(name="everyone", steps=QUICK),))
    )
    for version in (2, 3, 4, 5):
        cluster.edit(structs.replace(cluster.spec, model=model(version).model))
        cluster.until(Cluster.finished)
        for _ in range(4):
            cluster.tick()
    assert len(cluster.records) == 2
    assert {r.number for r in cluster.status.revisions} == {4, 5}
