"""How many pods each revision needs: before clients come, while they are there, until they are gone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta

from msgspec import structs

from kohort.analysis.timestamps import from_time, to_time
from kohort.api.quantity import seconds
from kohort.api.status import CohortPhase, CohortStatus, RevisionStatus, Status
from kohort.plan.context import Context, Draft, cut, referenced, revision_of
from kohort.plan.load import Part, carried_by, pods_needed, pods_of_few
from kohort.plan.pausing import is_paused
from kohort.plan.world import WAITING_FOR_GPU, Capacity

UNSCHEDULABLE = "Unschedulable"
DRAIN = timedelta(seconds=10)
"""How long pods go on after no gateway sends anything to them, for requests under way."""


def next_weight(context: Context, cohort: CohortStatus) -> int:
    """The weight that a cohort's canary is to have next: its step's, and all after the last step."""
    steps = next(c.stages for c in context.spec.cohorts if c.name == cohort.name)
    return steps[cohort.step].weight if cohort.step < len(steps) else 100


def target(status: Status, cohort: CohortStatus) -> str:
    """The revision on which a cohort is to end: its former one if it rejects the one it is on, and one
    that has all clients but a few before the next one is tried."""
    leaving = bool(cohort.rejected) and cohort.rejected == cohort.stable
    if cohort.holds_back and status.desired != cohort.stable:
        return cohort.canary
    return cohort.former if leaving else status.desired


def measure_shares(context: Context, draft: Draft) -> Draft:
    """Take the cohorts' shares of traffic for a rollout's whole length, and forget them after it.

    Within a rollout a share only grows, by a tenth at least: canaries are not resized with every
    swing of traffic, and never to fewer pods.
    """
    under_way = any(c.canary for c in draft.status.cohorts)
    cohorts = tuple(
        structs.replace(
            c, share=_grown(c.share, context.world.shares.get(c.name)) if under_way else None
        )
        for c in draft.status.cohorts
    )
    return draft if cohorts == draft.status.cohorts else draft.with_status(cohorts=cohorts)


def wanted_pods(context: Context, status: Status) -> dict[str, int]:
    """Pods of each revision that has clients or awaits them.

    With ``Surge`` a stable revision has all replicas and a canary what its next weights need. With
    ``Swap`` all of them together have no more than replicas. No revision has fewer than before until
    the weights that were lowered are in effect.
    """
    replicas = context.spec.replicas
    wanted = _swapped(context, status) if context.swaps else _surging(context, status)
    if not context.in_effect:
        for revision in status.revisions:
            if revision.name in wanted:
                former = min(revision.replicas, replicas)
                wanted[revision.name] = max(wanted[revision.name], former)
    return wanted


def needed_pods(
    context: Context, status: Status, cohort: CohortStatus, revision: str, weight: int
) -> int:
    """Pods that a revision must have ready to carry ``weight`` percent of a cohort's clients, and
    those that other cohorts have on it."""
    replicas = context.spec.replicas
    if revision not in (cohort.canary, cohort.stable):
        return _swapped(context, status).get(revision, replicas) if context.swaps else replicas
    canary = weight if revision == cohort.canary else 100 - weight
    if not context.swaps:
        parts = _parts(status, {cohort.name: canary})[revision]
        return pods_needed(replicas, parts, _whole(status))
    now, then = _loads(status, {}), _loads(status, {cohort.name: canary})
    others = sum(1 for name, load in now.items() if load and name != revision)
    return carried_by(replicas, then[revision], sum(then.values()), others)


def reachable_weight(context: Context, status: Status, cohort: CohortStatus, goal: int) -> int:
    """The canary's weight nearest to ``goal`` for which the pods are ready, of whoever gets clients.

    With ``Surge`` that is the goal or the present weight. With ``Swap`` more pods come only as clients
    follow them, so the weight goes as far as it can.
    """
    rising = goal > cohort.weight
    if not rising and _must_go_back(context, status, cohort):
        return goal
    receiver = cohort.canary if rising else cohort.stable
    ready = context.ready(receiver)
    nearer = range(goal, cohort.weight, -1 if rising else 1) if context.swaps else (goal,)
    for weight in nearer:
        carried = weight if rising else 100 - weight
        if ready >= needed_pods(context, status, cohort, receiver, carried):
            return weight
    return cohort.weight


def size(context: Context, draft: Draft) -> Draft:
    """Write down how many pods each revision is to have, and since when they are awaited or unused."""
    wanted = wanted_pods(context, draft.status)
    return draft.with_status(
        revisions=tuple(
            _sized(context, draft.status, revision, wanted.get(revision.name))
            for revision in draft.status.revisions
        )
    )


def awaits_gateways(status: Status) -> bool:
    """Whether what gateways serve can change a decision: a canary, clients that are to arrive on a
    stable revision, or pods that no cohort refers to.

    Whoever observes has to ask the gateways while this holds; a rejected revision counts although the
    spec still asks for it.
    """
    if _no_routes(status):
        return False
    used = referenced(status)
    on_the_way = any(c.canary or c.phase is CohortPhase.PROMOTING for c in status.cohorts)
    return on_the_way or any(r.replicas and r.name not in used for r in status.revisions)


def may_go(context: Context, status: Status, revision: RevisionStatus) -> bool:
    """Whether a revision's pods may go."""
    end = gone_at(context, status, revision)
    return end is not None and end <= context.now


def gone_at(context: Context, status: Status, revision: RevisionStatus) -> datetime | None:
    """When a revision's pods may go: drained, and no way back any more; None while they are used.

    A former stable revision stays warm, unless pods that are wanted find no room.
    """
    if revision.unused_since is None:
        return None
    stays = DRAIN
    if _way_back(status, revision.name) and not _crowded(context, status):
        stays = max(DRAIN, timedelta(seconds=seconds(context.spec.keep_warm)))
    return from_time(revision.unused_since) + stays


def _way_back(status: Status, name: str) -> bool:
    return any(c.former == name and c.rejected != name for c in status.cohorts)


def _crowded(context: Context, status: Status) -> bool:
    """Whether pods that are wanted cannot be placed."""
    problems = (
        context.world.capacity[r].problem for r in referenced(status) if r in context.world.capacity
    )
    return any(p is not None and p.reason in (UNSCHEDULABLE, WAITING_FOR_GPU) for p in problems)


def _must_go_back(context: Context, status: Status, cohort: CohortStatus) -> bool:
    """Whether clients have to leave a canary although stable is short of pods: the canary is short
    itself, or stable has been for longer than the progress deadline."""
    stable = revision_of(status, cohort.stable)
    short = needed_pods(context, status, cohort, cohort.canary, cohort.weight)
    return context.ready(cohort.canary) < short or (
        stable is not None and context.since(stable.preparing_since) >= context.progress_deadline
    )


def _surging(context: Context, status: Status) -> dict[str, int]:
    """All pods for stable revisions, and those of canaries beyond them."""
    goals = _goals(context, status)
    highest = {c.name: max(c.weight, goals[c.name]) for c in status.cohorts if c.canary}
    replicas, parts = context.spec.replicas, _parts(status, highest)
    canaries = {c.canary for c in status.cohorts if c.canary}
    stable = {c.stable for c in status.cohorts if c.stable}
    wanted = {name: pods_needed(replicas, parts[name], _whole(status)) for name in canaries}
    return wanted | dict.fromkeys(stable | _first(context, status), replicas)


def _swapped(context: Context, status: Status) -> dict[str, int]:
    """The pods that there are, shared out by load."""
    now, then = _loads(status, {}), _loads(status, _goals(context, status))
    first = _first(context, status)
    if not any(now.values()):
        return dict.fromkeys(first, context.spec.replicas)
    going = {c.canary for c in status.cohorts if c.canary and c.canary == target(status, c)}
    for revision in going | first:
        then[revision] = max(1, then.get(revision, 0))  # ready before it has clients
    return pods_of_few(context.spec.replicas, now, then)


def _first(context: Context, status: Status) -> set[str]:
    """The revision that cohorts without any are to have, if there are such cohorts."""
    waiting = not is_paused(context, status) and any(not c.stable for c in status.cohorts)
    return {status.desired} if waiting else set()


def _goals(context: Context, status: Status) -> dict[str, int]:
    """The weights that canaries are to have next, by cohort; none for one that is given up."""
    return {
        c.name: max(c.weight, next_weight(context, c)) if c.canary == target(status, c) else 0
        for c in status.cohorts
        if c.canary
    }


def _parts(status: Status, weights: Mapping[str, int]) -> dict[str, list[Part]]:
    """Who is on each revision when canaries have these weights, and else those that they have."""
    parts: dict[str, list[Part]] = defaultdict(list)
    for cohort in status.cohorts:
        canary = weights.get(cohort.name, cohort.weight) if cohort.canary else 0
        for revision, weight in ((cohort.canary, canary), (cohort.stable, 100 - canary)):
            if revision:
                parts[revision].append(Part(cohort.share, weight))
    return parts


def _loads(status: Status, weights: Mapping[str, int]) -> dict[str, int]:
    """The load of each revision, in percent of percents; cohorts count alike until all are measured."""
    parts, known = _parts(status, weights), _whole(status) is not None
    return {
        revision: sum((part.share or 0 if known else 1) * part.weight for part in each)
        for revision, each in parts.items()
    }


def _whole(status: Status) -> int | None:
    """The shares of all cohorts together, in percent; None while one is not known."""
    shares = [c.share for c in status.cohorts if c.share is not None]
    return sum(shares) if len(shares) == len(status.cohorts) else None


def _grown(known: int | None, measured: float | None) -> int | None:
    """A share in whole percents, rounded up, after another measurement."""
    if measured is None:
        return known
    percent = min(100, max(1, math.ceil(measured * 100)))
    return percent if known is None or percent * 10 > known * 11 else known


def _sized(
    context: Context, status: Status, revision: RevisionStatus, wanted: int | None
) -> RevisionStatus:
    capacity = context.world.capacity.get(revision.name)
    ready = capacity.ready if capacity else 0
    problem = capacity.problem if capacity and wanted is not None else None
    awaited = wanted is not None and ready < wanted
    return structs.replace(
        revision,
        replicas=_pods_kept(revision, wanted, capacity),
        ready_replicas=ready,
        reason=problem.reason[:64] if problem else "",
        message=cut(problem.message) if problem else "",
        engines=(capacity and capacity.engines) or revision.engines,
        preparing_since=(revision.preparing_since or to_time(context.now)) if awaited else None,
        unused_since=_unused_since(context, status, revision),
    )


def _pods_kept(revision: RevisionStatus, wanted: int | None, capacity: Capacity | None) -> int:
    """Pods that nobody wants any more stay as they are until all of them go."""
    if wanted is not None:
        return wanted
    return (revision.replicas or capacity.wanted) if capacity else 0


def _unused_since(context: Context, status: Status, revision: RevisionStatus) -> str | None:
    """Unused is what nobody refers to once no gateway has an older route to it."""
    first = {status.desired} if any(not c.stable for c in status.cohorts) else set()
    if revision.name in referenced(status) | first or revision.name not in context.world.capacity:
        return None
    if revision.unused_since is None and (context.in_effect or _no_routes(status)):
        return to_time(context.now)
    return revision.unused_since


def _no_routes(status: Status) -> bool:
    return not any(c.stable for c in status.cohorts)
