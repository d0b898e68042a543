"""What a look at the counters brought: raw cumulative counts, never rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

import msgspec

from kohort.contract import SLOTS


class Count(msgspec.Struct, frozen=True):
    """Cumulative requests of one arm at one source, and how many of them failed."""

    requests: int
    failed: int


Arms = Mapping[str, Count]
"""Counts by revision name."""


Row = tuple[int, ...]
"""Counts by slot number, or by class of duration."""


_FIELDS = Struct(f"<{SLOTS}q")

Packed = int
"""A row by slot number in fields of 64 bits, none negative, so that one addition moves all slots."""


def packed(row: Iterable[int]) -> Packed:
    """The row as one number."""
    return int.from_bytes(_FIELDS.pack(*row), "little")


def unpacked(number: Packed) -> Row:
    """The row that is packed so."""
    return _FIELDS.unpack(number.to_bytes(_FIELDS.size, "little"))


@dataclass(frozen=True)
class Slots:
    """What each of a cohort's slots has sent, whichever arm served it, through all gateways together.

    ``requests``, ``failed``: by slot number. ``took``: by index in ``TOOK_MS``, those that were answered
    well, by slot number; a class that is absent had none.
    """

    requests: Row
    failed: Row
    took: Mapping[int, Packed] = field(default_factory=dict)


@dataclass(frozen=True)
class SlotTotals:
    """Slots since somebody counts.

    ``counter``: names who counts and since when; totals of one counter never fall, those of two have
    nothing in common. ``past``: when they were last read before any client had the canary; None where
    that was not seen. ``arms``: by revision, requests that were answered well, by class of duration.
    """

    counter: str
    now: Slots
    past: Slots | None = None
    arms: Mapping[str, Row] = field(default_factory=dict)


class Series(NamedTuple):
    """A counter that is told by a query: of which arm, of events or of all, and its name among others."""

    revision: str
    events: bool
    name: str


class Sample(NamedTuple):
    """A cumulative count, and the Unix time at which it stood so."""

    value: int
    at: float


@dataclass(frozen=True)
class Reading:
    """One cohort's counters, all read at one time.

    ``at``: Unix time of the reading; of two readings the one with the greater time is newer.
    ``sources``: per process that counts (a gateway's container), its arms. A source that could not be
    read is absent: its next reading holds what was missed. A process that starts anew has another name.
    ``errors``: why sources are absent; empty when every ready gateway was read.
    ``slots``: None where nobody counts slots. ``series``: of a metric with counters of its own.
    ``bounds``: of a histogram's buckets, lowest first; of a metric with a score.
    ``sampled``: whether somebody else read the counters, so that ``at`` may be a while ago.
    """

    at: float
    sources: Mapping[str, Arms]
    errors: tuple[str, ...] = ()
    slots: SlotTotals | None = None
    series: Mapping[Series, Sample] = field(default_factory=dict)
    sampled: bool = False
    bounds: tuple[str, ...] = ()
