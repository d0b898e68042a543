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
class Reading:
    """One cohort's counters, all read at one time.

    ``at``: Unix time of the reading; of two readings the one with the greater time is newer.
    ``sources``: per process that counts (a gateway's container), its arms. A source that could not be
    read is absent: its next reading holds what was missed. A process that starts anew has another name.
    ``errors``: why sources are absent; empty when every ready gateway was read.
    """

    at: float
    sources: Mapping[str, Arms]
    errors: tuple[str, ...] = ()
