"""Which status writes may wait a moment, so that one write tells what otherwise took several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import structs

from kohort.api.status import Status, Summary
from kohort.plan.outcome import Outcome
from kohort.route.table import ModelKey

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 120.0
# What a small cluster makes of Deployments and their pods: a status written earlier is written twice.
WRITES_PER_SECOND = 10
QUIET_SECONDS = 3.0


class Lag:
    """Which statuses wait to be written: each for a while, none longer than until nothing new comes.

    ``wake`` is called with a model whose wait is over, and in how many seconds.
    """

    def __init__(self, wake: Callable[[ModelKey, float], None]) -> None:
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._since: dict[ModelKey, float] = {}
        self._over: set[ModelKey] = set()
        self._quiet_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, key: ModelKey) -> bool:
        """Whether a write that may lag still has to; it will be woken."""
        now = self._loop.time()
        until = self._since.setdefault(key, now) + lag_seconds(len(self._since))
        if key in self._over or now >= until:
            return False
        self._wake(key, until - now)
        self._quiet_at = now + min(lag_seconds(len(self._since)), QUIET_SECONDS)
        if self._timer is None:
            self._timer = self._loop.call_at(self._quiet_at, self._look)
        return True

    def end(self, key: ModelKey) -> None:
        """Nothing of this model waits any more."""
        self._since.pop(key, None)
        self._over.discard(key)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._quiet_at:
            self._timer = self._loop.call_at(self._quiet_at, self._look)
            return
        for key in self._since:
            self._over.add(key)
            self._wake(key, 0.0)


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
