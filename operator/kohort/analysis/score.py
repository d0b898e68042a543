"""Whether a canary's scores are worse: evidence on whole histograms, as on durations.

Classes of scores stand where those of durations do, from the best to the worst. So bets on single scores and
client slots are those of ``latency``; what differs is what is tolerated, and what is said.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import structs

from kohort.analysis import latency, persisted
from kohort.analysis.durations import BEYOND, CLASSES
from kohort.analysis.latency import Scale
from kohort.analysis.reading import Reading, Row
from kohort.analysis.sequential import Rates, Trial
from kohort.api.analysis import Metric
from kohort.api.prometheus import Better, MarginType, Score
from kohort.api.status import Evidence, Verdict

FORMAT = "score 1:"
"""Begins every state; another format begins with another number."""

CHANGED = "the histogram, or its buckets, are others than before; the analysis started anew"


def begin(
    metric: Metric, reading: Reading | None, trial: Trial, weight: int, now: datetime
) -> Evidence:
    """Fresh evidence; the reading is its snapshot, so that only later scores count."""
    return latency.begin(metric, reading, trial, weight, now, _scale(metric, _bounds(reading)))


def advance(
    evidence: Evidence, reading: Reading, trial: Trial, metric: Metric, rates: Rates, now: datetime
) -> Evidence:
    """Evidence with what was counted since its snapshot; a reading that is not newer adds nothing.

    Of other buckets than before the analysis starts anew and says so.
    """
    known, bounds = decode(evidence.state), reading.bounds
    if known is not None:
        bounds = bounds or known.asked[1:]
        asked = _asked(metric, bounds)
        if known.asked and known.asked != asked and evidence.verdict is not Verdict.FAIL:
            begun = begin(metric, reading, trial, trial.weight, now)
            return structs.replace(begun, message=CHANGED)
        state = structs.replace(known, asked=asked)
        evidence = structs.replace(evidence, state=latency.encode(state, FORMAT))
    return latency.advance(evidence, reading, trial, metric, rates, now, _scale(metric, bounds))


def _bounds(reading: Reading | None) -> tuple[str, ...]:
    return reading.bounds if reading is not None else ()


def _asked(metric: Metric, bounds: tuple[str, ...]) -> tuple[str, ...]:
    return (persisted.fingerprint(metric.score), *bounds) if bounds else ()


def unseen_since(evidence: Evidence, moment: datetime) -> tuple[str, ...]:
    """Which of the arms ``canary`` and ``stable`` had no score counted since ``moment``."""
    state = decode(evidence.state)
    if state is None:
        return ()
    seen = {"canary": state.canary_seen, "stable": state.stable_seen}
    return tuple(arm for arm, at in seen.items() if at < moment.timestamp())


def accused(evidence: Evidence, alpha: float) -> bool:
    """Whether single scores speak against the canary, whatever slots say to it."""
    return latency.accused(evidence, alpha, FORMAT)


def decode(text: str) -> latency.State | None:
    """The state, or None for what this version did not write."""
    return latency.decode(text, FORMAT)


def worse(canary: Row, stable: Row, metric: Metric) -> bool:
    """Whether beyond some bound there is a greater share of the canary's scores, by the margin at least."""
    return any(
        of_canary >= _tolerated(of_stable, metric) and of_canary > of_stable
        for _, of_canary, of_stable in _beyond(canary, stable)
    )


def _tolerated(share: float, metric: Metric) -> float:
    relative = metric.score is not None and metric.score.margin_type is MarginType.RELATIVE
    return share * (1 + metric.allowed) if relative else share + metric.allowed


def _beyond(canary: Row, stable: Row) -> list[tuple[int, float, float]]:
    """By class, the shares of both arms' scores in it and in worse ones; where enough of the canary are."""
    all_canary, all_stable = sum(canary), sum(stable)
    if not all_canary or not all_stable:
        return []
    tails = ((k, sum(canary[k:]), sum(stable[k:])) for k in range(1, CLASSES))
    return [(k, x / all_canary, y / all_stable) for k, x, y in tails if x >= BEYOND]


def _scale(metric: Metric, bounds: tuple[str, ...]) -> Scale:
    score = metric.score

    def figures(canary: Row, stable: Row) -> str:
        counted = f"({sum(canary):,} and {sum(stable):,} scores)"
        found = _beyond(canary, stable)
        if not found or not bounds or score is None:
            return f"no bound has enough of the canary's scores beyond it {counted}"
        k, of_canary, of_stable = max(found, key=lambda each: each[1] - each[2])
        return (
            f"{of_canary:.3g} of the canary's scores were {_beyond_bound(score, bounds, k)} against "
            f"{of_stable:.3g} of stable's {counted}"
        )

    return Scale(
        form=FORMAT,
        worse=worse,
        figures=figures,
        hardly="worse, but by less than {margin}",
        well="not worse",
        asked=_asked(metric, bounds),
        slots=score is not None and score.slot_label is not None,
    )


def _beyond_bound(score: Score, bounds: tuple[str, ...], k: int) -> str:
    """What the scores of a class and of worse ones have in common."""
    if score.better is Better.LOWER:
        return f"above {bounds[k - 1]}"
    return f"at most {bounds[max(0, len(bounds) - 1 - k)]}"
