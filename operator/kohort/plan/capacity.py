"""How many pods each revision needs: before clients come, while they are there, until they are gone."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from msgspec import structs

from kohort.analysis.timestamps import from_time, to_time
from kohort.api.quantity import seconds
from kohort.api.status import CohortPhase, CohortStatus, RevisionStatus, Status
from kohort.plan.context import Context, Draft, cut, referenced
from kohort.plan.pausing import is_paused
from kohort.plan.world import Capacity

UNSCHEDULABLE = "Unschedulable"
DRAIN = timedelta(seconds=10)
"""How long pods go on after no gateway sends anything to them, for requests under way."""


def pods_for(replicas: int, weight: int) -> int:
    """Pods for a percentage of clients: at least one."""
    return max(1, math.ceil(replicas * weight / 100))


def next_weight(context: Context, cohort: CohortStatus) -> int:
    """The weight that a cohort's canary is to have next: its step's, and all after the last step."""
    steps = next(c.steps for c in context.spec.cohorts if c.name == cohort.name)
    return steps[cohort.step].weight if cohort.step < len(steps) else 100


def wanted_pods(context: Context, status: Status) -> dict[str, int]:
    """Pods of each revision that has clients or awaits them.

    A stable revision has all replicas. A canary has what its greatest weight needs, which is enough
    for all cohorts together, and never fewer than before until lower weights are in effect.
    """
    replicas = context.spec.replicas
    wanted: dict[str, int] = {}
    for cohort in status.cohorts:
        if cohort.canary:
            weight = max(cohort.weight, next_weight(context, cohort))
            wanted[cohort.canary] = max(wanted.get(cohort.canary, 0), pods_for(replicas, weight))
    if not context.in_effect:
        for revision in status.revisions:
            if revision.name in wanted:
                former = min(revision.replicas, replicas)
                wanted[revision.name] = max(wanted[revision.name], former)
    first = not is_paused(context, status) and any(not c.stable for c in status.cohorts)
    full = {c.stable for c in status.cohorts if c.stable} | ({status.desired} if first else set())
    return wanted | dict.fromkeys(full, replicas)


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
    return any(p is not None and p.reason == UNSCHEDULABLE for p in problems)


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
