"""What each slot of a cohort did before there was a canary, and what it does now: kept in status."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from operator import add, sub
from typing import NamedTuple

import msgspec
from msgspec import Struct, structs

from kohort.analysis.reading import Row, Slots, SlotTotals, unpacked
from kohort.contract import SLOTS

FORMAT = "2:"
"""Begins every text; another format begins with another number."""

CHECKSUM_BYTES = 4


_NONE: Row = (0,) * SLOTS


class Totals(Struct, frozen=True, array_like=True):
    """Requests, and how many of them were bad, by slot number, of both arms and all gateways.

    Bad ones need not be whole: of the canary's, those that are tolerated may be taken off.
    """

    requests: Row = _NONE
    failed: tuple[float, ...] = _NONE


Rows = tuple[Row, ...]
"""By slot number: requests, then how many of them were bad in one way, or in several."""


class Read(NamedTuple):
    """What one metric reads in ``SlotTotals``; ``past`` only where the state is still to be told."""

    counter: str
    now: Rows
    past: Rows | None


def failures(state: SlotState, read: SlotTotals | None) -> Read | None:
    """Requests, and those that failed."""
    return _read(state, read, lambda slots: (slots.requests, slots.failed))


def slow(state: SlotState, read: SlotTotals | None, bounds: Sequence[int]) -> Read | None:
    """Requests that were answered well, and those of them from each of these classes of duration on."""
    return _read(state, read, lambda slots: _beyond(slots, bounds))


def _read(state: SlotState, read: SlotTotals | None, rows: Callable[[Slots], Rows]) -> Read | None:
    if read is None:
        return None
    told = read.past if state.opening else None
    return Read(read.counter, rows(read.now), None if told is None else rows(told))


def _beyond(slots: Slots, bounds: Sequence[int]) -> Rows:
    """Those answered well, and those of each bound's class and of all slower ones."""
    rows = (
        unpacked(sum(row for took, row in slots.took.items() if took >= bound)) for bound in bounds
    )
    return tuple(map(sub, slots.requests, slots.failed)), *rows


def _nothing(rows: int) -> bytes:
    return _encoded((_NONE,) * rows)


def _encoded(rows: Rows) -> bytes:
    return msgspec.msgpack.encode(rows)


class SlotState(Struct, frozen=True, array_like=True):
    """What slots have sent, and the totals that it was computed up to.

    ``weight``: the canary's percentage since ``base``; another weight labels slots anew and counts from
    nought. ``seen``: totals of ``counter`` when they were last read; what counts is ``seen`` less
    ``base``. ``past``: what was sent before any client had the canary. ``opening``: that the first
    totals bring the past with them. ``looked_at``: failures of both arms at the last look; ``told``:
    what it found. ``proof_looked_at``: requests of both arms when slots were last asked for a proof;
    ``proven``: what they said; ``doubt``: why not, in words. Totals stay encoded, because a look is
    rarer than a scrape by far.
    """

    weight: int
    opening: bool = False
    counter: str = ""
    past: bytes = b""
    base: bytes = b""
    seen: bytes = b""
    looked_at: int = 0
    told: str = ""
    proof_looked_at: int = 0
    proven: bool = False
    doubt: str = ""

    def before(self, bad: int = 1) -> Totals:
        """What was sent before any client had the canary; ``bad``: which way of being so."""
        rows = _rows(self.past)
        return Totals(rows[0], rows[bad])

    def since(self, bad: int = 1) -> Totals:
        """What was sent since the canary has its weight."""
        seen, base = _rows(self.seen), _rows(self.base)
        return Totals(*(tuple(map(sub, seen[row], base[row])) for row in (0, bad)))


def opened(weight: int, ways: int = 1) -> SlotState:
    """The state before anything was read; ``ways``: in how many a request can be bad."""
    nothing = _nothing(1 + ways)
    return SlotState(weight=weight, opening=True, past=nothing, base=nothing, seen=nothing)


def counted(state: SlotState, read: Read | None) -> SlotState:
    """The state with what is new in the totals that were read.

    Totals of a counter that was not seen before bring nothing, for what they hold may be known: the
    next ones do. The exception is the first totals of a rollout, which bring the past.
    """
    if read is None:
        return state
    seen = _encoded(read.now)
    past, base = state.past, state.base
    if state.opening and read.past is not None:
        past = base = _encoded(read.past)
    elif read.counter != state.counter:
        # What counts stays what it was: base = now - (seen - base).
        moved = zip(read.now, _rows(state.seen), _rows(state.base), strict=True)
        base = _encoded(tuple(tuple(map(sub, map(add, n, b), s)) for n, s, b in moved))
    return structs.replace(
        state, opening=False, counter=read.counter, past=past, base=base, seen=seen
    )


def at_weight(state: SlotState, weight: int) -> SlotState:
    """The state from when the canary has another weight; the past stays what it was."""
    return unproven(structs.replace(state, weight=weight, base=state.seen))


def unproven(state: SlotState) -> SlotState:
    """The state without what was proven of it: of other slots, or within another margin."""
    return structs.replace(state, proof_looked_at=0, proven=False, doubt="")


def encode(state: SlotState) -> str:
    """The state as text with a checksum; at most 12 KiB, 18 KiB with two ways of being bad."""
    content = msgspec.msgpack.encode(state)
    return FORMAT + base64.b64encode(content + _checksum(content)).decode()


def decode(text: str) -> SlotState | None:
    """The state, or None for what this version did not write."""
    if not text.startswith(FORMAT):
        return None
    try:
        both = base64.b64decode(text.removeprefix(FORMAT), validate=True)
        content, checksum = both[:-CHECKSUM_BYTES], both[-CHECKSUM_BYTES:]
        return (
            msgspec.msgpack.decode(content, type=SlotState)
            if checksum == _checksum(content)
            else None
        )
    except (binascii.Error, msgspec.MsgspecError):
        return None


def _checksum(content: bytes) -> bytes:
    return binascii.crc32(content).to_bytes(CHECKSUM_BYTES)


def _rows(encoded: bytes) -> Rows:
    return msgspec.msgpack.decode(encoded, type=Rows)
