"""Evidence from pairs: what became of requests that both revisions answered.

Only pairs in which one revision alone failed say which one is worse. With as many requests in both arms
the bets of ``betting`` are those on discordant pairs: a ratio r bets that of such pairs a share of
r / (1 + r) is the canary's fault.
"""

from __future__ import annotations

import math
from datetime import datetime

from msgspec import structs

from kohort.analysis import wording
from kohort.analysis.betting import HARM_BETS, Batch, log_mean, raised
from kohort.analysis.counting import new_requests, snapshot
from kohort.analysis.reading import Arms, Count, Reading
from kohort.analysis.sequential import State, decode, encode
from kohort.analysis.timestamps import to_time
from kohort.api.status import Evidence, Tally, Verdict

METRIC = "mirror"
DIFFERENT = "different"
"""Stands for a revision in readings: counts pairs of answers that differ."""


def begin(reading: Reading | None, *, canary: str, stable: str, now: datetime) -> Evidence:
    """Fresh evidence; the reading is its snapshot."""
    state = State(margin=0.0)
    if reading is not None:
        sources = dict(snapshot(_packed(reading, canary, stable), canary, stable))
        state = State(margin=0.0, at=reading.at, complete=not reading.errors, sources=sources)
    return Evidence(
        metric=METRIC, message=wording.NO_PAIRS, since=to_time(now), state=encode(state)
    )


def advance(
    evidence: Evidence, reading: Reading, *, canary: str, stable: str, alpha: float, now: datetime
) -> Evidence:
    """Evidence with the pairs that were compared since its snapshot.

    ``reading``: both arms have the same requests; failed are those that failed there alone.
    ``alpha``: this check's share of falseRollback. Fail is final; differing answers are only told.
    """
    if evidence.verdict is Verdict.FAIL:
        return evidence
    state = decode(evidence.state)
    if state is None:
        return begin(reading, canary=canary, stable=stable, now=now)
    if reading.at <= state.at:
        return evidence
    packed = _packed(reading, canary, stable)
    new, sources = new_requests(state.sources, packed, canary, stable, complete=state.complete)
    pairs, alone = new.canary.requests, new.stable.failed
    known_before = state.at > 0
    batch = Batch(new.canary, Count(pairs, alone))
    seen = now.timestamp() if pairs else state.canary_seen
    state = structs.replace(
        state,
        at=reading.at,
        complete=state.complete or not reading.errors,
        harm=raised(state.harm, HARM_BETS, batch),
        canary_seen=seen,
        stable_seen=seen,
        different=state.different + new.stable.requests - alone,
        sources=dict(sources),
    )
    of_canary, of_stable = (
        _added(evidence.canary, batch.canary),
        _added(evidence.stable, batch.stable),
    )
    harm = log_mean(state.harm)
    message = wording.pairs_message(of_canary, of_stable, state.different)
    if harm >= math.log(1 / alpha):
        verdict, message = Verdict.FAIL, f"{message}; {wording.chance(harm)}"
    elif reading.errors:
        verdict = Verdict.METRICS_ERROR
        message = wording.cut(
            f"mirrored requests could not be read: {'; '.join(reading.errors)}", f"; {message}"
        )
    else:
        verdict = Verdict.INSUFFICIENT
    return structs.replace(
        evidence,
        verdict=verdict,
        message=message,
        canary=of_canary,
        stable=of_stable,
        # As for metrics: without a snapshot time began to count with the first look.
        since=evidence.since if known_before else to_time(now),
        updated=evidence.updated if reading.errors else to_time(now),
        state=encode(state),
    )


def _packed(reading: Reading, canary: str, stable: str) -> Reading:
    """A reading in which stable's requests are the pairs that differ or that failed on it alone.

    Its own requests are the canary's, so that two arms can carry all three counts.
    """

    def pack(arms: Arms) -> Arms:
        nothing = Count(0, 0)
        alone = arms.get(stable, nothing).failed
        different = arms.get(DIFFERENT, nothing).requests
        return {canary: arms.get(canary, nothing), stable: Count(different + alone, alone)}

    sources = {name: pack(arms) for name, arms in reading.sources.items()}
    return Reading(reading.at, sources, reading.errors)


def _added(tally: Tally, count: Count) -> Tally:
    return Tally(requests=tally.requests + count.requests, failed=tally.failed + count.failed)
