"""One pass of deciding: from what is asked, what stands in status and what is seen, to what is wanted.

Pure: no cluster, no clock, no chance. Whoever runs it persists the status first, and then carries the
actions out; dying in between changes nothing, because the next pass wants the same again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from kohort.api.spec import Spec
from kohort.api.status import Status
from kohort.plan import capacity, cohorts, commands, conditions, pausing, revisions, rules
from kohort.plan.context import Context, Draft, Identity, Phase, routes
from kohort.plan.outcome import (
    Action,
    EnsureDeployment,
    Outcome,
    RecordRevision,
    RemoveDeployment,
    RemoveRecord,
)
from kohort.plan.schedule import wake_after
from kohort.plan.world import World

__all__ = ["Identity", "plan"]

PHASES: tuple[Phase, ...] = (
    revisions.ask,
    revisions.adopt,
    cohorts.follow_spec,
    commands.obey,
    pausing.pause,
    capacity.measure_shares,  # before weights are decided
    rules.take_turns,
    capacity.measure_shares,  # of a rollout that has begun, before pods are wanted
    capacity.size,
    revisions.forget,
    conditions.report,
)

ROUNDS_PER_STEP = 3
"""Rounds that one step of a rollout may take when nothing has to be waited for, with one to spare."""


def plan(identity: Identity, spec: Spec, status: Status, world: World, now: datetime) -> Outcome:
    """Decide all that can be decided now; deciding again in the same world decides nothing more.

    ``status``: as persisted; ``world.gateways`` says how far it is in effect. ``now``: aware.
    """
    draft = Draft(status)
    for _ in range(_most_rounds(spec)):
        before = draft.status
        for phase in PHASES:
            draft = phase(_context(identity, spec, status, world, now, draft.status), draft)
        if draft.status == before:
            break
    context = _context(identity, spec, status, world, now, draft.status)
    return Outcome(
        status=draft.status,
        actions=tuple(_actions(context, draft.status)),
        events=draft.events,
        wake_after=wake_after(context, draft.status),
    )


def _context(
    identity: Identity, spec: Spec, persisted: Status, world: World, now: datetime, status: Status
) -> Context:
    """The inputs of a phase; gateways are behind every route that this pass has changed."""
    if status.cohorts is not persisted.cohorts and routes(spec, status) != routes(spec, persisted):
        gateways = replace(world.gateways, behind=world.gateways.ready)
        world = replace(world, gateways=gateways)
    return Context(identity, spec, world, now)


def _most_rounds(spec: Spec) -> int:
    """Rounds after which nothing can be left to decide: every cohort through every step of it."""
    return ROUNDS_PER_STEP * sum(len(c.stages) + 2 for c in spec.cohorts)


def _actions(context: Context, status: Status) -> Iterator[Action]:
    """What any pass with this status wants: records, then pods, then what may go."""
    world = context.world
    for revision in status.revisions:
        if revision.name == revisions.asked_for(context) and revision.name not in world.recorded:
            yield RecordRevision(revision.name, revision.number)
    wanted = capacity.wanted_pods(context, status)
    for revision in status.revisions:
        if revision.name in wanted and revision.name in world.recorded:
            spare = not context.swaps or revision.replicas == 1
            restarted_at = status.restarted_at or ""
            yield EnsureDeployment(revision.name, revision.replicas, restarted_at, spare)
    for revision in status.revisions:
        if revision.name in world.capacity and capacity.may_go(context, status, revision):
            yield RemoveDeployment(revision.name)
    for name in revisions.beyond_history(context, status):
        if name in world.recorded and name not in world.capacity:
            yield RemoveRecord(name)
