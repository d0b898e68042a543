"""Histograms of scores as Prometheus tells them: bucket by bucket, and none that is not like the others."""

from __future__ import annotations

import pytest

from kohort.analysis.reading import unpacked
from kohort.api.prometheus import Better, Score
from kohort.contract import SLOTS
from kohort.observe.counter_queries import Query
from kohort.observe.prometheus import Answer, Point, PrometheusError
from kohort.observe.score_series import score_reading, score_series
from kohort.observe.slot_series import SlotSeries, Totals

NOW = 1_000_000.0
QUERIES = (Query("v2", False, "q_v2"), Query("v1", False, "q_v1"))
SCORE = Score(buckets="q", sum_over=("pod",), slot_label="slot")


def answer(*bounds: str, slot: str = "7") -> Answer:
    """Buckets of one pod and slot, scraped a second ago."""
    labels = [{"pod": "a", "slot": slot, "le": bound} for bound in bounds]
    values = [
        Point({**each, "__name__": "q_bucket"}, (NOW, str(n))) for n, each in enumerate(labels)
    ]
    return Answer(values, [Point(dict(each), (NOW, str(NOW - 1))) for each in labels])


def test_buckets_are_told_in_the_order_of_their_bounds() -> None:
    answers = answer("10", "+Inf", "9.5"), answer("+Inf", "9.50", "1e1")
    bounds, told = score_series(QUERIES, answers, SCORE, NOW, 60)
    assert [float(bound) for bound in bounds] == [9.5, 10, float("inf")]
    assert {series: sample.value for series, sample in told.items()} == {
        SlotSeries("v2", 1, 7, "pod=a"): 0,
        SlotSeries("v2", 2, 7, "pod=a"): 1,
        SlotSeries("v2", 0, 7, "pod=a"): 2,
        SlotSeries("v1", 2, 7, "pod=a"): 0,
        SlotSeries("v1", 0, 7, "pod=a"): 1,
        SlotSeries("v1", 1, 7, "pod=a"): 2,
    }


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        (("0.5", "1"), "and \\+Inf is needed, not of 0.5, 1: q_v1"),
        (("0.5", "+Inf"), "a histogram of 2 to 15 bounds and"),
        ((*map(str, range(16)), "+Inf"), "a histogram of 2 to 15 bounds and"),
        (("0.5", "high", "+Inf"), 'le="high" is no bound of a bucket: q_v1'),
        (("", "0.5", "+Inf"), 'le="" is no bound of a bucket: q_v1'),
    ],
)
def test_what_is_no_such_histogram_is_told_with_its_query(
    bounds: tuple[str, ...], told: str
) -> None:
    with pytest.raises(PrometheusError, match=told):
        score_series(QUERIES[1:], (answer(*bounds),), SCORE, NOW, 60)


def test_revisions_with_other_buckets_are_not_compared() -> None:
    answers = answer("0.5", "1", "+Inf"), answer("0.5", "2", "+Inf")
    with pytest.raises(PrometheusError, match=r"must be the same: 0.5, 1, \+Inf and 0.5, 2, \+Inf"):
        score_series(QUERIES, answers, SCORE, NOW, 60)


def test_nothing_selected_and_another_slot_are_errors() -> None:
    buckets = answer("0.5", "1", "+Inf")
    with pytest.raises(PrometheusError, match="no series: q_v1"):
        score_series(QUERIES, (buckets, Answer()), SCORE, NOW, 60)
    with pytest.raises(PrometheusError, match='slot="256" is no client slot: q_v1'):
        score_series(QUERIES, (buckets, answer("0.5", "1", "+Inf", slot="256")), SCORE, NOW, 60)


@pytest.mark.parametrize(
    ("better", "classes"), [(Better.HIGHER, (4, 3, 2)), (Better.LOWER, (2, 3, 4))]
)
def test_classes_go_from_the_best_to_the_worst(better: Better, classes: tuple[int, ...]) -> None:
    rows = tuple((0, n, *(0,) * (SLOTS - 2)) for n in (2, 5, 9))
    read = score_reading(
        Totals("one", NOW, rows, None, {"v1": (2, 5, 9)}, ()),
        ("0.5", "1", "+Inf"),
        Score(buckets="q", better=better),
    )
    assert read.slots is not None
    assert read.slots.arms["v1"][:3] == classes
    assert not any(read.slots.arms["v1"][3:])
    assert read.slots.now.requests[1] == sum(read.slots.now.requests) == 9
    assert tuple(unpacked(read.slots.now.took[k])[1] for k in range(3)) == classes


def test_a_scrape_between_two_buckets_makes_no_negative_number() -> None:
    rows = tuple((n, *(0,) * (SLOTS - 1)) for n in (5, 4, 9))
    read = score_reading(
        Totals("one", NOW, rows, None, {"v1": (5, 4, 9)}, ()), ("0.5", "1", "+Inf"), SCORE
    )
    assert read.slots is not None
    assert read.slots.arms["v1"][:3] == (5, 0, 5)
