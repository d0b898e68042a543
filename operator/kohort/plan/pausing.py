"""Pausing: time stands still for what is held, and goes on where it stood."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import structs

from kohort.analysis.timestamps import from_time, to_time
from kohort.api.status import CohortStatus, Status
from kohort.plan.context import Context, Draft, normal


def pause(context: Context, draft: Draft) -> Draft:
    """Note when a pause began; when it ended, take it out of every time that counts."""
    whole = is_paused(context, draft.status)
    draft = draft.with_status(
        cohorts=tuple(_paused(context, c, whole or c.held) for c in draft.status.cohorts)
    )
    paused_at = draft.status.paused_at
    if whole and paused_at is None:
        return draft.with_status(paused_at=to_time(context.now)).telling(
            normal("Paused", "every cohort is held where it is")
        )
    if whole or paused_at is None:
        return draft
    began = from_time(paused_at)
    return draft.with_status(
        paused_at=None,
        revisions=tuple(
            structs.replace(r, preparing_since=_later(r.preparing_since, began, context.now))
            for r in draft.status.revisions
        ),
    ).telling(normal("Resumed", "cohorts go on from where they were held"))


def is_paused(context: Context, status: Status) -> bool:
    """Whether the spec or a person holds the whole rollout."""
    return context.spec.paused or status.held


def _paused(context: Context, cohort: CohortStatus, held: bool) -> CohortStatus:
    """The cohort with the begin of its pause, or with its times moved by the pause that ends."""
    if held == (cohort.paused_at is not None):
        return cohort
    if cohort.paused_at is None:
        return structs.replace(cohort, paused_at=to_time(context.now))
    began = from_time(cohort.paused_at)
    return structs.replace(
        cohort,
        paused_at=None,
        step_started_at=_later(cohort.step_started_at, began, context.now),
    )


def _later(time: str | None, began: datetime, now: datetime) -> str | None:
    """A time moved by as much of the pause as lay after it."""
    if time is None:
        return None
    moment = from_time(time)
    return to_time(moment + max(now - max(began, moment), timedelta(0)))
