"""Checks of golden data: what files may hold, and whether they are what they should be."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from kohort_server.engine.interface import Signature, TensorSpec
from kohort_server.gates.data import check
from kohort_server.gates.drift import chi_squared_chance, ks_chance, ks_distance, psi
from kohort_server.gates.errors import GateError
from kohort_server.gates.golden import Golden
from kohort_server.gates.quantities import Amount, Share
from kohort_server.gates.results import Finding, Outcome
from kohort_server.gates.samples import Samples, read_samples
from kohort_server.gates.spec import (
    Classes,
    Data,
    Drift,
    DriftTest,
    Duplicates,
    File,
    Range,
)

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 3)),))
ROWS = np.arange(8, dtype=np.float32).reshape(4, 2)
LABELS = np.array([0, 1, 2, 0])


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_samples_come_with_labels_and_slices(tmp_path: Path) -> None:
    slices = np.array(["day", "night", "day", "day"])
    path = saved(tmp_path / "g.npz", x=ROWS, labels=LABELS, slice=slices, cohort=slices[::-1])
    samples = read_samples(path, SIGNATURE, False)
    assert samples.labelled().tolist() == [0, 1, 2, 0]
    rows = {name: rows.tolist() for name, rows in samples.rows_by_slice().items()}
    assert rows == {"day": [0, 2, 3], "night": [1]}
    other = read_samples(path, SIGNATURE, False, slice_name="cohort")
    assert other.rows_by_slice()["night"].tolist() == [2]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": ROWS * np.nan, "labels": LABELS}, 'NaN or infinity in "x" of 4 samples'),
        ({"x": ROWS, "labels": np.array([0, 1, np.nan, 0])}, "label of sample 2 is NaN"),
        ({"x": ROWS, "labels": np.array(["a", "b", "c", "a"])}, "text as labels .such as 'a'"),
        ({"x": ROWS, "labels": LABELS[:3]}, r"4 samples, and \"labels\" has the shape \[3\]"),
        ({"x": ROWS, "labels": np.zeros((4, 3))}, "give each sample one"),
        ({"x": ROWS[:0], "labels": LABELS[:0]}, "0 samples"),
        ({"x": ROWS[:, :1], "labels": LABELS}, r"shape \[4, 1\]"),
        ({"x": ROWS.reshape(2, 2, 2), "labels": LABELS[:2]}, r"shape \[2, 2, 2\]"),
        ({"x": ROWS, "labels": np.array([{}] * 4, object)}, "not a plain array"),
        ({"x": ROWS, "labels": LABELS, "slice": LABELS * 0.5}, "name slices by text"),
        ({"x": ROWS, "labels": LABELS * 1j}, "complex128 as labels"),
        ({"labels": LABELS}, 'no array "x"'),
        ({"x": ROWS.astype(str), "labels": LABELS}, "<U"),
    ],
)
def test_golden_data_that_cannot_be_used_is_refused_with_what_is_wrong(
    tmp_path: Path, arrays: dict[str, Any], told: str
) -> None:
    with pytest.raises(GateError, match=told):
        read_samples(saved(tmp_path / "g.npz", **arrays), SIGNATURE, False)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04broken"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "g.npz"
    path.write_bytes(content)
    with pytest.raises(GateError, match=r"numpy\.savez"):
        read_samples(path, SIGNATURE, False)


GOOD = io.BytesIO()
np.savez_compressed(GOOD, x=np.tile(ROWS, (9, 1)), labels=np.tile(LABELS, 9))


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD.getvalue()) - 1), st.integers(0, 255)), max_size=4)
)
def test_a_file_with_any_broken_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(GOOD.getvalue())
    for place, byte in changes:
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "broken.npz"
    path.write_bytes(content)
    try:
        told = f"{len(read_samples(path, SIGNATURE, False))} samples"
    except GateError as error:
        told = str(error)
    assert told == "36 samples" or "broken.npz" in told


def test_a_file_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (10**13, 2)}
    np.lib.format.write_array_header_1_0(header, shape)
    path = saved(tmp_path / "g.npz", labels=LABELS)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.npy", header.getvalue() + b"few")
    with pytest.raises(GateError, match="plain arrays"):
        read_samples(path, SIGNATURE, False)


def test_missing_values_may_be_allowed_and_labels_and_slices_be_missing(tmp_path: Path) -> None:
    path = saved(tmp_path / "g.npz", x=ROWS * np.nan)
    samples = read_samples(path, SIGNATURE, False, missing=True)
    with pytest.raises(GateError, match='no array "labels"'):
        samples.labelled()
    with pytest.raises(GateError, match='no array "slice"'):
        samples.rows_by_slice()


def given_samples(x: NDArray[Any], labels: NDArray[Any] | None = None) -> Samples:
    return Samples(Golden("g.npz", {"x": x}, len(x)), labels)


def found(data: Data, samples: Samples, other: Samples | None = None) -> list[Finding]:
    def reference(file: File) -> Samples:
        assert other is not None
        return other

    return check(data, samples, reference)


def test_values_out_of_range_are_told_with_one_of_them() -> None:
    samples = given_samples(np.array([[0.0, 5.0], [1.0, 300.0], [np.nan, 7.0]]))

    def outcome(**how: Any) -> tuple[Outcome, str]:
        finding = found(Data(ranges=(Range(input="x", **how),)), samples)[1]
        return finding.outcome, finding.message

    assert outcome(max=10.0, missing=Share(0.5)) == (
        Outcome.FAILED,
        "x: 1 samples have values that are not allowed, such as 300 in sample 1",
    )
    assert outcome(columns=(0,), max=10.0, missing=Share(0.5))[0] is Outcome.PASSED
    assert "33.33% of the values are missing" in outcome(columns=(0,))[1]
    assert outcome(columns=(0,), values=(0.0,), missing=Share(0.5))[0] is Outcome.FAILED
    with pytest.raises(GateError, match="2 columns"):
        outcome(columns=(2,))


def test_classes_that_are_rare_or_not_there_are_told() -> None:
    labels = np.array([0] * 50 + [1] * 48 + [2] * 2)
    samples = given_samples(np.zeros((100, 2)), labels)
    wanted = Classes(number=3, share_at_least=Share(0.05))
    assert found(Data(classes=wanted), samples)[1].message.startswith(
        "class 2 is the rarest: 2.00%"
    )
    assert found(Data(classes=Classes(number=3)), samples)[1].outcome is Outcome.PASSED
    assert found(Data(classes=Classes(number=4)), samples)[1].outcome is Outcome.FAILED
    assert "the label 2 is none" in found(Data(classes=Classes(number=2)), samples)[1].message


def test_samples_that_a_model_was_trained_on_are_found_and_so_are_those_that_come_twice() -> None:
    x = np.arange(20.0).reshape(10, 2)
    samples, training = given_samples(np.r_[x, x[:2]]), given_samples(np.r_[x[4:6], -x])
    twice = found(Data(duplicates=Duplicates()), samples)[1]
    assert (twice.outcome, twice.message) == (
        Outcome.FAILED,
        "2 of 12 samples come a second time, such as sample 10",
    )
    file = File(uri="training.npz")
    leaked = found(Data(duplicates=Duplicates(training=file)), samples, training)[1]
    assert leaked.message.startswith("2 of 12 samples are in g.npz too")
    loose = Duplicates(training=file, at_most=Share(0.2))
    assert found(Data(duplicates=loose), samples, training)[1].outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("test", "how"),
    [
        (DriftTest.KS, {"false_alarm": Share(0.01)}),
        (DriftTest.PSI, {"at_most": Amount(0.2)}),
        (DriftTest.CHI_SQUARED, {"false_alarm": Share(0.01)}),
    ],
)
def test_data_of_another_kind_is_noticed_and_of_the_same_kind_is_not(
    test: DriftTest, how: dict[str, Any]
) -> None:
    random = np.random.default_rng(2)
    one, two = (given_samples(np.round(random.normal(0, 2, (500, 2)))) for _ in range(2))
    other = given_samples(np.round(random.normal([0, 1.5], 2, (500, 2))))
    data = Data(drift=(Drift(reference=File(uri="r.npz"), test=test, **how),))
    assert found(data, one, two)[1].outcome is Outcome.PASSED
    drifted = found(data, other, two)[1]
    assert drifted.outcome is Outcome.FAILED
    assert drifted.message.startswith("x[1] differs most")
    with pytest.raises(GateError, match="too few"):
        found(data, given_samples(np.ones((3, 2))), two)


@settings(max_examples=40)
@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 1000))
def test_tests_of_drift_are_scipys(n: int, m: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    left, right = random.normal(size=n), random.normal(0.2, 1, size=m)
    assert ks_distance(left, right) == pytest.approx(stats.ks_2samp(left, right).statistic)
    names = random.integers(0, 3, n), random.integers(0, 3, m)
    counts = [np.bincount(one, minlength=3) for one in names]
    expected = stats.contingency.expected_freq(counts)
    if expected.min() >= 5:
        told = stats.chi2_contingency(counts, correction=False).pvalue
        assert chi_squared_chance(*names) == pytest.approx(told)


@given(st.lists(st.floats(-5, 5), min_size=20, max_size=80))
def test_data_does_not_drift_from_itself(numbers: list[float]) -> None:
    values = np.array(numbers)
    assert ks_chance(values, values) == 1.0
    assert psi(values, values) == pytest.approx(0)
    assert chi_squared_chance(values, values) == 1.0
