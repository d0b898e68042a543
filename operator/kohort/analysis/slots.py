"""What each slot of a cohort did before there was a canary, and what it does now: kept in status."""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Struct, structs

from kohort.analysis.reading import SlotTotals
from kohort.contract import SLOTS

FORMAT = "1:"
"""Begins every text; another format begins with another number."""

Numbers = tuple[int, ...]
"""By slot number."""

_NONE_YET = (0,) * SLOTS


class SlotState(Struct, frozen=True, array_like=True):
    """Requests and failures by slot, both arms together, and the totals that they were computed up to.

    ``weight``: the canary's percentage while ``requests`` and ``failed`` were counted; another weight
    labels slots anew and counts from nought. ``past_…``: before any client had the canary.
    ``seen_…``: totals of ``counter`` when they were last read. ``opening``: that the first totals
    bring the past with them. ``looked_at``: failures of both arms at the last look; ``told``: what
    it found.
    """

    weight: int
    opening: bool = False
    counter: str = ""
    past_requests: Numbers = _NONE_YET
    past_failed: Numbers = _NONE_YET
    requests: Numbers = _NONE_YET
    failed: Numbers = _NONE_YET
    seen_requests: Numbers = _NONE_YET
    seen_failed: Numbers = _NONE_YET
    looked_at: int = 0
    told: str = ""


def counted(state: SlotState, totals: SlotTotals | None) -> SlotState:
    """The state with what is new in the totals.

    Totals of a counter that was not seen before bring nothing, for what they hold may be known: the
    next ones do. The exception is the first totals of a rollout, which bring the past.
    """
    if totals is None:
        return state
    if state.opening and totals.past_requests is not None and totals.past_failed is not None:
        state = structs.replace(
            state,
            counter=totals.counter,
            past_requests=totals.past_requests,
            past_failed=totals.past_failed,
            seen_requests=totals.past_requests,
            seen_failed=totals.past_failed,
        )
    if state.counter == totals.counter:
        state = structs.replace(
            state,
            requests=_grown(state.requests, state.seen_requests, totals.requests),
            failed=_grown(state.failed, state.seen_failed, totals.failed),
        )
    return structs.replace(
        state,
        opening=False,
        counter=totals.counter,
        seen_requests=totals.requests,
        seen_failed=totals.failed,
    )


def at_weight(state: SlotState, weight: int) -> SlotState:
    """The state from when the canary has another weight; the past stays what it was."""
    if weight == state.weight:
        return state
    return structs.replace(state, weight=weight, requests=_NONE_YET, failed=_NONE_YET)


def encode(state: SlotState) -> str:
    """The state as text; at most 12 KiB."""
    return FORMAT + base64.b64encode(msgspec.msgpack.encode(state)).decode()


def decode(text: str) -> SlotState | None:
    """The state, or None for what this version did not write."""
    if not text.startswith(FORMAT):
        return None
    try:
        content = base64.b64decode(text.removeprefix(FORMAT), validate=True)
        state = msgspec.msgpack.decode(content, type=SlotState)
    except (binascii.Error, msgspec.MsgspecError):
        return None
    numbers = (
        state.past_requests,
        state.past_failed,
        state.requests,
        state.failed,
        state.seen_requests,
        state.seen_failed,
    )
    return state if all(len(each) == SLOTS for each in numbers) else None


def _grown(before: Numbers, seen: Numbers, now: Numbers) -> Numbers:
    return tuple(b + n - s for b, s, n in zip(before, seen, now, strict=True))
