"""From cumulative counters of many processes to what is new: nothing twice, nothing guessed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

from kohort.analysis.betting import Batch
from kohort.analysis.reading import Arms, Count, Reading

MISSING_LIMIT = 100
"""Complete readings without a source after which its process is taken to be gone for good."""

SOURCE_LIMIT = 128
"""Sources that are remembered; beyond it those missing longest go first. Keeps status small."""


class Counters(Struct, frozen=True, array_like=True):
    """Cumulative counts of both arms at one source when it was last read."""

    canary_requests: int
    canary_failed: int
    stable_requests: int
    stable_failed: int
    missing: int = 0

    def arms(self) -> tuple[Count, Count]:
        """Canary's and stable's count."""
        return (
            Count(self.canary_requests, self.canary_failed),
            Count(self.stable_requests, self.stable_failed),
        )


Snapshot = Mapping[str, Counters]
"""Counters by a short digest of the source's name."""

NOTHING = Count(0, 0)


def snapshot(reading: Reading, canary: str, stable: str) -> Snapshot:
    """The counters of both arms at every source that was read."""
    return {_key(name): _counters(arms, canary, stable) for name, arms in reading.sources.items()}


def new_requests(
    before: Snapshot, reading: Reading, canary: str, stable: str, *, complete: bool
) -> tuple[Batch, Snapshot]:
    """What was counted since ``before``, and the snapshot that it was computed up to.

    ``complete``: every process that counts was in a snapshot once, so that one never seen is new and
    all that it counted is new. Otherwise its history is unknown, and only what it counts from now on
    is taken. A counter that fell was reset and counts from 0.
    """
    after = snapshot(reading, canary, stable)
    gained_canary, gained_stable = NOTHING, NOTHING
    for key, counters in after.items():
        known = before.get(key, Counters(0, 0, 0, 0) if complete else counters)
        (canary_now, stable_now), (canary_then, stable_then) = counters.arms(), known.arms()
        gained_canary = _sum(gained_canary, _gain(canary_then, canary_now))
        gained_stable = _sum(gained_stable, _gain(stable_then, stable_now))
    return Batch(gained_canary, gained_stable), _remembered(before, after, reading)


def _remembered(before: Snapshot, after: Snapshot, reading: Reading) -> Snapshot:
    """The new snapshot with those absent sources that may come back."""
    more = 0 if reading.errors else 1
    absent = {
        key: Counters(*_values(counters), counters.missing + more)
        for key, counters in before.items()
        if key not in after and counters.missing + more < MISSING_LIMIT
    }
    room = max(0, SOURCE_LIMIT - len(after))
    kept = sorted(absent, key=lambda key: (absent[key].missing, key))[:room]
    return {**{key: absent[key] for key in kept}, **after}


def _values(counters: Counters) -> tuple[int, int, int, int]:
    canary, stable = counters.arms()
    return canary.requests, canary.failed, stable.requests, stable.failed


def _counters(arms: Arms, canary: str, stable: str) -> Counters:
    canary_count, stable_count = arms.get(canary, NOTHING), arms.get(stable, NOTHING)
    return Counters(
        canary_count.requests, canary_count.failed, stable_count.requests, stable_count.failed
    )


def _gain(then: Count, now: Count) -> Count:
    reset = now.requests < then.requests or now.failed < then.failed
    requests = now.requests if reset else now.requests - then.requests
    failed = now.failed if reset else now.failed - then.failed
    return Count(requests, min(failed, requests))


def _sum(one: Count, other: Count) -> Count:
    return Count(one.requests + other.requests, one.failed + other.failed)


@lru_cache(maxsize=1024)
def _key(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:12]
