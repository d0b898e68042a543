"""When two engines' answers count as the same, and what is said when they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from kohort_server.gates.parity import DEFAULTS, Comparison, Failure, Thresholds

FP32 = DEFAULTS["FP32"]
VALUES = st.floats(-1e6, 1e6, width=32)
SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 5))
OUTPUTS = SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=VALUES))
SPECIAL = SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=st.floats(width=32)))


def compared(
    expected: NDArray[Any], got: NDArray[Any], thresholds: Thresholds = FP32
) -> Comparison:
    comparison = Comparison(thresholds)
    samples = list(range(len(expected)))
    comparison.add({"y": expected}, {"y": got}, samples)
    comparison.finish()
    return comparison


def failures(
    expected: NDArray[Any], got: NDArray[Any], thresholds: Thresholds = FP32
) -> list[Failure]:
    return compared(expected, got, thresholds).failures


@given(output=SPECIAL)
def test_the_same_answers_pass_whatever_they_are(output: NDArray[Any]) -> None:
    assert failures(output, output.copy()) == []


@given(output=OUTPUTS, exponent=st.integers(-60, 60))
def test_the_unit_of_an_output_decides_nothing(output: NDArray[Any], exponent: int) -> None:
    wide = output.astype(np.float64)
    other = wide + np.linspace(-1, 1, wide.size).reshape(wide.shape) * np.abs(wide).max() * 1e-2
    if np.abs(wide).max() < 1e-3:  # so small that it is compared as if it were larger
        return
    unit = 2.0**exponent if exponent > 0 else 1.0
    told = [failure.what for failure in failures(wide, other)]
    assert [failure.what for failure in failures(wide * unit, other * unit)] == told


@given(
    output=OUTPUTS,
    row=st.integers(0, 5),
    column=st.integers(0, 4),
    wrong=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_a_value_that_is_no_number_is_told_by_its_sample_and_both_values(
    output: NDArray[Any], row: int, column: int, wrong: float
) -> None:
    place = (row % output.shape[0], column % output.shape[1])
    got = output.copy()
    got[place] = wrong
    failure = failures(output, got)[0]
    assert (failure.sample, *failure.index) == place
    assert failure.got == f"{wrong:.7g}"
    assert failure.expected == f"{output[place]:.7g}"
    assert str(failure).startswith(f'output "y"[{place[1]}] of sample {place[0]} at batch ')


@given(output=OUTPUTS, row=st.integers(0, 5), column=st.integers(0, 4))
def test_one_value_that_is_off_by_more_than_the_tolerance_is_found(
    output: NDArray[Any], row: int, column: int
) -> None:
    place = (row % output.shape[0], column % output.shape[1])
    got = output.copy()
    got[place] += np.float32(0.01) * max(np.abs(output).max(), np.float32(1e-3))
    failure = failures(output, got)[0]
    assert (failure.sample, *failure.index) == place


def test_an_error_is_measured_by_the_output_where_a_value_is_next_to_nothing() -> None:
    expected = np.array([[1.0, 1e-9, -1.0]], np.float32)
    got = np.array([[1.0, 2e-9, -1.0]], np.float32)
    comparison = compared(expected, got)
    assert comparison.failures == []
    assert comparison.outputs["y"].max_relative == pytest.approx(1.0, rel=1e-3)
    assert comparison.outputs["y"].max_error < 1e-8


def test_another_shape_or_type_is_a_failure_and_so_is_no_output_at_all() -> None:
    expected = np.zeros((2, 3), np.float32)
    assert failures(expected, np.zeros((2, 4), np.float32))[0].what == "another shape"
    assert failures(expected, np.zeros((2, 3), np.float64))[0].what == "another type"
    comparison = Comparison(FP32)
    comparison.add({"y": expected}, {}, [0, 1])
    assert comparison.failures[0].got == "nothing"


def rows_with_classes(classes: list[int]) -> NDArray[Any]:
    scores = np.full((len(classes), 3), 0.1, np.float32)
    scores[np.arange(len(classes)), classes] = 0.8
    return scores


def test_too_many_samples_of_another_class_are_told_by_the_first_of_them() -> None:
    expected, got = rows_with_classes([0] * 10), rows_with_classes([0] * 10)
    # Each value is within the tolerance, but the two together change places.
    expected[7], got[7] = [0.8, 0.3, 0.1], [0.5, 0.52, 0.1]
    failure = failures(expected, got, Thresholds(0.5, -1.0, 0.95))[0]
    assert "another class is largest; 90.00% agree" in str(failure)
    assert (failure.sample, failure.expected, failure.got) == (7, "class 0", "class 1")
    assert failures(expected, got, Thresholds(0.5, -1.0, 0.9)) == []


def test_a_tie_may_fall_either_way() -> None:
    expected = np.array([[0.5, 0.5, 0.0]], np.float32)
    got = np.array([[0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.0]], np.float32)
    comparison = compared(expected, got)
    assert comparison.failures == []
    assert comparison.outputs["y"].top1 == 1.0


def test_an_output_that_points_elsewhere_is_told_by_its_cosine() -> None:
    loose = Thresholds(tolerance=10.0, cosine=0.9, agreement=0.0)
    failure = failures(
        np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]), loose
    )[0]
    assert failure.sample == 1
    assert failure.what == "the cosine of the outputs"
    assert failure.got == "0"


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (np.arange(10), np.arange(10) + (np.arange(10) == 4)),
        (np.array([b"a"] * 10, object), np.array([b"a"] * 4 + [b"b"] + [b"a"] * 5, object)),
        (np.zeros(10, bool), np.arange(10) == 4),
    ],
)
def test_labels_are_equal_or_not(expected: NDArray[Any], got: NDArray[Any]) -> None:
    failure = failures(expected, got)[0]
    assert failure.sample == 4
    assert "90.00% agree" in failure.what
    assert failures(expected, got, Thresholds(0.0, 1.0, 0.9)) == []
    assert compared(expected, got).outputs["y"].equal == pytest.approx(0.9)


@pytest.mark.parametrize(("precision", "bits"), [("FP32", 20), ("FP16", 10), ("BF16", 7)])
def test_what_a_precision_rounds_away_passes_its_own_thresholds_and_no_higher_ones(
    precision: str, bits: int
) -> None:
    random = np.random.default_rng(0)
    expected = random.standard_normal((64, 10))
    fraction, exponent = np.frexp(expected)
    got = np.ldexp(np.round(fraction * 2.0**bits) / 2.0**bits, exponent)
    assert failures(expected, got, DEFAULTS[precision]) == []
    if bits < 10:
        assert failures(expected, got, DEFAULTS["FP32"]) != []


def test_huge_values_do_not_overflow_and_tiny_ones_do_not_vanish() -> None:
    for unit in (1e300, 1e-5):
        expected = np.array([[1.0, -2.0, 3.0]]) * unit
        assert failures(expected, expected * (1 + 1e-6)) == []
        assert failures(expected, expected[:, ::-1]) != []
