"""Which status writes may wait a moment, so that one write tells what otherwise took several."""

from __future__ import annotations

from msgspec import structs

from kohort.api.status import Status, Summary
from kohort.plan.outcome import Outcome

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 60.0
WRITES_PER_SECOND = 20


def lag_seconds(waiting: int) -> float:
    """Seconds that a write may wait when ``waiting`` models have one that may: the more, the longer.

    A thousand models that change at once should not each be written for every pod that comes.
    """
    return min(max(SHORTEST_SECONDS, waiting / WRITES_PER_SECOND), LONGEST_SECONDS)


def may_lag(old: Status, outcome: Outcome) -> bool:
    """Whether nothing depends on the difference: it only tells, or nothing can serve clients yet.

    What is intended for clients never waits, nor does what an event tells of.
    """
    if _nothing_serves(old) and not old.desired and _nothing_serves(outcome.status):
        # A record and pods of a first revision follow from the spec alone, by whoever makes them.
        return True
    return not outcome.events and intent(old) == intent(outcome.status)


def intent(status: Status) -> Status:
    """A status without what merely describes."""
    return structs.replace(
        status,
        message="",
        replicas=0,
        ready_replicas=0,
        summary=Summary(),
        cohorts=tuple(structs.replace(cohort, message="") for cohort in status.cohorts),
        revisions=tuple(
            structs.replace(revision, ready_replicas=0, reason="", message="")
            for revision in status.revisions
        ),
        conditions=tuple(
            structs.replace(condition, reason="", message="") for condition in status.conditions
        ),
    )


def _nothing_serves(status: Status) -> bool:
    return not any(cohort.stable for cohort in status.cohorts)
