"""Evidence from two counters of each revision, how many there were and how many were good, or bad.

Bets are made on both sides, on bad ones that become more and on good ones that become fewer: whichever are
rare tell more. Where counters tell client slots, these have to bear out what single requests say, as they do
for failures. Where they do not, what single requests say against a canary sends it nowhere: it holds the
step. A proof has to be ``GUARD_FACTOR`` times surer then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct, field, structs

from kohort.analysis import persisted, wording
from kohort.analysis.betting import HARM_BETS, PROOF_BETS, Batch, Logs, log_mean, raised
from kohort.analysis.confirming import GUARD_FACTOR, LOOK_GROWTH, Look
from kohort.analysis.reading import Count, Reading, Series
from kohort.analysis.sequential import Rates, Trial
from kohort.analysis.slots import SlotState, counted, failures, opened
from kohort.analysis.slots import decode as decode_slots
from kohort.analysis.slots import encode as encode_slots
from kohort.analysis.timestamps import to_time
from kohort.analysis.tolerance import asked_for_proof, bear_out, border
from kohort.analysis.trail import Trail
from kohort.api.analysis import Metric
from kohort.api.status import Evidence, Tally, Verdict

FORMAT = "1:"
"""Begins every state; another format begins with another number."""

MORE = (1.01, 1.025, 1.05, 1.1, *HARM_BETS)
FEWER = PROOF_BETS
"""How many times as many there are as at the border of what is tolerated; bets on both sides."""

BETS = len(MORE) + len(FEWER)
_NO_CAPITAL_YET = (0.0,) * BETS

SERIES_LIMIT = 240
"""Series of one cohort and metric that are remembered: status has no room for more."""

ABSURD = 100
"""Requests after which more events than requests are no matter of their order any more."""

CHANGED = "what is counted, or its margin, was changed; the analysis started anew"


class Known(Struct, frozen=True, array_like=True):
    """A counter when it was last read, and when it stood so (Unix time)."""

    value: int
    at: float


class Waiting(Struct, frozen=True, array_like=True):
    """Counts that were read and are in no bet yet, because they do not fit together."""

    canary: int = 0
    canary_events: int = 0
    stable: int = 0
    stable_events: int = 0


class State(Struct, frozen=True, omit_defaults=True):
    """What must survive a restart: log capitals, and the counters they were computed from.

    ``asked``: of which queries, and within which border. ``at``: Unix time of the oldest sample of the last
    reading. ``canary_seen``, ``stable_seen``: when a count of the arm last grew.
    """

    asked: str
    at: float = 0.0
    harm: tuple[float, ...] = _NO_CAPITAL_YET
    proof: tuple[float, ...] = _NO_CAPITAL_YET
    canary_seen: float = 0.0
    stable_seen: float = 0.0
    waiting: Waiting = Waiting()
    harm_trail: Trail = Trail()
    proof_trail: Trail = Trail()
    series: dict[str, Known] = field(default_factory=dict)


def begin(
    metric: Metric, reading: Reading | None, trial: Trial, weight: int, now: datetime
) -> Evidence:
    """Fresh evidence; the reading is its snapshot, so that only what is counted later tells."""
    state, slots = State(asked=_asked(metric)), opened(weight) if _tells_slots(metric) else None
    if reading is not None and reading.series:
        state, _ = _taken(state, reading, trial)
        slots = slots and counted(slots, failures(slots, reading.slots))
    return Evidence(
        metric=metric.name,
        message=wording.unseen_message(("canary", "stable")),
        since=to_time(now),
        state=encode(state),
        slots=encode_slots(slots) if slots else "",
    )


def advance(
    evidence: Evidence, reading: Reading, trial: Trial, metric: Metric, rates: Rates, now: datetime
) -> Evidence:
    """Evidence with what was counted since its snapshot; a reading that is not newer adds nothing.

    A reading with errors adds nothing either. Fail is final. State of another format, of other queries or
    of another margin is never guessed at: the analysis starts anew and says so.
    """
    if evidence.verdict is Verdict.FAIL:
        return evidence
    state, slots = decode(evidence.state), decode_slots(evidence.slots)
    lost = slots is None and _tells_slots(metric)
    if state is None or lost or state.asked != _asked(metric):
        told = CHANGED if state and state.asked != _asked(metric) else wording.UNREADABLE
        return structs.replace(begin(metric, reading, trial, trial.weight, now), message=told)
    if reading.errors:
        message = wording.unread_message(_figures(evidence, metric), reading.errors)
        return structs.replace(evidence, verdict=Verdict.METRICS_ERROR, message=message)
    if reading.at <= state.at:
        return evidence
    known_before = state.at > 0
    state, events = _taken(state, reading, trial)
    if events is not None:
        batch = events if _kind(metric) == "bad" else _rest(events)
        state = _bet(state, batch, metric, rates)
        evidence = structs.replace(
            evidence,
            canary=_added(evidence.canary, batch.canary),
            stable=_added(evidence.stable, batch.stable),
        )
    evidence = structs.replace(
        evidence,
        since=evidence.since if known_before else to_time(now),
        updated=to_time(now),
        state=encode(state),
    )
    if slots is None:
        return _judged(evidence, state, metric, rates)
    slots, seen = _asked_of_slots(
        counted(slots, failures(slots, reading.slots)), evidence, state, trial, metric, rates
    )
    evidence = structs.replace(evidence, slots=encode_slots(slots))
    return _judged_by_slots(evidence, state, slots, seen, metric, rates)


def _asked_of_slots(
    slots: SlotState, evidence: Evidence, state: State, trial: Trial, metric: Metric, rates: Rates
) -> tuple[SlotState, Look | None]:
    """The slots after a look at them, where single requests give reason for one."""
    harm, proof = log_mean(state.harm), log_mean(state.proof)
    requests = evidence.canary.requests + evidence.stable.requests
    bad = evidence.canary.failed + evidence.stable.failed
    rarer, seen = min(bad, requests - bad), None
    if harm >= math.log(1 / rates.alpha) and rarer >= LOOK_GROWTH * slots.looked_at:
        seen = bear_out(slots, trial, metric, harm, rates.alpha, rarer)
        slots = structs.replace(slots, looked_at=rarer, told=seen.told)
    if proof >= math.log(1 / rates.beta) and requests >= LOOK_GROWTH * slots.proof_looked_at:
        slots = asked_for_proof(slots, trial, metric, rates.beta, requests)
    return slots, seen


def _taken(state: State, reading: Reading, trial: Trial) -> tuple[State, Batch | None]:
    """The state with a reading's counters, and a batch of what is new if it fits together.

    Series that were not known bring nothing yet, for nobody knows since when they count. Of a series whose
    sample is not newer than the known one nothing is taken: of two replicas one may lag.
    """
    gains: dict[tuple[str, bool], int] = {}
    series = dict(state.series)
    for name, sample in reading.series.items():
        key = _key(name)
        known = series.get(key)
        if known is not None and sample.at <= known.at:
            continue
        if known is not None:
            # A counter that fell was reset, and counts from nought.
            fell = sample.value < known.value
            gain = sample.value - (0 if fell else known.value)
            arm = (name.revision, name.events)
            gains[arm] = gains.get(arm, 0) + gain
        series[key] = Known(sample.value, sample.at)
    now, before = _gained(gains, trial), state.waiting
    waiting = Waiting(
        before.canary + now.canary,
        before.canary_events + now.canary_events,
        before.stable + now.stable,
        before.stable_events + now.stable_events,
    )
    batch, waiting = _batch(waiting)
    state = structs.replace(
        state,
        at=max(state.at, reading.at),
        canary_seen=reading.at if now.canary else state.canary_seen,
        stable_seen=reading.at if now.stable else state.stable_seen,
        waiting=waiting,
        series=_newest(series),
    )
    return state, batch


def _gained(gains: Mapping[tuple[str, bool], int], trial: Trial) -> Waiting:
    return Waiting(
        *(
            gains.get((revision, events), 0)
            for revision in (trial.canary, trial.stable)
            for events in (False, True)
        )
    )


def _batch(waiting: Waiting) -> tuple[Batch | None, Waiting]:
    """What can be bet on, and what has to wait for the rest of it.

    An event may be counted later than the request that it is of: what is out of order waits, so that none
    of either arm is lost. What one arm alone did tells nothing.
    """
    canary = Count(waiting.canary, waiting.canary_events)
    stable = Count(waiting.stable, waiting.stable_events)
    if any(count.failed > count.requests for count in (canary, stable)):
        return None, waiting
    if not canary.requests or not stable.requests:
        return None, Waiting()
    return Batch(canary, stable), Waiting()


def _newest(series: Mapping[str, Known]) -> dict[str, Known]:
    """As many as there is room for; those that were not told for longest go first."""
    if len(series) <= SERIES_LIMIT:
        return dict(series)
    kept = sorted(series, key=lambda key: (-series[key].at, key))[:SERIES_LIMIT]
    return {key: series[key] for key in kept}


def _bet(state: State, batch: Batch, metric: Metric, rates: Rates) -> State:
    """The state after bets on a batch, in which bad ones are those that failed."""
    rest, limit = _rest(batch), border(metric)

    def after(logs: Logs, bad: Logs, good: Logs) -> Logs:
        first, second = logs[: len(bad)], logs[len(bad) :]
        return (
            *raised(first, bad, batch, limit.added, limit.ratio),
            *raised(second, good, rest, limit.of_good().added, limit.ratio),
        )

    harm, proof = after(state.harm, MORE, FEWER), after(state.proof, FEWER, MORE)
    return structs.replace(
        state,
        harm=harm,
        proof=proof,
        harm_trail=state.harm_trail.after(log_mean(harm), math.log(1 / rates.alpha)),
        proof_trail=state.proof_trail.after(log_mean(proof), math.log(1 / rates.beta)),
    )


def _rest(batch: Batch) -> Batch:
    """The same requests; those that did not fail counted instead."""
    canary, stable = batch.canary, batch.stable
    return Batch(
        Count(canary.requests, canary.requests - canary.failed),
        Count(stable.requests, stable.requests - stable.failed),
    )


def _judged(evidence: Evidence, state: State, metric: Metric, rates: Rates) -> Evidence:
    """The verdict and its sentence: harm first, then proof."""
    told = _figures(evidence, metric)
    harm, proof = log_mean(state.harm), log_mean(state.proof)
    undecided = harm >= math.log(1 / rates.alpha)
    verdict = Verdict.INSUFFICIENT
    if _mixed_up(state.waiting):
        verdict, message = Verdict.METRICS_ERROR, _mixed_up_message(told, metric)
    elif undecided:
        message = wording.undecided_message(told, harm)
    elif proof >= math.log(GUARD_FACTOR / rates.beta):
        verdict = Verdict.PASS
        message = f"{told}; not worse by {metric.tolerated}, {wording.chance(proof)} otherwise"
    elif proof >= math.log(1 / rates.beta):
        message = wording.guarded_message(
            f"{told}; not worse by {metric.tolerated}", proof, rates.beta / GUARD_FACTOR
        )
    else:
        message = _nothing_told(evidence, told)
    return structs.replace(
        evidence, verdict=verdict, undecided=undecided, message=wording.cut(message)
    )


def _judged_by_slots(
    evidence: Evidence,
    state: State,
    slots: SlotState,
    seen: Look | None,
    metric: Metric,
    rates: Rates,
) -> Evidence:
    """The verdict and its sentence where counters tell client slots, which have to bear either out."""
    told, harm, proof = _figures(evidence, metric), log_mean(state.harm), log_mean(state.proof)
    not_worse, verdict = f"{told}; not worse by {metric.tolerated}", Verdict.INSUFFICIENT
    proves = proof >= math.log(1 / rates.beta)
    if seen is not None and seen.confirmed:
        verdict, message = Verdict.FAIL, wording.failed_message(told, harm, seen.told)
    elif _mixed_up(state.waiting):
        verdict, message = Verdict.METRICS_ERROR, _mixed_up_message(told, metric)
    elif harm >= math.log(1 / rates.alpha):
        message = wording.accused_message(told, harm, slots.told)
    elif proves and slots.proven:
        verdict, message = Verdict.PASS, f"{not_worse}, {wording.chance(proof)} otherwise"
    elif proves:
        message = wording.doubted_message(not_worse, slots.doubt)
    else:
        message = _nothing_told(evidence, told)
    return structs.replace(evidence, verdict=verdict, message=wording.cut(message))


def _nothing_told(evidence: Evidence, told: str) -> str:
    idle = wording.idle_message(evidence.canary, evidence.stable)
    return idle or f"{told}; nothing speaks against the canary"


def _mixed_up(waiting: Waiting) -> bool:
    """Whether so many more events wait than requests that it is no matter of their order."""
    arms = ((waiting.canary, waiting.canary_events), (waiting.stable, waiting.stable_events))
    return any(requests >= ABSURD and events > requests for requests, events in arms)


def _mixed_up_message(told: str, metric: Metric) -> str:
    return f"{told}; more {_kind(metric)} ones than there are at all: check both queries"


def _tells_slots(metric: Metric) -> bool:
    return metric.counts is not None and metric.counts.slot_label is not None


def _kind(metric: Metric) -> str:
    return "good" if metric.counts is not None and metric.counts.wants_more else "bad"


def _figures(evidence: Evidence, metric: Metric) -> str:
    return wording.counter_figures(evidence.canary, evidence.stable, more=_kind(metric) == "good")


def unseen_since(evidence: Evidence, moment: datetime) -> tuple[str, ...]:
    """Which of the arms ``canary`` and ``stable`` had nothing counted since ``moment``."""
    state = decode(evidence.state) or State(asked="")
    seen = {"canary": state.canary_seen, "stable": state.stable_seen}
    return tuple(arm for arm, at in seen.items() if at < moment.timestamp())


def accused(evidence: Evidence, alpha: float) -> bool:
    """Whether counters speak against the canary, even if not surely enough to decide."""
    state = decode(evidence.state)
    return state is not None and log_mean(state.harm) >= math.log(1 / alpha)


def proof_share(evidence: Evidence, beta: float) -> float:
    """How far the proof of non-inferiority has come: 0 none, 1 reached (on the log scale)."""
    state, needed = decode(evidence.state), 1 / beta if evidence.slots else GUARD_FACTOR / beta
    if state is None:
        return 0.0
    return min(1.0, max(0.0, log_mean(state.proof) / math.log(needed)))


def _added(tally: Tally, count: Count) -> Tally:
    return Tally(requests=tally.requests + count.requests, failed=tally.failed + count.failed)


def _asked(metric: Metric) -> str:
    return persisted.fingerprint(metric.counts, border(metric))


def _key(series: Series) -> str:
    return persisted.fingerprint(*series)


def encode(state: State) -> str:
    """A state as it stands in status."""
    return persisted.written(state, FORMAT)


def decode(text: str) -> State | None:
    """The state, or None for what this version did not write."""
    state = persisted.read(text, State, FORMAT)
    return state if state and len(state.harm) == len(state.proof) == BETS else None
