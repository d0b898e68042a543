"""When to look again without being called: the ends of holds, drains and deadlines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kohort.analysis.timestamps import from_time
from kohort.api.status import Status
from kohort.plan.capacity import gone_at
from kohort.plan.context import Context
from kohort.plan.pausing import is_paused
from kohort.plan.rollout import hold_end

SHORTEST = 0.05
"""Seconds; times are kept in milliseconds, and a wake-up a little late saves one too early."""


def wake_after(context: Context, status: Status) -> float | None:
    """Seconds until time alone can change a decision; None when only an event can."""
    moments = [m for m in _moments(context, status) if m > context.now]
    if not moments:
        return None
    return max(SHORTEST, (min(moments) - context.now).total_seconds())


def _moments(context: Context, status: Status) -> Iterator[datetime]:
    for revision in status.revisions:
        end = gone_at(context, status, revision)
        if end is not None:
            yield end
    if is_paused(context, status):
        return
    for revision in status.revisions:
        if revision.preparing_since:
            yield from_time(revision.preparing_since) + context.progress_deadline
    steps = {c.name: c.stages for c in context.spec.cohorts}
    for cohort in status.cohorts:
        if cohort.canary and cohort.step < len(steps[cohort.name]):
            end = hold_end(cohort, steps[cohort.name][cohort.step])
            if end is not None:
                yield end
