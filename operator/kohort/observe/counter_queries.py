"""A metric's two counters in Prometheus: what is asked for each revision, and whether the answer counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kohort.analysis.counts import SERIES_LIMIT
from kohort.analysis.reading import Reading, Sample, Series, Slots, SlotTotals
from kohort.api.prometheus import Counts, Score
from kohort.contract import SLOTS
from kohort.observe.prometheus import QUERY_TOLD, Answer, Point, PrometheusError, Question, cut
from kohort.observe.slot_series import SlotSeries, Totals
from kohort.route.table import ModelKey

LARGEST = float(1 << 53)
"""Beyond it a number tells whole ones no longer apart."""

EVENTS, ALL = 0, 1
"""Kinds of counters."""

IN_THE_FUTURE = 30.0
"""Seconds that clocks may differ."""


_SLOT_NAMES = frozenset(map(str, range(SLOTS)))


@dataclass(frozen=True)
class Query:
    """One counter of one revision."""

    revision: str
    events: bool
    selector: str

    @property
    def question(self) -> Question:
        """What is asked."""
        return Question.of(self.selector)

    @property
    def told(self) -> str:
        """What it is called in messages."""
        return cut(self.selector, QUERY_TOLD)


def queries(
    asked: Counts | Score, key: ModelKey, cohort: str, revisions: Sequence[str]
) -> tuple[Query, ...]:
    """The selectors of a metric for each of the revisions."""
    return tuple(
        Query(revision, number > 0, filled(template, key, cohort, revision))
        for revision in revisions
        for number, template in enumerate(asked.queries)
    )


def filled(template: str, key: ModelKey, cohort: str, revision: str) -> str:
    """A query in which placeholders are filled; names hold nothing that PromQL would read otherwise."""
    values = {"namespace": key.namespace, "name": key.name, "cohort": cohort, "revision": revision}
    for name, value in values.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def reading(
    asked: Sequence[Query],
    answers: Sequence[Answer | PrometheusError],
    counts: Counts,
    at: float,
    stale_after: float,
) -> Reading:
    """What the answers tell, all of it or nothing; ``at`` of it is that of its oldest sample.

    ``at``: Unix time for which answers were worked out. ``stale_after``: seconds.
    """
    series: dict[Series, Sample] = {}
    try:
        for query, answer in zip(asked, answers, strict=True):
            found = selected(query, answer, counts.sum_over, at, stale_after, needed=True)
            series |= {
                Series(query.revision, query.events, source(counts.sum_over, values)): sample
                for values, sample in found.items()
            }
        if len(series) > SERIES_LIMIT:
            raise PrometheusError(
                f"{len(series)} series are selected, and at most {SERIES_LIMIT} can be kept: let "
                "Prometheus record fewer"
            )
    except PrometheusError as error:
        return Reading(at, {}, errors=(str(error),), sampled=True)
    return Reading(min(s.at for s in series.values()), {}, series=series, sampled=True)


def slot_series(
    asked: Sequence[Query],
    answers: Sequence[Answer | PrometheusError],
    counts: Counts,
    at: float,
    stale_after: float,
) -> Mapping[SlotSeries, Sample]:
    """The same of counters that tell slots; raises PrometheusError for what cannot be used.

    No events of a revision are none so far, if there were some of the other one: a series begins with the
    first event of its slot.
    """
    label = counts.slot_label or ""
    apart = (*counts.sum_over, label)
    told: dict[SlotSeries, Sample] = {}
    for query, answer in zip(asked, answers, strict=True):
        kind = EVENTS if query.events else ALL
        found = selected(query, answer, apart, at, stale_after, needed=not query.events)
        for (*values, slot), sample in found.items():
            number, by = slot_of(query, label, slot), source(counts.sum_over, values)
            told[SlotSeries(query.revision, kind, number, by)] = sample
    if not any(series.kind == EVENTS for series in told):
        raise nothing_selected(next(query for query in asked if query.events))
    return told


def slot_reading(totals: Totals) -> Reading:
    """Totals of two counters as an analysis reads them; events stand where failures do."""
    past = Slots(totals.past[ALL], totals.past[EVENTS]) if totals.past else None
    series = {
        Series(revision, kind == EVENTS, totals.counter): Sample(number, totals.at)
        for revision, row in totals.arms.items()
        for kind, number in enumerate(row)
    }
    slots = SlotTotals(totals.counter, Slots(totals.now[ALL], totals.now[EVENTS]), past)
    return Reading(totals.at, {}, totals.errors, slots, series, sampled=True)


def slot_of(query: Query, label: str, value: str) -> int | None:
    """The number of a slot; None where there is none."""
    if not value:
        return None
    if value not in _SLOT_NAMES:
        raise PrometheusError(
            f'{label}="{cut(value, 40)}" is no client slot: {query.told}; label what is counted with what '
            "the request says in x-kohort-slot"
        )
    return int(value)


def source(labels: Sequence[str], values: Sequence[str]) -> str:
    """Who counts: the values of labels in which series may differ."""
    return ",".join(f"{label}={value}" for label, value in zip(labels, values, strict=True))


def selected(
    query: Query,
    answer: Answer | PrometheusError,
    apart: Sequence[str],
    at: float,
    stale_after: float,
    *,
    needed: bool,
) -> Mapping[tuple[str, ...], Sample]:
    """Samples by the values of those labels in which series may differ."""
    if isinstance(answer, PrometheusError):
        raise answer
    if not answer.values and needed:
        raise nothing_selected(query)
    times = {_labels(point): point.number for point in answer.times}
    found: dict[tuple[str, ...], Sample] = {}
    for point in answer.values:
        name = tuple(point.metric.get(label, "") for label in apart)
        if name in found:
            raise PrometheusError(_ambiguous(query, answer.values, apart))
        taken = times.get(_labels(point), math.nan)
        if not at - stale_after <= taken <= at + IN_THE_FUTURE:
            raise PrometheusError(
                f"stale: {_age(at, taken)}: {query.told}; is it still scraped, and are clocks right?"
            )
        found[name] = Sample(_whole(query, point), taken)
    return found


def nothing_selected(query: Query) -> PrometheusError:
    """That a query selects nothing."""
    return PrometheusError(
        f"no series: {query.told}; does it exist, and is it told from 0 on, before the first event?"
    )


def _age(at: float, taken: float) -> str:
    return (
        f"the last sample is {at - taken:.0f} s old" if math.isfinite(taken) else "of unknown age"
    )


def _labels(point: Point) -> tuple[tuple[str, str], ...]:
    """Labels apart from the name, which no time has."""
    return tuple(sorted(item for item in point.metric.items() if item[0] != "__name__"))


def _whole(query: Query, point: Point) -> int:
    number = point.number
    if not (0 <= number <= LARGEST) or number != math.floor(number):
        raise PrometheusError(
            f"{cut(point.value[1], 40)} is no count: {query.told}; a counter of whole ones is needed"
        )
    if "__name__" not in point.metric:
        raise PrometheusError(
            f"what is worked out hides counters that were reset: {query.told}; select counters as they are"
        )
    return int(number)


def _ambiguous(query: Query, points: Sequence[Point], apart: Sequence[str]) -> str:
    """Which labels tell series apart that were meant to be one."""
    names = sorted({label for point in points for label in point.metric})
    differing = [
        name
        for name in names
        if name not in apart and len({point.metric.get(name) for point in points}) > 1
    ]
    return (
        f"{len(points)} series where one was meant: {query.told}; they differ in "
        f"{cut(', '.join(differing), 80)}: name it in sumOver if they are to be added up"
    )
