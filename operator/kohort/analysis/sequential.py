"""Sequential analysis of one cohort and metric: evidence that survives restarts and counts once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec import Struct, structs

from kohort.analysis import persisted, wording
from kohort.analysis.betting import HARM_BETS, PROOF_BETS, Batch, log_mean, raised
from kohort.analysis.confirming import LOOK_GROWTH, Look, level, look
from kohort.analysis.counting import Counters, new_requests, snapshot
from kohort.analysis.disturbance import Recent
from kohort.analysis.power import dispersion, seen_rate
from kohort.analysis.proving import PROOF_EPOCH, chance_of_luck
from kohort.analysis.reading import Count, Reading
from kohort.analysis.slots import SlotState, at_weight, counted, failures, opened, unproven
from kohort.analysis.slots import decode as decode_slots
from kohort.analysis.slots import encode as encode_slots
from kohort.analysis.split import canary_slots
from kohort.analysis.timestamps import from_time, to_time
from kohort.analysis.trail import Trail
from kohort.api.analysis import Metric
from kohort.api.status import Evidence, Tally, Verdict

FORMAT = "1:"
"""Begins every state; another format begins with another number."""

_NO_CAPITAL_YET = (0.0,) * len(HARM_BETS)
_NO_PROOF_YET = (0.0,) * len(PROOF_BETS)


@dataclass(frozen=True)
class Trial:
    """Who is compared: the revisions of both arms, and the salt by which clients were drawn.

    ``weight``: the canary's percentage, by which slots are labelled where evidence has to start anew.
    """

    canary: str
    stable: str
    salt: str
    weight: int = 0


@dataclass(frozen=True)
class Rates:
    """How sure one check must be: ``alpha`` of a rollback, ``beta`` of a proof of non-inferiority."""

    alpha: float
    beta: float


class State(Struct, frozen=True, omit_defaults=True):
    """What must survive a restart: log capitals, and the counters they were computed from.

    ``at``: Unix time of the last reading. ``complete``: whether every source was in a snapshot.
    ``canary_seen``, ``stable_seen``: Unix time when a request of the arm was last counted.
    ``different``: mirrored requests whose answers differ. ``recent``: how both arms fare of late.
    ``…_trail``: how both kinds of evidence have grown.
    """

    margin: float
    at: float = 0.0
    complete: bool = False
    harm: tuple[float, ...] = _NO_CAPITAL_YET
    proof: tuple[float, ...] = _NO_PROOF_YET
    canary_seen: float = 0.0
    stable_seen: float = 0.0
    different: int = 0
    recent: Recent = Recent()
    harm_trail: Trail = Trail()
    proof_trail: Trail = Trail()
    sources: dict[str, Counters] = msgspec.field(default_factory=dict)


def begin(
    metric: Metric, reading: Reading | None, trial: Trial, weight: int, now: datetime
) -> Evidence:
    """Fresh evidence; the reading is its snapshot, so that only later requests count.

    Without a reading the next one is the snapshot. Sources that this reading misses (its ``errors``
    are not empty) are taken in when they are first read. ``weight``: the canary's percentage, by which
    slots are labelled.
    """
    state = State(margin=metric.allowed)
    slots = opened(weight)
    if reading is not None:
        state = structs.replace(
            state,
            at=reading.at,
            complete=not reading.errors,
            sources=dict(snapshot(reading, trial.canary, trial.stable)),
        )
        slots = counted(slots, failures(slots, reading.slots))
        state = structs.replace(state, recent=_before(reading))
    return Evidence(
        metric=metric.name,
        message=wording.unseen_message(("canary", "stable")),
        since=to_time(now),
        state=encode(state),
        slots=encode_slots(slots),
    )


def relabelled(evidence: Evidence, weight: int) -> Evidence:
    """Evidence from when the canary has another weight: requests count on, slots count from nought.

    A proof does not go on: the slots that have to bear it out are others.
    """
    slots = decode_slots(evidence.slots)
    if slots is None or slots.weight == weight:
        return evidence
    evidence = structs.replace(evidence, slots=encode_slots(at_weight(slots, weight)))
    if evidence.verdict is not Verdict.PASS:
        return evidence
    told = f"nothing was seen at {weight}% yet"
    return structs.replace(evidence, verdict=Verdict.INSUFFICIENT, message=told)


def advance(
    evidence: Evidence, reading: Reading, trial: Trial, metric: Metric, rates: Rates, now: datetime
) -> Evidence:
    """Evidence with what was counted since its snapshot; a reading that is not newer adds nothing.

    Fail is final. State of another format is never guessed at: the analysis starts anew and says so.
    """
    if evidence.verdict is Verdict.FAIL:
        return evidence
    state, slots = decode(evidence.state), decode_slots(evidence.slots)
    if state is None or slots is None:
        return _anew(evidence, reading, trial, metric, now)
    if reading.at <= state.at:
        return evidence
    batch, sources = new_requests(
        state.sources, reading, trial.canary, trial.stable, complete=state.complete
    )
    margin = metric.allowed
    proof, known_before = state.proof, state.at > 0
    trails = state.harm_trail, state.proof_trail
    if margin != state.margin:
        proof, slots = _NO_PROOF_YET, unproven(slots)
    state = State(
        margin=margin,
        # One that brought nothing does not make older samples of others old news.
        at=reading.at if reading.sources or not reading.sampled else state.at,
        complete=state.complete or not reading.errors,
        harm=raised(state.harm, HARM_BETS, batch),
        proof=raised(proof, PROOF_BETS, batch, margin),
        canary_seen=now.timestamp() if batch.canary.requests else state.canary_seen,
        stable_seen=now.timestamp() if batch.stable.requests else state.stable_seen,
        recent=state.recent.after(batch) if known_before else _before(reading),
        sources=dict(sources),
    )
    state = structs.replace(
        state,
        harm_trail=trails[0].after(log_mean(state.harm), math.log(1 / rates.alpha)),
        proof_trail=trails[1].after(log_mean(state.proof), math.log(1 / rates.beta)),
    )
    slots = counted(slots, failures(slots, reading.slots))
    evidence = structs.replace(
        evidence,
        canary=_added(evidence.canary, batch.canary),
        stable=_added(evidence.stable, batch.stable),
        # Without a snapshot nothing was seen so far: time began to count with the first look.
        since=evidence.since if known_before else to_time(now),
        updated=evidence.updated if reading.errors else to_time(now),
        state=encode(state),
        disturbed=state.recent.disturbed,
    )
    failed = evidence.canary.failed + evidence.stable.failed
    harm, seen = log_mean(state.harm), None
    if harm >= math.log(1 / rates.alpha) and failed >= LOOK_GROWTH * slots.looked_at:
        seen = _look(slots, trial, harm, rates.alpha, failed)
        slots = structs.replace(slots, looked_at=failed, told=seen.told)
    requests = evidence.canary.requests + evidence.stable.requests
    if _proves(state, rates) and requests >= LOOK_GROWTH * slots.proof_looked_at:
        slots = _asked_for_proof(slots, trial, margin, rates.beta, requests)
    evidence = structs.replace(evidence, slots=encode_slots(slots))
    return _judged(evidence, state, slots, seen, reading, batch, metric, rates, now)


def _before(reading: Reading) -> Recent:
    """What stable did before the canary, if that was seen."""
    past = reading.slots.past if reading.slots else None
    return Recent(before=(sum(past.requests), sum(past.failed))) if past else Recent()


def _anew(
    evidence: Evidence, reading: Reading, trial: Trial, metric: Metric, now: datetime
) -> Evidence:
    """Fresh evidence in place of what cannot be read; slots keep their weight if it is known."""
    known = decode_slots(evidence.slots)
    begun = begin(metric, reading, trial, known.weight if known else trial.weight, now)
    return structs.replace(begun, message=wording.UNREADABLE)


def _look(slots: SlotState, trial: Trial, harm: float, alpha: float, failed: int) -> Look:
    canary, border = canary_slots(slots.weight, trial.salt)
    return look(slots.before(), slots.since(), canary, border, harm, alpha, failed)


def _proves(state: State, rates: Rates) -> bool:
    """Whether single requests prove that the canary is not worse by the margin."""
    return log_mean(state.proof) >= math.log(1 / rates.beta)


def _asked_for_proof(
    slots: SlotState, trial: Trial, margin: float, beta: float, requests: int
) -> SlotState:
    """The slots with whether they bear out a proof."""
    canary, border = canary_slots(slots.weight, trial.salt)
    chance = chance_of_luck(slots.before(), slots.since(), canary, border, margin)
    needed = level(beta, requests, PROOF_EPOCH)
    doubt = f"chance {wording.one_in(chance)}, {wording.one_in(needed)} is needed"
    return structs.replace(slots, proof_looked_at=requests, proven=chance <= needed, doubt=doubt)


def _judged(
    evidence: Evidence,
    state: State,
    slots: SlotState,
    seen: Look | None,
    reading: Reading,
    batch: Batch,
    metric: Metric,
    rates: Rates,
    now: datetime,
) -> Evidence:
    """The verdict and its sentence: harm first, then proof, then whether counters can be trusted."""
    canary, stable = evidence.canary, evidence.stable
    told = wording.figures(canary, stable)
    harm, proof = log_mean(state.harm), log_mean(state.proof)
    if seen is not None and seen.confirmed:
        verdict, message = Verdict.FAIL, wording.failed_message(told, harm, seen.told)
    elif _proves(state, rates) and slots.proven and not evidence.disturbed:
        verdict = Verdict.PASS
        message = wording.passed_message(canary, stable, proof, metric.tolerated)
    elif reading.errors:
        verdict = Verdict.METRICS_ERROR
        message = wording.unread_message(told, reading.errors)
    elif evidence.disturbed:
        verdict, message = Verdict.INSUFFICIENT, wording.cut(f"{told}; {state.recent.told()}")
    elif harm >= math.log(1 / rates.alpha):
        verdict = Verdict.INSUFFICIENT
        message = wording.accused_message(told, harm, slots.told)
    elif _proves(state, rates):
        verdict = Verdict.INSUFFICIENT
        message = wording.doubted_message(f"{told}; not worse by {metric.tolerated}", slots.doubt)
    else:
        began = from_time(evidence.since) if evidence.since else now
        verdict = Verdict.INSUFFICIENT
        message = wording.insufficient_message(
            canary, stable, batch, rates.alpha, (now - began).total_seconds()
        )
    return structs.replace(evidence, verdict=verdict, message=message)


def unseen_since(evidence: Evidence, moment: datetime) -> tuple[str, ...]:
    """Which of the arms ``canary`` and ``stable`` had no request counted since ``moment``."""
    state = decode(evidence.state) or State(margin=0.0)
    seen = {"canary": state.canary_seen, "stable": state.stable_seen}
    return tuple(arm for arm, at in seen.items() if at < moment.timestamp())


def accused(evidence: Evidence, alpha: float) -> bool:
    """Whether single requests speak against the canary, whatever slots say to it."""
    state = decode(evidence.state)
    return state is not None and log_mean(state.harm) >= math.log(1 / alpha)


def visible_harm(evidence: Evidence, alpha: float) -> tuple[float, float]:
    """Stable's failed share, and the canary's that would have been seen four times out of five."""
    canary, stable, slots = evidence.canary, evidence.stable, decode_slots(evidence.slots)
    rate = (stable.failed + 0.5) / (stable.requests + 1)
    spread = dispersion(slots.before(), slots.since()) if slots else 1.0
    return rate, seen_rate(canary.requests, stable.requests, rate, alpha, spread)


def proof_share(evidence: Evidence, beta: float) -> float:
    """How far the proof of non-inferiority has come: 0 none, 1 reached (on the log scale)."""
    state = decode(evidence.state)
    if state is None:
        return 0.0
    return min(1.0, max(0.0, log_mean(state.proof) / math.log(1 / beta)))


def _added(tally: Tally, count: Count) -> Tally:
    return Tally(requests=tally.requests + count.requests, failed=tally.failed + count.failed)


def encode(state: State) -> str:
    """A state as it stands in status."""
    return persisted.written(state, FORMAT)


def decode(text: str) -> State | None:
    """The state, or None for what this version did not write."""
    state = persisted.read(text, State, FORMAT)
    if state is None:
        return None
    fits = len(state.harm) == len(HARM_BETS) and len(state.proof) == len(PROOF_BETS)
    return state if fits else None
