"""Pausing: time stands still for what is held, and goes on where it stood."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import structs

from kohort.analysis.timestamps import from_time, to_time
from kohort.plan.context import Context, Draft, normal


def pause(context: Context, draft: Draft) -> Draft:
    """Note when a pause began; when it ended, take it out of every time that counts."""
    paused_at = draft.status.paused_at
    if context.spec.paused and paused_at is None:
        return draft.with_status(paused_at=to_time(context.now)).telling(
            normal("Paused", "every cohort is held where it is")
        )
    if context.spec.paused or paused_at is None:
        return draft
    began = from_time(paused_at)
    return draft.with_status(
        paused_at=None,
        cohorts=tuple(
            structs.replace(c, step_started_at=_later(c.step_started_at, began, context.now))
            for c in draft.status.cohorts
        ),
        revisions=tuple(
            structs.replace(r, preparing_since=_later(r.preparing_since, began, context.now))
            for r in draft.status.revisions
        ),
    ).telling(normal("Resumed", "cohorts go on from where they were held"))


def _later(time: str | None, began: datetime, now: datetime) -> str | None:
    """A time moved by as much of the pause as lay after it."""
    if time is None:
        return None
    moment = from_time(time)
    return to_time(moment + max(now - max(began, moment), timedelta(0)))
