"""What a look at the counters brought: raw cumulative counts, never rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Count:
    """Cumulative requests of one arm at one source, and how many of them failed."""

    requests: int
    failed: int


Arms = Mapping[str, Count]
"""Counts by revision name."""


@dataclass(frozen=True)
class SlotTotals:
    """What each of a cohort's slots has sent, whichever arm served it, through all gateways together.

    ``counter``: names who counts and since when; totals of one counter never fall, those of two have
    nothing in common. ``requests``, ``failed``: by slot number. ``past_…``: the same when they were
    last read before any client had the canary; None where that was not seen.
    """

    counter: str
    requests: tuple[int, ...]
    failed: tuple[int, ...]
    past_requests: tuple[int, ...] | None = None
    past_failed: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Reading:
    """One cohort's counters, all read at one time.

    ``at``: Unix time of the reading; of two readings the one with the greater time is newer.
    ``sources``: per process that counts (a gateway's container), its arms. A source that could not be
    read is absent: its next reading holds what was missed. A process that starts anew has another name.
    ``errors``: why sources are absent; empty when every ready gateway was read.
    ``slots``: None where nobody counts slots.
    """

    at: float
    sources: Mapping[str, Arms]
    errors: tuple[str, ...] = ()
    slots: SlotTotals | None = None
