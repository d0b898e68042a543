"""What a pass of the planner may never do, whatever happens."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

from kohort.analysis.timestamps import from_time
from kohort.api.command import command_id
from kohort.api.quantity import seconds
from kohort.api.spec import GPUCapacity, OnFailure, Spec
from kohort.api.status import CohortStatus, Decision, Status, Urged, Verdict
from kohort.plan.capacity import DRAIN, UNSCHEDULABLE
from kohort.plan.context import revision_of
from kohort.plan.outcome import EnsureDeployment, Outcome, RecordRevision, RemoveDeployment
from kohort.plan.planner import Identity, plan
from kohort.plan.world import Gateways, World
from tests.unit.plan_simulation import KEY, NAME, Cluster


def pairs(before: Status, after: Status) -> list[tuple[CohortStatus, CohortStatus]]:
    """Cohorts that were there before, as they were and as they are."""
    known = {c.name: c for c in before.cohorts}
    return [(known[c.name], c) for c in after.cohorts if c.name in known]


def fresh(old: CohortStatus, new: CohortStatus) -> list[Decision]:
    """Decisions that a pass has put on record."""
    added = len(new.decisions) - len(old.decisions)
    return list(new.decisions[:added]) or [d for d in new.decisions if d not in old.decisions]


def by_person(old: CohortStatus, new: CohortStatus) -> bool:
    """Whether a person, now or before, has this cohort move whatever is awaited."""
    return bool(old.urged or new.urged or any(d.by for d in fresh(old, new)))


def harmful(cohort: CohortStatus) -> bool:
    """Whether evidence that decides says that the canary does harm."""
    return any(e.verdict is Verdict.FAIL and not e.watched for e in cohort.evidence)


def leaving(cohort: CohortStatus) -> bool:
    """Whether a cohort is on its way back from a revision that others failed on."""
    return bool(cohort.rejected) and cohort.rejected == cohort.stable


def ensured(outcome: Outcome) -> dict[str, int]:
    """Replicas of the Deployments that are wanted."""
    return {a.revision: a.replicas for a in outcome.actions if isinstance(a, EnsureDeployment)}


def load(status: Status, revision: str, *, unknown: bool) -> Fraction:
    """Which part of the model's clients a status has on a revision: by shares, or at the most."""
    known = {c.name: 0 if unknown else c.share for c in status.cohorts}
    if not all(known.values()):
        known = dict.fromkeys(known, 1)
    on = {
        c.name: c.weight * (c.canary == revision) + (100 - c.weight) * (c.stable == revision)
        for c in status.cohorts
    }
    if unknown:
        return Fraction(max(on.values()), 100)
    whole = 100 * sum(share or 0 for share in known.values())
    return Fraction(sum((known[name] or 0) * weight for name, weight in on.items()), whole)


def pods_due(spec: Spec, status: Status, revision: str, before: Status) -> int:
    """The fewest pods with which a revision may have the clients that a status gives it.

    Where there are no spare pods, whoever had clients ``before`` still holds one.
    """
    if swaps(spec):
        both = (*before.cohorts, *status.cohorts)
        having = {r for c in both for r in clients_of(c)} - {revision}
        return min(
            math.ceil(spec.replicas * load(status, revision, unknown=False)),
            max(1, spec.replicas - len(having)),
        )
    due = spec.replicas * load(status, revision, unknown=True)
    if all(c.share for c in status.cohorts):
        due = min(due, 2 * spec.replicas * load(status, revision, unknown=False))
    return math.ceil(due)


def swaps(spec: Spec) -> bool:
    """Whether there are no pods beyond replicas."""
    return spec.gpu is not None and spec.gpu.capacity is GPUCapacity.SWAP


def clients_of(cohort: CohortStatus) -> set[str]:
    """Revisions on which a cohort has clients."""
    stable = {cohort.stable} if cohort.stable and cohort.weight < 100 else set()
    return stable | ({cohort.canary} if cohort.weight else set())


def capacity_comes_before_weight(cluster: Cluster, world: World, outcome: Outcome) -> None:
    for old, new in pairs(cluster.status, outcome.status):
        if new.weight > old.weight:
            ready = world.capacity[new.canary].ready
            assert ready >= pods_due(cluster.spec, outcome.status, new.canary, cluster.status)


def clients_of_a_working_canary_come_back_to_pods_that_are_ready(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    for old, new in pairs(cluster.status, outcome.status):
        rejected = new.decisions and new.decisions[0].action == "RolledBack" and not new.canary
        if new.weight >= old.weight or old.weight == 100 or rejected:
            continue
        stable = revision_of(cluster.status, old.stable)
        since = stable.preparing_since if stable else None
        late = since and from_time(since) + timedelta(minutes=10) <= cluster.now
        ready = {name: c.ready for name, c in world.capacity.items()}
        short = ready.get(old.canary, 0) < pods_due(
            cluster.spec, cluster.status, old.canary, cluster.status
        )
        enough = ready.get(old.stable, 0) >= pods_due(
            cluster.spec, outcome.status, old.stable, cluster.status
        )
        assert enough or short or late


def a_first_revision_serves_only_when_all_its_pods_are_ready(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    if any(c.stable for c in cluster.status.cohorts):
        return
    for cohort in outcome.status.cohorts:
        if cohort.stable:
            assert world.capacity[cohort.stable].ready >= cluster.spec.replicas


def weight_rises_only_to_the_next_step_and_only_from_routes_in_effect(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    steps = {c.name: c.stages for c in cluster.spec.cohorts}
    for old, new in pairs(cluster.status, outcome.status):
        if new.weight > old.weight:
            assert world.gateways.in_effect
            assert old.canary == new.canary
            plain = steps[new.name]
            expected = plain[new.step].weight if new.step < len(plain) else 100
            assert new.weight == expected or (swaps(cluster.spec) and new.weight < expected)


def a_step_with_a_gate_is_left_only_with_its_evidence(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    for old, new in pairs(cluster.status, outcome.status):
        steps = next(c.stages for c in cluster.spec.cohorts if c.name == new.name)
        moved = new.canary == old.canary and new.canary and new.step > old.step
        if not moved or by_person(old, new):
            continue
        for step in steps[old.step : new.step]:
            assert step.pause is None
            if step.until is not None:
                # Guardrails are not proven: they only must not have failed.
                goals = cluster.spec.analysis.goals
                verdicts = {e.metric: e.verdict for e in new.evidence}
                assert goals
                assert all(verdicts.get(goal) is Verdict.PASS for goal in goals)
                assert Verdict.FAIL not in verdicts.values()
            elif step.hold is not None and 0 < step.weight < 100:
                assert all(e.verdict is not Verdict.METRICS_ERROR for e in new.evidence)
                assert all(e.canary.requests and e.stable.requests for e in new.evidence)


def only_a_failure_sends_a_cohort_back(cluster: Cluster, world: World, outcome: Outcome) -> None:
    failed = any(map(harmful, outcome.status.cohorts))
    together = failed and cluster.spec.on_failure is OnFailure.ROLL_BACK_ALL
    for old, new in pairs(cluster.status, outcome.status):
        if any(d.action == "RolledBack" for d in fresh(old, new)):
            assert harmful(new) or together or leaving(old) or old.canary != outcome.status.desired


def a_failure_sends_all_back_where_that_is_asked_for(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    if cluster.spec.on_failure is not OnFailure.ROLL_BACK_ALL:
        return
    desired = outcome.status.desired
    decided = [
        d
        for old, new in pairs(cluster.status, outcome.status)
        for d in fresh(old, new)
        if d.action == "RolledBack" and d.revision == desired and not leaving(old)
    ]
    for cohort in outcome.status.cohorts if decided else ():
        stuck = cohort.stable == desired and cohort.former not in world.recorded
        assert cohort.rejected == desired or stuck or not cohort.stable


def harm_takes_clients_off_in_the_same_pass(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    for cohort in outcome.status.cohorts:
        assert not (cohort.canary and harmful(cohort))


def a_pause_holds_every_cohort(cluster: Cluster, world: World, outcome: Outcome) -> None:
    if not cluster.spec.paused:
        return
    if outcome.status.pinned:
        return
    for old, new in pairs(cluster.status, outcome.status):
        if by_person(old, new) or leaving(old) or leaving(new):
            continue
        assert new.weight in (0, old.weight)
        assert new.canary in ("", old.canary)
        assert new.stable == old.stable or not old.stable


def promotion_changes_no_pods(cluster: Cluster, world: World, outcome: Outcome) -> None:
    for old, new in pairs(cluster.status, outcome.status):
        if old.stable and new.stable != old.stable:
            assert (old.canary, old.weight) == (new.stable, 100)
            assert RemoveDeployment(new.stable) not in outcome.actions
            if new.stable in world.recorded and not swaps(cluster.spec):
                assert ensured(outcome)[new.stable] == cluster.spec.replicas


def what_was_rejected_is_not_tried_again(cluster: Cluster, world: World, outcome: Outcome) -> None:
    for old, new in pairs(cluster.status, outcome.status):
        if by_person(old, new) or leaving(old):
            continue
        if old.rejected and old.rejected == outcome.status.desired:
            assert new.canary == ""
            assert new.stable == old.stable


def stable_revisions_keep_all_their_pods(cluster: Cluster, world: World, outcome: Outcome) -> None:
    if swaps(cluster.spec):
        return
    for cohort in outcome.status.cohorts:
        if cohort.stable in world.recorded:
            assert ensured(outcome)[cohort.stable] == cluster.spec.replicas


def pods_that_swap_are_never_more_than_replicas(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    in_use = {r for c in outcome.status.cohorts for r in (c.stable, c.canary) if r}
    if not swaps(cluster.spec) or not world.gateways.in_effect or not in_use:
        return
    if outcome.status.cohorts != cluster.status.cohorts:
        return  # pods go only after their clients
    wanted = sum(
        a.replicas
        for a in outcome.actions
        if isinstance(a, EnsureDeployment) and a.revision in in_use
    )
    assert wanted <= max(cluster.spec.replicas, len(in_use))


def whoever_has_clients_is_a_few_pods_short_at_most(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    replicas = cluster.spec.replicas
    wanted = {a.revision: a.replicas for a in outcome.actions if isinstance(a, EnsureDeployment)}
    for revision in {r for c in outcome.status.cohorts for r in clients_of(c)} & set(wanted):
        others = {r for c in outcome.status.cohorts for r in (c.stable, c.canary) if r}
        few = len(others) * (max(1, replicas // 4) + 1) if swaps(cluster.spec) else 0
        assert wanted[revision] >= max(
            1, pods_due(cluster.spec, outcome.status, revision, cluster.status) - few
        )


def canaries_have_the_pods_that_any_gateway_still_needs(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    replicas = ensured(outcome)
    former = {r.name: r.replicas for r in cluster.status.revisions}
    if all(table == cluster.table() for table in cluster.gateways.values()):
        return
    for table in cluster.gateways.values():
        for route in table.cohorts if table else ():
            if route.canary in replicas and route.weight:
                assert replicas[route.canary] >= min(cluster.spec.replicas, former[route.canary])


def routes_leave_before_pods_go(cluster: Cluster, world: World, outcome: Outcome) -> None:
    removed = {a.revision for a in outcome.actions if isinstance(a, RemoveDeployment)}
    for cohort in (*cluster.status.cohorts, *outcome.status.cohorts):
        assert not removed & {cohort.stable, cohort.canary}
    for table in cluster.gateways.values():
        assert not removed & set(table.revisions if table else ())
    for name in removed:
        unused = next(r.unused_since for r in cluster.status.revisions if r.name == name)
        assert unused is not None
        assert from_time(unused) + DRAIN <= cluster.now


def a_former_revision_stays_warm(cluster: Cluster, world: World, outcome: Outcome) -> None:
    crowded = any(c.problem and c.problem.reason == UNSCHEDULABLE for c in world.capacity.values())
    removed = {a.revision for a in outcome.actions if isinstance(a, RemoveDeployment)}
    for cohort in () if crowded else outcome.status.cohorts:
        if cohort.former in removed and cohort.rejected != cohort.former:
            unused = next(r for r in cluster.status.revisions if r.name == cohort.former)
            assert unused.unused_since is not None
            warm = timedelta(seconds=seconds(cluster.spec.keep_warm))
            assert from_time(unused.unused_since) + warm <= cluster.now


def a_command_is_carried_out_once_and_answered(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    answers = [e for e in outcome.events if e.reason.startswith("Command")]
    known = cluster.status.command.id if cluster.status.command else ""
    assert len(answers) == (command_id(world.command) not in ("", known))
    if world.command:
        assert outcome.status.command is not None
        assert outcome.status.command.id == command_id(world.command)


def nothing_overrules_a_person(cluster: Cluster, world: World, outcome: Outcome) -> None:
    was, now = cluster.status, outcome.status
    kept = was.pinned in world.recorded
    if kept and was.pinned_over == cluster.desired and world.command == "":
        assert (now.pinned, now.desired) == (was.pinned, was.pinned)
    for old, new in pairs(was, now):
        if old.urged is Urged.ALL and old.canary == now.desired:
            assert new.canary == old.canary or new.stable == old.canary or by_person(old, new)
            assert new.weight >= old.weight or new.stable == old.canary or fresh(old, new)


def a_canary_is_on_record_before_it_is_named(
    cluster: Cluster, world: World, outcome: Outcome
) -> None:
    for old, new in pairs(cluster.status, outcome.status):
        if new.canary != old.canary and new.canary:
            assert new.canary in world.recorded
            assert RecordRevision(new.canary, 0) not in outcome.actions


def deciding_again_decides_nothing_more(cluster: Cluster, world: World, outcome: Outcome) -> None:
    former, routes = cluster.status, cluster.table()
    cluster.status = outcome.status
    gateways = cluster.world().gateways
    if cluster.table() != routes:  # no gateway has confirmed them yet
        gateways = Gateways(ready=gateways.ready, behind=gateways.ready)
    later = replace(world, gateways=gateways)
    cluster.status = former
    identity = Identity(KEY.namespace, NAME, "uid", cluster.generation)
    again = plan(identity, cluster.spec, outcome.status, later, cluster.now)
    assert again.status == outcome.status
    assert again.actions == outcome.actions
    assert again.events == ()


def status_stays_small(cluster: Cluster, world: World, outcome: Outcome) -> None:
    status = outcome.status
    used = {c.stable for c in status.cohorts} | {c.canary for c in status.cohorts}
    used |= {c.former for c in status.cohorts}
    assert len(status.revisions) <= cluster.spec.history_limit + len(
        used | set(world.recorded) | set(world.capacity)
    )
    assert all(len(c.decisions) <= 10 and len(c.message) <= 1024 for c in status.cohorts)


def ready_means_that_all_is_as_asked_for(cluster: Cluster, world: World, outcome: Outcome) -> None:
    conditions = {c.type: c for c in outcome.status.conditions}
    desired, holdbacks = outcome.status.desired, {c.name: c.holdback for c in cluster.spec.cohorts}

    def on_it(cohort: CohortStatus) -> bool:
        """On the revision, or all of it but what holdback asks for at the most, that is compared."""
        few = holdbacks[cohort.name]
        held_back = few is not None and cohort.weight >= 100 - few.weight
        return (cohort.stable, cohort.canary) == (desired, "") or (
            cohort.canary == desired and (held_back or cohort.weight == 100)
        )

    arrived = all(map(on_it, outcome.status.cohorts))
    if conditions["Ready"].status == "True":
        assert arrived
        assert outcome.status.desired == cluster.desired
        assert "Reconciling" not in conditions
        assert "Stalled" not in conditions
    assert all(c.observed_generation == cluster.generation for c in conditions.values())


def tools_can_tell_at_every_moment(cluster: Cluster, world: World, outcome: Outcome) -> None:
    """What kstatus, and so Flux, makes of the conditions: in progress, failed or current."""
    conditions = {c.type: c for c in outcome.status.conditions}
    true = {kind for kind, c in conditions.items() if c.status == "True"}
    assert outcome.status.observed_generation == cluster.generation
    assert true & {"Ready", "Reconciling", "Stalled"}
    if {"Reconciling", "Stalled"} <= true:
        assert conditions["Stalled"].reason in ("RolledBack", "Aborted", "Undone")
        others = any(c.rejected != outcome.status.desired for c in outcome.status.cohorts)
        assert others or any(r.ready_replicas < r.replicas for r in outcome.status.revisions)


INVARIANTS = (
    capacity_comes_before_weight,
    a_first_revision_serves_only_when_all_its_pods_are_ready,
    weight_rises_only_to_the_next_step_and_only_from_routes_in_effect,
    a_step_with_a_gate_is_left_only_with_its_evidence,
    only_a_failure_sends_a_cohort_back,
    a_failure_sends_all_back_where_that_is_asked_for,
    harm_takes_clients_off_in_the_same_pass,
    a_pause_holds_every_cohort,
    promotion_changes_no_pods,
    what_was_rejected_is_not_tried_again,
    clients_of_a_working_canary_come_back_to_pods_that_are_ready,
    stable_revisions_keep_all_their_pods,
    pods_that_swap_are_never_more_than_replicas,
    whoever_has_clients_is_a_few_pods_short_at_most,
    canaries_have_the_pods_that_any_gateway_still_needs,
    routes_leave_before_pods_go,
    a_former_revision_stays_warm,
    a_command_is_carried_out_once_and_answered,
    nothing_overrules_a_person,
    a_canary_is_on_record_before_it_is_named,
    deciding_again_decides_nothing_more,
    status_stays_small,
    ready_means_that_all_is_as_asked_for,
    tools_can_tell_at_every_moment,
)
