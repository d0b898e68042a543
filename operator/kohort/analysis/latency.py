"""Whether a canary is slower: evidence on whole distributions of durations, confirmed by client slots.

Only requests that were answered well count, for failures have a metric of their own and may be quick.
As for failures, bets on single requests accuse, and a permutation of client slots has to bear it out: by
how many requests of a slot were slow, from either of two durations on that are chosen once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from operator import add, sub

from msgspec import Struct, structs

from kohort.analysis import persisted, wording
from kohort.analysis.betting import log_mean
from kohort.analysis.confirming import LOOK_GROWTH, Look, look
from kohort.analysis.distortions import DISTORTIONS, raised
from kohort.analysis.durations import CLASSES, LEAST_MS, NOTHING, slow_bounds, slower
from kohort.analysis.reading import Reading, Row
from kohort.analysis.sequential import Rates, Trial
from kohort.analysis.slots import SlotState, counted, opened, slow
from kohort.analysis.slots import decode as decode_slots
from kohort.analysis.slots import encode as encode_slots
from kohort.analysis.split import canary_slots
from kohort.analysis.timestamps import to_time
from kohort.analysis.trail import Trail
from kohort.api.analysis import Metric
from kohort.api.status import Evidence, Tally, Verdict
from kohort.contract import TOOK_MS

FORMAT = "1:"
"""Begins every state; another format begins with another number."""

ENOUGH = 200
"""Requests of stable from which on its distribution is known well enough to bet on another."""

_NEAR, _FAR = 1, 2
"""Rows of slots: from which duration on requests are slow."""


class State(Struct, frozen=True, omit_defaults=True):
    """What must survive a restart. Rows are by class of duration.

    ``at``: Unix time of the last reading. ``counter``: who counted what was read then, of which
    ``canary_read`` and ``stable_read`` are the totals. ``canary``, ``stable``: since the analysis began.
    ``reference``: what stable was known to do when the present bets were made. ``near``, ``far``: classes
    from which on a request is slow; 0 while not chosen. ``logs``: of the bets' capitals.
    ``canary_seen``, ``stable_seen``: Unix time when a request of the arm was last counted.
    ``harm_trail``: how the evidence has grown. ``asked``: of which histogram, and its
    bounds; of durations there is but one.
    """

    at: float = 0.0
    counter: str = ""
    canary_read: Row = NOTHING
    stable_read: Row = NOTHING
    canary: Row = NOTHING
    stable: Row = NOTHING
    reference: Row = NOTHING
    near: int = 0
    far: int = 0
    logs: tuple[float, ...] = (0.0,) * len(DISTORTIONS)
    canary_seen: float = 0.0
    stable_seen: float = 0.0
    harm_trail: Trail = Trail()
    asked: tuple[str, ...] = ()

    @property
    def bounds(self) -> tuple[int, ...]:
        """The classes from which on a request is slow; empty while not chosen."""
        return (self.near, self.far) if self.near else ()


def _slower(canary: Row, stable: Row, metric: Metric) -> bool:
    return slower(canary, stable, metric.allowed)


@dataclass(frozen=True)
class Scale:
    """What classes stand for.

    ``form``: begins every state. ``worse``: whether canary's row is worse than stable's by the margin.
    ``figures``: both rows in words. ``hardly``, ``well``: what is said of less, and of nothing.
    ``asked``: of which histogram. ``slots``: whether client slots are told.
    """

    form: str = FORMAT
    worse: Callable[[Row, Row, Metric], bool] = _slower
    figures: Callable[[Row, Row], str] = wording.durations
    hardly: str = f"slower, but by less than {{margin}} or {LEAST_MS:g} ms"
    well: str = "not slower"
    asked: tuple[str, ...] = ()
    slots: bool = True


DURATIONS = Scale()


@dataclass(frozen=True)
class _News:
    """What a reading brought: the totals, and what is new of each arm."""

    counter: str
    canary_read: Row
    stable_read: Row
    canary: Row = NOTHING
    stable: Row = NOTHING


def begin(
    metric: Metric,
    reading: Reading | None,
    trial: Trial,
    weight: int,
    now: datetime,
    scale: Scale = DURATIONS,
) -> Evidence:
    """Fresh evidence; the reading is its snapshot, so that only later requests count."""
    state, slots = State(asked=scale.asked), opened(weight, ways=2)
    if reading is not None:
        state, slots = _taken(state, slots, reading, trial, now)
    return Evidence(
        metric=metric.name,
        message=wording.unseen_message(("canary", "stable")),
        since=to_time(now),
        state=encode(state, scale.form),
        slots=encode_slots(slots) if scale.slots else "",
    )


def advance(
    evidence: Evidence,
    reading: Reading,
    trial: Trial,
    metric: Metric,
    rates: Rates,
    now: datetime,
    scale: Scale = DURATIONS,
) -> Evidence:
    """Evidence with what was counted since its snapshot; a reading that is not newer adds nothing.

    Fail is final. State of another format is never guessed at: the analysis starts anew and says so.
    """
    if evidence.verdict is Verdict.FAIL:
        return evidence
    state, slots = decode(evidence.state, scale.form), decode_slots(evidence.slots)
    if not scale.slots:
        slots = opened(trial.weight, ways=2)  # none are told, and none are kept
    if state is None or slots is None:
        begun = begin(metric, reading, trial, slots.weight if slots else trial.weight, now, scale)
        return structs.replace(begun, message=wording.UNREADABLE)
    if reading.at <= state.at:
        return evidence
    known_before = state.at > 0
    state, slots = _taken(state, slots, reading, trial, now)
    trail = state.harm_trail.after(log_mean(state.logs), math.log(1 / rates.alpha))
    state = structs.replace(state, harm_trail=trail)
    evidence = structs.replace(
        evidence,
        canary=_tally(state.canary, state.near),
        stable=_tally(state.stable, state.near),
        slow_from=TOOK_MS[state.near] if state.near and scale is DURATIONS else None,
        since=evidence.since if known_before else to_time(now),
        updated=evidence.updated if reading.errors else to_time(now),
        state=encode(state, scale.form),
    )
    harm, seen = log_mean(state.logs), None
    events = evidence.canary.failed + evidence.stable.failed
    crossed = harm >= math.log(1 / rates.alpha)
    worse = crossed and scale.worse(state.canary, state.stable, metric)
    if worse and scale.slots and state.near and events >= LOOK_GROWTH * slots.looked_at:
        seen = _look(slots, trial, harm, rates.alpha, events)
        slots = structs.replace(slots, looked_at=events, told=seen.told)
    kept = encode_slots(slots) if scale.slots else ""
    evidence = structs.replace(evidence, slots=kept, undecided=worse and not scale.slots)
    return _judged(evidence, state, slots, seen, reading, metric, rates, scale, worse=worse)


def _taken(
    state: State, slots: SlotState, reading: Reading, trial: Trial, now: datetime
) -> tuple[State, SlotState]:
    """State and slots with what a reading brought."""
    news = _news(state, reading, trial)
    state = structs.replace(
        state,
        at=reading.at if reading.slots or reading.sources or not reading.sampled else state.at,
        counter=news.counter,
        canary_read=news.canary_read,
        stable_read=news.stable_read,
        canary=tuple(map(add, state.canary, news.canary)),
        stable=tuple(map(add, state.stable, news.stable)),
        # Bets are on what comes after what they were made of.
        logs=raised(state.logs, state.reference, news.canary, news.stable)
        if any(state.reference)
        else state.logs,
        canary_seen=now.timestamp() if any(news.canary) else state.canary_seen,
        stable_seen=now.timestamp() if any(news.stable) else state.stable_seen,
    )
    known = sum(news.stable_read)
    if known >= ENOUGH and known >= 2 * sum(state.reference):
        state = structs.replace(state, reference=news.stable_read)
        if not state.near:
            near, far = slow_bounds(news.stable_read)
            state = structs.replace(state, near=near, far=far)
    if state.near:
        slots = counted(slots, slow(slots, reading.slots, state.bounds))
    return state, slots


def _news(state: State, reading: Reading, trial: Trial) -> _News:
    """What is new of both arms; totals of a counter that was not seen before bring nothing."""
    read = reading.slots
    if read is None:
        return _News(state.counter, state.canary_read, state.stable_read)
    canary, stable = (read.arms.get(arm, NOTHING) for arm in (trial.canary, trial.stable))
    if read.counter != state.counter:
        return _News(read.counter, canary, stable)
    new = (
        tuple(map(max, map(sub, now, then), repeat(0)))
        for now, then in ((canary, state.canary_read), (stable, state.stable_read))
    )
    return _News(read.counter, canary, stable, *new)


def _tally(row: Row, near: int) -> Tally:
    return Tally(requests=sum(row), failed=sum(row[near:]) if near else 0)


def _look(slots: SlotState, trial: Trial, harm: float, alpha: float, events: int) -> Look:
    """What slots say, of one or the other duration: each has half of ``alpha``."""
    canary, border = canary_slots(slots.weight, trial.salt)

    def asked(bad: int) -> Look:
        return look(slots.before(bad), slots.since(bad), canary, border, harm, alpha / 2, events)

    near = asked(_NEAR)
    if near.confirmed:
        return near
    far = asked(_FAR)
    return far if far.confirmed or far.chance < near.chance else near


def _judged(
    evidence: Evidence,
    state: State,
    slots: SlotState,
    seen: Look | None,
    reading: Reading,
    metric: Metric,
    rates: Rates,
    scale: Scale,
    *,
    worse: bool,
) -> Evidence:
    """The verdict and its sentence."""
    told, harm = scale.figures(state.canary, state.stable), log_mean(state.logs)
    verdict = Verdict.INSUFFICIENT
    if seen is not None and seen.confirmed:
        verdict, message = Verdict.FAIL, wording.failed_message(told, harm, seen.told)
    elif reading.errors:
        verdict = Verdict.METRICS_ERROR
        message = wording.unread_message(told, reading.errors)
    elif harm >= math.log(1 / rates.alpha) and not worse:
        message = f"{told}; {scale.hardly.format(margin=metric.tolerated)}"
    elif evidence.undecided:
        message = wording.undecided_message(told, harm)
    elif harm >= math.log(1 / rates.alpha):
        message = wording.accused_message(told, harm, slots.told or "slots are not counted yet")
    else:
        message = wording.idle_message(evidence.canary, evidence.stable) or f"{told}; {scale.well}"
    return structs.replace(evidence, verdict=verdict, message=wording.cut(message))


def accused(evidence: Evidence, alpha: float, form: str = FORMAT) -> bool:
    """Whether single requests speak against the canary, whatever slots say to it."""
    state = decode(evidence.state, form)
    return state is not None and log_mean(state.logs) >= math.log(1 / alpha)


def unseen_since(evidence: Evidence, moment: datetime) -> tuple[str, ...]:
    """Which of the arms ``canary`` and ``stable`` had no request counted since ``moment``.

    None as long as nobody counts durations: then there is nothing to wait for.
    """
    state = decode(evidence.state)
    if state is None or not state.counter:
        return ()
    seen = {"canary": state.canary_seen, "stable": state.stable_seen}
    return tuple(arm for arm, at in seen.items() if at < moment.timestamp())


def encode(state: State, form: str = FORMAT) -> str:
    """A state as it stands in status."""
    return persisted.written(state, form)


def decode(text: str, form: str = FORMAT) -> State | None:
    """The state, or None for what this version did not write."""
    state = persisted.read(text, State, form)
    if state is None:
        return None
    rows = (state.canary_read, state.stable_read, state.canary, state.stable, state.reference)
    fits = len(state.logs) == len(DISTORTIONS) and all(len(row) == CLASSES for row in rows)
    return state if fits and 0 <= state.near <= state.far < CLASSES else None
