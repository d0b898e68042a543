"""The samples that engines are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort_server.engine.interface import BatchDimension, Signature, TensorSpec
from kohort_server.errors import StartFailure
from kohort_server.gates.golden import Golden, drawn, read

IMAGE = TensorSpec("image", "FP32", (-1, 3))
LABEL = TensorSpec("label", "INT64", (-1,))
SIGNATURE = Signature((IMAGE, LABEL), ())


def saved(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@given(samples=st.integers(1, 100), largest=st.integers(9, 64))
def test_every_sample_runs_in_the_largest_batch_and_every_batch_has_its_size(
    samples: int, largest: int
) -> None:
    golden = Golden("", {"x": np.arange(samples)}, samples)
    sizes = (1, 3, 8, largest)
    batches = list(golden.batches(sizes))
    assert [len(numbers) for numbers, _ in batches][:3] == [1, 3, 8]
    assert {len(numbers) for numbers, _ in batches[3:]} == {largest}
    assert {one for numbers, _ in batches[3:] for one in numbers} == set(range(samples))
    for numbers, inputs in batches:
        assert inputs["x"].tolist() == numbers


def test_drawn_samples_are_the_same_every_time_and_not_all_alike() -> None:
    first, second = (drawn(SIGNATURE, 16, BatchDimension("dynamic")) for _ in range(2))
    for name, array in first.inputs.items():
        assert (array == second.inputs[name]).all()
    images = first.inputs["image"]
    assert images.shape == (first.samples, 3)
    assert np.abs(images).max() > 5  # some are far out
    assert (images == 0).all(axis=1).any()  # some are empty
    assert set(first.inputs["label"].tolist()) == {0, 1}  # valid indices


def test_a_model_of_exactly_two_rows_is_asked_for_two_at_a_time() -> None:
    signature = Signature((TensorSpec("x", "FP32", (2, 3)),), ())
    golden = drawn(signature, 16, BatchDimension("fixed", 2))
    assert golden.samples == len(golden.inputs["x"]) == 64
    assert [inputs["x"].shape for _, inputs in golden.batches((2,))] == [(2, 3)] * 32


def test_a_model_without_a_batch_gets_each_sample_as_it_is() -> None:
    signature = Signature((TensorSpec("x", "FP32", (5, -1)),), ())
    golden = drawn(signature, 16, BatchDimension("none"))
    assert [inputs["x"].shape for _, inputs in golden.batches((1,))] == [(5, 16)]


def test_samples_of_a_file_get_the_types_that_the_model_takes(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "g.npz", image=np.ones((5, 3)), label=np.arange(5, dtype=np.int32), other=1
    )
    golden = read(path, SIGNATURE)
    assert (golden.samples, golden.source) == (5, "g.npz")
    assert {name: array.dtype.name for name, array in golden.inputs.items()} == {
        "image": "float32",
        "label": "int64",
    }


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"image": np.ones((5, 3))}, 'no array "label"'),
        ({"image": np.ones((5, 4)), "label": np.arange(5)}, "[5, 4]"),
        ({"image": np.ones((5, 3)), "label": np.arange(4)}, "4 and 5 samples"),
        ({"image": np.ones((0, 3)), "label": np.arange(0)}, "0 samples"),
        ({"image": np.ones((5, 3)), "label": np.ones(5)}, "float64"),
        ({"image": np.ones((5, 3)), "label": np.array([{}] * 5, object)}, "plain arrays"),
        ({"image": np.float32(1), "label": np.arange(5)}, "[]"),
    ],
)
def test_samples_that_do_not_fit_are_refused_with_what_is_wrong(
    tmp_path: Path, arrays: dict[str, object], told: str
) -> None:
    with pytest.raises(StartFailure) as raised:
        read(saved(tmp_path / "golden.npz", **arrays), SIGNATURE)
    assert "golden.npz" in str(raised.value)
    assert told in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04broken"])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "golden.npz"
    path.write_bytes(content)
    with pytest.raises(StartFailure, match=r"numpy\.savez"):
        read(path, SIGNATURE)
