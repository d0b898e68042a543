"""How good answers are, judged by labels: one number, and how sure it is.

Class metrics with `positive` are of that class against all others; without, the mean over all classes that
labels have (macro), each class counting alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates.answers import Answers
from kohort_server.gates.bounds import (
    Interval,
    NoBoundError,
    Rows,
    bootstrap_lower,
    lower_bound,
)
from kohort_server.gates.errors import GateError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class MetricName(StrEnum):
    """What is measured."""

    ACCURACY = "Accuracy"
    PRECISION = "Precision"
    RECALL = "Recall"
    F1 = "F1"
    AUC = "AUC"
    MEAN_AVERAGE_PRECISION = "MeanAveragePrecision"
    RMSE = "RMSE"


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of given answers.

    ``of``: its value over some samples, NaN where they have none. ``per_sample``: what each adds, where the
    metric is a mean (RMSE: of squares), the higher the better. ``counts``: hits of how many, where the metric
    is a share or follows from one by ``from_share``. ``sign``: -1 where less is better.
    """

    name: MetricName
    of: Callable[[Rows], float]
    per_sample: Floats | None = None
    counts: Callable[[Rows], tuple[int, int]] | None = None
    from_share: Callable[[float], float] = float
    sign: int = 1

    def bound(self, rows: Rows, confidence: float, interval: Interval, seed: int = 0) -> float:
        """What the true value is at least (at most, where less is better); raises `NoBoundError`."""
        if self.counts is not None:
            hits, count = self.counts(rows)
            if not count:
                raise NoBoundError("no sample counts for it; give samples of that class")
            return self.from_share(lower_bound(interval, hits, count, confidence))

        def signed(drawn: Rows) -> float:
            return self.sign * self.of(rows[drawn])

        return self.sign * bootstrap_lower(signed, len(rows), confidence, seed)


def measure_of(
    name: MetricName, answers: Answers, labels: NDArray[np.generic], positive: int | None = None
) -> Measure:
    """A metric of these answers; raises `GateError` where answers and labels have no such value."""
    if len(labels) != len(answers):
        raise GateError(f"{len(answers)} answers have {len(labels)} labels")
    if name is MetricName.RMSE:
        if positive is not None:
            raise GateError("RMSE is of numbers: leave out positive")
        return _rmse(answers.numbers(), labels.astype(np.float64))
    classes = whole(labels)
    known = np.unique(classes)
    if len(known) < 2:
        raise GateError(
            f"all labels are class {known[0]}: a model that always says so would pass; give samples of others"
        )
    if positive is not None and positive not in known:
        raise GateError(f"no label is class {positive}, which is asked for as positive")
    if name in (MetricName.AUC, MetricName.MEAN_AVERAGE_PRECISION):
        return _ranking(name, answers.score_table(), classes, positive)
    top = answers.top()
    if name is MetricName.ACCURACY:
        if positive is not None:
            raise GateError("Accuracy is over all classes: leave out positive")
        right = top == classes
        return Measure(
            name,
            lambda rows: float(right[rows].mean()) if len(rows) else float("nan"),
            right.astype(float),
            lambda rows: (int(right[rows].sum()), len(rows)),
        )
    return _by_class(name, top, classes, positive)


def whole(labels: NDArray[np.generic]) -> Ints:
    """Labels as class numbers; raises `GateError` for others."""
    if labels.dtype.kind == "f" and (labels == np.round(labels.astype(float))).all():
        return labels.astype(np.int64)
    if labels.dtype.kind not in "biu":
        raise GateError(
            f"labels are {labels.dtype}; class metrics need class numbers: 0 for the first score, and so on"
        )
    return labels.astype(np.int64)


def _rmse(values: Floats, labels: Floats) -> Measure:
    squares = (values - labels) ** 2
    return Measure(
        MetricName.RMSE,
        lambda rows: float(np.sqrt(squares[rows].mean())) if len(rows) else float("nan"),
        -squares,
        sign=-1,
    )


# From true positives, predicted positives and labelled positives; 0 where nothing was predicted, as usual.
CLASS_VALUES: dict[MetricName, Callable[[Floats, Floats, Floats], Floats]] = {
    MetricName.PRECISION: lambda true, predicted, labelled: true / np.maximum(predicted, 1),
    MetricName.RECALL: lambda true, predicted, labelled: true / np.maximum(labelled, 1),
    MetricName.F1: lambda true, predicted, labelled: 2 * true / np.maximum(predicted + labelled, 1),
}


def _by_class(name: MetricName, top: Ints, classes: Ints, positive: int | None) -> Measure:
    """Precision, recall or F1."""
    value = CLASS_VALUES[name]
    wanted = np.unique(classes) if positive is None else np.array([positive])

    # Each sample is of one cell of the table of labels and answers; the last row and column are others.
    size = len(wanted) + 1
    label, answer = (
        np.where(np.isin(one, wanted), np.searchsorted(wanted, one), size - 1)
        for one in (classes, top)
    )
    cells = label * size + answer

    def tallies(rows: Rows) -> tuple[Floats, Floats, Floats]:
        table = np.bincount(cells[rows], minlength=size * size).reshape(size, size).astype(float)
        return np.diag(table)[:-1], table.sum(axis=0)[:-1], table.sum(axis=1)[:-1]

    def of(rows: Rows) -> float:
        true, predicted, labelled = tallies(rows)
        there = labelled > 0
        if not there.any():
            return float("nan")
        return float(value(true, predicted, labelled)[there].mean())

    if positive is None:
        return Measure(name, of)

    def counts(rows: Rows) -> tuple[int, int]:
        """Given how many samples count, each of them is a hit on its own: the bound is that of a share.

        Of F1 these are samples that are, or are called, of the class: hits are a share J of them (Jaccard's
        index), and F1 is 2 J / (1 + J).
        """
        true, predicted, labelled = (int(tally[0]) for tally in tallies(rows))
        of_how_many = {
            MetricName.PRECISION: predicted,
            MetricName.RECALL: labelled,
            MetricName.F1: predicted + labelled - true,
        }
        return true, of_how_many[name]

    follows = (lambda share: 2 * share / (1 + share)) if name is MetricName.F1 else float
    return Measure(name, of, counts=counts, from_share=follows)


def _ranking(name: MetricName, scores: Floats, classes: Ints, positive: int | None) -> Measure:
    """AUC or average precision, of one class against the others, or their mean over classes."""
    if classes.min() < 0 or classes.max() >= scores.shape[1]:
        raise GateError(
            f"labels are from {classes.min()} to {classes.max()}, and there are {scores.shape[1]} scores, of "
            f"the classes 0 to {scores.shape[1] - 1}"
        )
    if positive is None and scores.shape[1] == 2:
        positive = 1
    wanted = np.unique(classes) if positive is None else np.array([positive])
    ranking = Ranking(scores[:, wanted], classes[:, None] == wanted)
    each = ranking.auc if name is MetricName.AUC else ranking.average_precision

    def of(rows: Rows) -> float:
        values = each(np.bincount(rows, minlength=len(classes)).astype(float))
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else float("nan")

    return Measure(name, of)


class Ranking:
    """How scores order samples: sorted once, and then judged for any weights of the samples.

    ``scores``: float64 [n, classes]; ``positive``: of which class each sample is, bool [n, classes].
    """

    def __init__(self, scores: Floats, positive: NDArray[np.bool_]) -> None:
        self._positive = positive.astype(float)
        # Where each score is among the different ones, lowest first.
        places = [np.unique(column, return_inverse=True)[1] for column in scores.T]
        self._width = max(int(column.max()) for column in places) + 1
        self._at = np.stack(places, axis=1) + np.arange(scores.shape[1]) * self._width

    def _tallies(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weights of positive and of other samples at each score, [classes, scores]."""
        classes = self._at.shape[1]
        hits = weights[:, None] * self._positive
        length, shape = classes * self._width, (classes, self._width)
        places = self._at.ravel()
        every = np.bincount(places, np.repeat(weights, classes), length).reshape(shape)
        positive = np.bincount(places, hits.ravel(), length).reshape(shape)
        return positive.astype(float), (every - positive).astype(float)

    def auc(self, weights: Floats) -> Floats:
        """The chance that a positive sample has a higher score than others, ties counting half, [classes]."""
        positive, others = self._tallies(weights)
        below = np.cumsum(others, axis=1) - others / 2
        return _over((positive * below).sum(axis=1), positive.sum(axis=1) * others.sum(axis=1))

    def average_precision(self, weights: Floats) -> Floats:
        """The mean over positive samples of the precision at their score, equal ones together, [classes]."""
        positive, others = (each[:, ::-1] for each in self._tallies(weights))
        found = np.cumsum(positive, axis=1)
        precision = _over(found, found + np.cumsum(others, axis=1))
        gained = np.where(positive > 0, positive * precision, 0.0).sum(axis=1)
        both = (positive.sum(axis=1) > 0) & (others.sum(axis=1) > 0)
        return np.where(both, _over(gained, positive.sum(axis=1)), np.nan)


def _over(part: Floats, whole: Floats) -> Floats:
    """The quotient; NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
