"""Metrics are scikit-learn's, and their bounds are honest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from kohort_server.gates.answers import Answers, answers_of
from kohort_server.gates.bounds import Interval, exact_lower
from kohort_server.gates.errors import GateError
from kohort_server.gates.metrics import MetricName, Ranking, measure_of

SEEDS = st.integers(0, 10_000)


def some(seed: int, classes: int = 4, n: int = 60) -> tuple[Answers, NDArray[Any]]:
    """Scores that are often right, with ties, and the labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    scores = np.round(random.random((n, classes)) + 0.5 * np.eye(classes)[labels], 1)
    return answers_of({"scores": scores}), labels


def value(name: MetricName, answers: Answers, labels: NDArray[Any], positive: int | None) -> float:
    return measure_of(name, answers, labels, positive).of(np.arange(len(labels)))


@settings(max_examples=30)
@given(SEEDS, st.sampled_from([None, 0, 2]))
def test_metrics_of_classes_are_scikit_learns(seed: int, positive: int | None) -> None:
    answers, labels = some(seed)
    top = answers.top()
    how: dict[str, Any] = {"average": "macro", "zero_division": 0}
    if positive is not None:
        how["labels"] = [positive]
    for name, expected in (
        (MetricName.PRECISION, sklearn.precision_score),
        (MetricName.RECALL, sklearn.recall_score),
        (MetricName.F1, sklearn.f1_score),
    ):
        assert value(name, answers, labels, positive) == pytest.approx(expected(labels, top, **how))
    if positive is None:
        told = value(MetricName.ACCURACY, answers, labels, None)
        assert told == pytest.approx(sklearn.accuracy_score(labels, top))


@settings(max_examples=20)
@given(SEEDS)
def test_metrics_of_rankings_are_scikit_learns_with_ties_too(seed: int) -> None:
    answers, labels = some(seed)
    scores = answers.score_table()
    # Each sample counts as often as its weight says.
    weights = np.random.default_rng(seed).integers(0, 3, len(labels)).astype(float)
    ranking = Ranking(scores, labels[:, None] == np.arange(4))
    areas, precisions = ranking.auc(weights), ranking.average_precision(weights)
    for one in range(4):
        is_one = labels == one
        if not weights[is_one].any():
            assert np.isnan(areas[one])
            assert np.isnan(precisions[one])
            continue
        how = {"y_true": is_one, "y_score": scores[:, one], "sample_weight": weights}
        assert areas[one] == pytest.approx(sklearn.roc_auc_score(**how))
        assert precisions[one] == pytest.approx(sklearn.average_precision_score(**how))
    means = sklearn.average_precision_score(np.eye(4)[labels], scores, average="macro")
    told = value(MetricName.MEAN_AVERAGE_PRECISION, answers, labels, None)
    assert told == pytest.approx(means)


@settings(max_examples=5)
@given(SEEDS)
def test_rmse_is_scikit_learns_and_its_bound_is_above(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, values = random.normal(size=50), random.normal(size=50)
    measure = measure_of(MetricName.RMSE, answers_of({"y": values}), labels)
    rows = np.arange(50)
    expected = sklearn.root_mean_squared_error(labels, values)
    assert measure.of(rows) == pytest.approx(expected)
    assert measure.bound(rows, 0.95, Interval.EXACT) > expected


def test_the_one_score_of_two_classes_is_that_of_the_second() -> None:
    answers = answers_of({"y": np.array([[0.1], [0.8], [0.6], [0.3]], np.float32)})
    labels = np.array([0, 1, 0, 0])
    assert answers.top().tolist() == [0, 1, 1, 0]
    assert value(MetricName.AUC, answers, labels, None) == 1.0
    assert value(MetricName.ACCURACY, answers, labels, None) == 0.75


def test_the_bound_of_f1_of_a_class_follows_from_that_of_a_share() -> None:
    top, labels = np.array([1] * 60 + [0] * 40), np.array([1] * 50 + [0] * 40 + [1] * 10)
    measure = measure_of(MetricName.F1, answers_of({"y": top}), labels, positive=1)
    share = exact_lower(50, 70, 0.95)
    expected = 2 * share / (1 + share)
    assert measure.bound(np.arange(100), 0.95, Interval.EXACT) == pytest.approx(expected)
    assert measure.of(np.arange(100)) == pytest.approx(2 * 50 / 120)


@settings(max_examples=3)
@given(SEEDS)
def test_a_bound_is_below_the_value_whatever_the_metric(seed: int) -> None:
    answers, labels = some(seed)
    rows = np.arange(len(labels))
    for name in set(MetricName) - {MetricName.RMSE, MetricName.MEAN_AVERAGE_PRECISION}:
        measure = measure_of(name, answers, labels)
        assert measure.bound(rows, 0.95, Interval.EXACT) <= measure.of(rows) + 1e-12


@pytest.mark.parametrize(
    ("name", "labels", "positive", "told"),
    [
        (MetricName.ACCURACY, [1, 1, 1], None, "all labels are class 1"),
        (MetricName.AUC, [0, 1, 7], None, "2 scores"),
        (MetricName.F1, [0, 1, 1], 5, "no label is class 5"),
        (MetricName.ACCURACY, [0.5, 1.0, 1.0], None, "class numbers"),
        (MetricName.ACCURACY, [0, 1], None, "3 answers have 2 labels"),
        (MetricName.RMSE, [0, 1, 1], None, "not one number"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_what_is_wrong(
    name: MetricName, labels: list[float], positive: int | None, told: str
) -> None:
    answers = answers_of({"y": np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])})
    with pytest.raises(GateError, match=told):
        measure_of(name, answers, np.array(labels), positive)


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ({"y": np.array([[0.5, np.nan], [0.5, 0.5]])}, "sample 0 is NaN"),
        ({"y": np.array([["cat"], ["dog"]], object)}, "text"),
        ({"y": np.zeros((2, 3, 4))}, "gates need scores"),
        ({"y": np.zeros((2, 3), int)}, "3 classes per sample"),
        ({"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}, "several outputs"),
    ],
)
def test_outputs_that_no_gate_can_judge_are_refused(
    outputs: dict[str, NDArray[Any]], told: str
) -> None:
    with pytest.raises(GateError, match=told):
        answers_of(outputs)


def test_of_a_label_and_scores_the_scores_are_taken() -> None:
    outputs = {"label": np.array([1, 0]), "scores": np.array([[0.1, 0.9], [0.8, 0.2]])}
    assert answers_of(outputs).output == "scores"
    assert answers_of(outputs, "label").scores is None
    with pytest.raises(GateError, match="no output"):
        answers_of(outputs, "other")
