"""A metric's histogram in Prometheus: what its buckets tell of each revision, from the best scores to the
worst."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import sub

from kohort.analysis.durations import CLASSES
from kohort.analysis.reading import Reading, Row, Sample, Slots, SlotTotals, packed
from kohort.api.prometheus import Better, Score
from kohort.contract import SLOTS
from kohort.observe.counter_queries import Query, selected, slot_of, source
from kohort.observe.prometheus import Answer, PrometheusError
from kohort.observe.slot_series import SlotSeries, Totals

FEWEST_BOUNDS, MOST_BOUNDS = 2, CLASSES - 1
"""Bounds of buckets, besides +Inf: two for slots to be compared by, and as many classes as there are."""


def score_series(
    asked: Sequence[Query],
    answers: Sequence[Answer | PrometheusError],
    score: Score,
    at: float,
    stale_after: float,
) -> tuple[tuple[str, ...], Mapping[SlotSeries, Sample]]:
    """The bounds of buckets in their order, and what each counts, with all that is below it.

    Raises PrometheusError for what cannot be used.
    """
    label = score.slot_label or ""
    apart = (*score.sum_over, label, "le") if label else (*score.sum_over, "le")
    found = {
        query: selected(query, answer, apart, at, stale_after, needed=True)
        for query, answer in zip(asked, answers, strict=True)
    }
    bounds: dict[float, str] = {}
    told: dict[SlotSeries, Sample] = {}
    for query, samples in found.items():
        theirs = {_bound(query, values[-1]): values[-1] for values in samples}
        if bounds and bounds.keys() != theirs.keys():
            raise PrometheusError(
                f"buckets of both revisions must be the same: {_listed(bounds)} and {_listed(theirs)}: "
                f"{query.told}"
            )
        bounds = bounds or theirs
        if math.inf not in bounds or not FEWEST_BOUNDS < len(bounds) <= MOST_BOUNDS + 1:
            raise PrometheusError(
                f"a histogram of {FEWEST_BOUNDS} to {MOST_BOUNDS} bounds and +Inf is needed, not of "
                f"{_listed(bounds)}: {query.told}"
            )
        kinds = {bound: number for number, bound in enumerate(sorted(bounds))}
        for values, sample in samples.items():
            slot = slot_of(query, label, values[-2]) if label else None
            by = source(score.sum_over, values[: len(score.sum_over)])
            told[SlotSeries(query.revision, kinds[_bound(query, values[-1])], slot, by)] = sample
    return tuple(bounds[bound] for bound in sorted(bounds)), told


def _bound(query: Query, text: str) -> float:
    try:
        bound = float(text)
    except ValueError:
        bound = math.nan
    if math.isnan(bound):
        raise PrometheusError(f'le="{text[:40]}" is no bound of a bucket: {query.told}')
    return bound


def _listed(bounds: Mapping[float, str]) -> str:
    return ", ".join(bounds[bound] for bound in sorted(bounds)) or "none"


def score_reading(totals: Totals, bounds: tuple[str, ...], score: Score) -> Reading:
    """Totals of buckets as an analysis reads them: by class, the worse the higher its number."""
    if totals.errors:
        return Reading(totals.at, {}, totals.errors, sampled=True)
    slots = _slots(totals.now, score)
    past = _slots(totals.past, score) if totals.past is not None else None
    arms = {
        name: (*_classes(each, score), *(0,) * (CLASSES - len(each)))
        for name, each in totals.arms.items()
    }
    told = SlotTotals(totals.counter, slots, past, arms)
    return Reading(totals.at, {}, totals.errors, told, sampled=True, bounds=bounds)


def _classes(cumulative: Row, score: Score) -> Row:
    """What is in each bucket alone. A pod whose buckets are read one after the other may tell a few less
    below a bound than below a lower one: none then."""
    alone = tuple(max(0, each) for each in map(sub, cumulative, (0, *cumulative[:-1])))
    return alone if score.better is Better.LOWER else alone[::-1]


def _slots(rows: Sequence[Row], score: Score) -> Slots:
    by_slot = [_classes(row, score) for row in zip(*rows, strict=True)]
    by_class = list(zip(*by_slot, strict=True))
    took = {number: packed(row) for number, row in enumerate(by_class) if any(row)}
    return Slots(tuple(map(sum, by_slot)), (0,) * SLOTS, took)
