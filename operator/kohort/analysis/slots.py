"""What each slot of a cohort did before there was a canary, and what it does now: kept in status."""

from __future__ import annotations

import base64
import binascii
from operator import sub

import msgspec
from msgspec import Struct, structs

from kohort.analysis.reading import SlotTotals
from kohort.contract import SLOTS

FORMAT = "1:"
"""Begins every text; another format begins with another number."""

CHECKSUM_BYTES = 4


class Totals(Struct, frozen=True, array_like=True):
    """Requests and failures by slot number, of both arms and all gateways together."""

    requests: tuple[int, ...] = (0,) * SLOTS
    failed: tuple[int, ...] = (0,) * SLOTS

    def minus(self, other: Totals) -> Totals:
        """What these have more than the others, slot by slot."""
        return Totals(
            tuple(map(sub, self.requests, other.requests)),
            tuple(map(sub, self.failed, other.failed)),
        )


_NOTHING = msgspec.msgpack.encode(Totals())


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
    past: bytes = _NOTHING
    base: bytes = _NOTHING
    seen: bytes = _NOTHING
    looked_at: int = 0
    told: str = ""
    proof_looked_at: int = 0
    proven: bool = False
    doubt: str = ""

    @property
    def before(self) -> Totals:
        """What was sent before any client had the canary."""
        return _totals(self.past)

    @property
    def since(self) -> Totals:
        """What was sent since the canary has its weight."""
        return _totals(self.seen).minus(_totals(self.base))


def counted(state: SlotState, read: SlotTotals | None) -> SlotState:
    """The state with what is new in the totals that were read.

    Totals of a counter that was not seen before bring nothing, for what they hold may be known: the
    next ones do. The exception is the first totals of a rollout, which bring the past.
    """
    if read is None:
        return state
    totals = Totals(read.requests, read.failed)
    seen = msgspec.msgpack.encode(totals)
    past, base = state.past, state.base
    if state.opening and read.past_requests is not None and read.past_failed is not None:
        past = base = msgspec.msgpack.encode(Totals(read.past_requests, read.past_failed))
    elif read.counter != state.counter:
        base = msgspec.msgpack.encode(totals.minus(state.since))
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
    """The state as text with a checksum; at most 12 KiB."""
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


def _totals(encoded: bytes) -> Totals:
    return msgspec.msgpack.decode(encoded, type=Totals)
