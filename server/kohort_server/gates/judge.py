"""Deciding a gate from numbers alone: what is good enough, what is not, and what cannot be known yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates.bounds import Interval, NoBoundError, Rows, samples_needed
from kohort_server.gates.distributions import holm
from kohort_server.gates.errors import GateError
from kohort_server.gates.metrics import Measure, MetricName
from kohort_server.gates.paired import (
    bootstrap_difference_lower,
    bootstrap_worse,
    mcnemar_worse,
    share_difference_lower,
    sign_flip_worse,
)
from kohort_server.gates.results import Finding, Outcome

Parts = Mapping[str, Rows]
"""The numbers of the samples of each slice; those of all under the empty name."""


def share_of(hits: NDArray[np.bool_]) -> Measure:
    """The share of samples that something holds of."""
    return Measure(
        MetricName.ACCURACY,
        lambda rows: float(hits[rows].mean()) if len(rows) else float("nan"),
        hits.astype(float),
        lambda rows: (int(hits[rows].sum()), len(rows)),
    )


@dataclass(frozen=True, slots=True)
class Demand:
    """A threshold, how sure it must be, and how that is found."""

    threshold: float
    confidence: float
    interval: Interval


def good_enough(measure: Measure, demand: Demand, parts: Parts) -> list[Finding]:
    """Whether a value is beyond the threshold with the confidence: of all samples and in each slice.

    A model that is not good enough somewhere passes by chance at most as often as one of these bounds errs,
    however many slices there are: all of them must pass.
    """
    return [_good_enough(measure, demand, name, rows) for name, rows in parts.items()]


def _good_enough(measure: Measure, demand: Demand, name: str, rows: Rows) -> Finding:
    value = measure.of(rows)
    if not math.isfinite(value):
        what = "there are no samples of a kind that this metric needs"
        return Finding(Outcome.INVALID, what, name, len(rows), threshold=demand.threshold)

    def found(outcome: Outcome, message: str, bound: float | None = None) -> Finding:
        return Finding(outcome, message, name, len(rows), value, bound, demand.threshold)

    least = "at least" if measure.sign > 0 else "at most"
    try:
        bound = measure.bound(rows, demand.confidence, demand.interval)
    except NoBoundError as error:
        return found(Outcome.INSUFFICIENT, str(error))
    if measure.sign * (bound - demand.threshold) >= 0:
        return found(Outcome.PASSED, f"{least} {bound:.4g} is sure", bound)
    if measure.sign * (value - demand.threshold) <= 0:
        return found(
            Outcome.FAILED,
            f"{value:.4g} was seen; {least} {demand.threshold:.4g} must be sure",
            bound,
        )
    return found(
        Outcome.INSUFFICIENT,
        f"{value:.4g} was seen, {least} {bound:.4g} is sure: "
        f"{needed(measure, demand, rows, bound)}",
        bound,
    )


def needed(measure: Measure, demand: Demand, rows: Rows, bound: float) -> str:
    """How many samples would be enough if the value stays as it is, in words."""
    if measure.counts is None:
        value = measure.of(rows)
        # The distance of such a bound shrinks with the root of the number.
        times = ((value - bound) / (value - demand.threshold)) ** 2
        more = math.ceil(len(rows) * times)
        return f"about {more:,} samples like these are needed; there are {len(rows):,}"
    hits, count = measure.counts(rows)
    threshold = demand.threshold
    if measure.name is MetricName.F1:
        threshold = threshold / (2 - threshold)
    enough = samples_needed(demand.interval, hits / count, threshold, demand.confidence)
    if enough is None:
        return "more samples are needed than anybody has; ask for less"
    which = "samples" if count == len(rows) else "samples that count for it"
    return f"about {enough:,} {which} are needed; there are {count:,}"


def not_worse(
    new: Measure, stable: Measure, margin: float | None, confidence: float, parts: Parts
) -> list[Finding]:
    """Whether one of two models is not worse than the other on the same samples, in any part.

    Without a margin a part fails that shows it to be worse; of models that are not worse anywhere at most
    the share that the confidence leaves fails in any part (Holm). With a margin each part must show that the
    model is worse by less than that.
    """
    chances = {name: _worse(new, stable, rows) for name, rows in parts.items()}
    adjusted = dict(zip(chances, holm(list(chances.values())), strict=True))
    return [
        _not_worse(new, stable, margin, confidence, name, rows, float(adjusted[name]))
        for name, rows in parts.items()
    ]


def _worse(new: Measure, stable: Measure, rows: Rows) -> float:
    """The chance, at most, of looking so much worse without being worse."""
    if new.counts is not None and new.per_sample is not None and stable.per_sample is not None:
        return mcnemar_worse(*_changed(new, stable, rows))
    if new.per_sample is not None and stable.per_sample is not None:
        return sign_flip_worse(new.per_sample[rows] - stable.per_sample[rows])
    return bootstrap_worse(lambda drawn: difference(new, stable, rows[drawn]), len(rows))


def _changed(new: Measure, stable: Measure, rows: Rows) -> tuple[int, int]:
    """Samples that only the new model has right, and that only the stable one has."""
    assert new.per_sample is not None
    assert stable.per_sample is not None
    away = new.per_sample[rows] - stable.per_sample[rows]
    return int((away > 0).sum()), int((away < 0).sum())


def difference(new: Measure, stable: Measure, rows: Rows) -> float:
    """By how much the new model is better: of RMSE, by how much less it errs."""
    return new.sign * (new.of(rows) - stable.of(rows))


def _not_worse(
    new: Measure,
    stable: Measure,
    margin: float | None,
    confidence: float,
    name: str,
    rows: Rows,
    chance: float,
) -> Finding:
    value = difference(new, stable, rows)
    if not math.isfinite(value):
        what = "there are no samples of a kind that this metric needs"
        return Finding(Outcome.INVALID, what, name, len(rows))
    told = f"{new.of(rows):.4g} and stable {stable.of(rows):.4g}"
    if new.counts is not None and new.per_sample is not None:
        better, worse = _changed(new, stable, rows)
        bound = share_difference_lower(better, worse, len(rows), confidence)
        told += f"; {better} samples became right, {worse} wrong"
    else:
        bound = bootstrap_difference_lower(
            lambda drawn: difference(new, stable, rows[drawn]), len(rows), confidence
        )
    threshold = None if margin is None else -margin

    def found(outcome: Outcome, message: str) -> Finding:
        return Finding(outcome, message, name, len(rows), value, bound, threshold)

    if chance <= 1 - confidence:
        return found(Outcome.FAILED, f"{told}: by chance in {chance:.2g} of cases at most")
    if threshold is None:
        return found(Outcome.PASSED, f"{told}: no sign of being worse")
    if bound >= threshold:
        return found(Outcome.PASSED, f"{told}: worse by less than {margin:.4g}")
    if value < threshold:
        return found(Outcome.FAILED, f"{told}: worse by {-value:.4g}, which is not sure")
    return found(
        Outcome.INSUFFICIENT,
        f"{told}: it may be worse by {-bound:.4g}; give more samples, or a wider margin than {margin:.4g}",
    )


def vacuous(top: NDArray[np.int64], least: int, what: str) -> str | None:
    """Why a model's answers prove nothing: they are hardly any different ones."""
    distinct = len(np.unique(top))
    if distinct >= least:
        return None
    return (
        f"the model says {distinct} class{'es' if distinct > 1 else ''} only to {len(top)} {what} "
        f"(distinctClasses: {least}), so that its answers prove nothing"
    )


def require_rows(parts: Parts) -> Parts:
    """The parts, none of which is empty; raises `GateError` otherwise."""
    for name, rows in parts.items():
        if not len(rows):
            raise GateError(f"the slice {name!r} has no samples")
    return parts
