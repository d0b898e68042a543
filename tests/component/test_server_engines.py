"""Engines of real models: built, proven, measured and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kohort.contract import FailureReason
from kohort_server import building
from kohort_server.building import Built, GoldenFile, Request, obtain
from kohort_server.engine import kinds, open_vino
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from kohort_server.gates.parity import Limits
from kohort_server.model.check import CheckedModel
from kohort_server.model.engine_cache import Cache
from tests.component.engine_models import (
    NETWORKS,
    cancelling,
    convolutional,
    elementwise,
    forest,
    transformer,
)
from tests.component.server_process import (
    linear_model,
    save,
    value,
)

OPENVINO = Request("OpenVINO", "FP32", 1)
AUTO = Request("Auto", "FP32", 1)
ABLE = kinds.openvino_precisions()


def built(path: Path, request: Request = OPENVINO, cache: Path | None = None) -> Built:
    return obtain(path, request, Cache(cache or path.parent / "cache"))


def refusal(path: Path, request: Request = OPENVINO) -> tuple[FailureReason, str]:
    with pytest.raises(StartFailure) as raised:
        built(path, request)
    failure = raised.value.failure
    assert "\n" not in failure.message
    return failure.reason, failure.message


@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_gives_the_answers_of_a_real_network_at_every_batch(
    tmp_path: Path, name: str
) -> None:
    path = NETWORKS[name](tmp_path / "model.onnx")
    made = built(path)
    report = made.selection.candidates[0].parity
    assert report is not None
    assert report.passed
    *small, largest = report.batches
    assert small == [1, 3, 8]
    assert largest in (16, 32, 64), "as far as calibration came on this machine"
    assert report.outputs["y"].top1 == 1.0
    assert 0 < report.outputs["y"].max_error < 1e-4
    inputs = {
        "x": np.random.default_rng(5)
        .standard_normal((5, *made.engine.signature.inputs[0].shape[1:]))
        .astype(np.float32)
    }
    alone = OnnxRuntimeEngine(path, 1).run(inputs)["y"]
    np.testing.assert_allclose(made.engine.run(inputs)["y"], alone, rtol=1e-3, atol=1e-5)


def test_an_answer_stays_as_it_is_when_the_engine_runs_again(tmp_path: Path) -> None:
    engine = built(convolutional(tmp_path / "model.onnx")).engine
    random = np.random.default_rng(5)
    first, second = (random.standard_normal((2, 3, 32, 32)).astype(np.float32) for _ in range(2))
    answer = engine.run({"x": first})["y"]
    before = answer.copy()
    engine.run({"x": second})
    np.testing.assert_array_equal(answer, before)


@pytest.mark.parametrize("precision", kinds.PRECISIONS)
def test_an_engine_works_in_the_precision_that_was_asked_for_or_is_refused(
    tmp_path: Path, precision: str
) -> None:
    path, request = transformer(tmp_path / "model.onnx"), Request("OpenVINO", precision, 1)
    if precision in ABLE:
        made = built(path, request)
        assert made.engine.precision == precision
        assert made.selection.taken().effective_precision == precision
    else:
        assert refusal(path, request)[0] == FailureReason.ENGINE_UNAVAILABLE


def test_onnxruntime_lowers_no_precision(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "model.onnx")
    reason, message = refusal(path, Request("ONNXRuntime", "BF16", 1))
    assert reason == FailureReason.ENGINE_UNAVAILABLE
    assert "use one of FP32" in message


@pytest.mark.parametrize("precision", ["BF16", "FP16"])
def test_a_model_that_a_low_precision_breaks_is_stopped_with_the_sample_and_both_values(
    tmp_path: Path, precision: str
) -> None:
    reason, message = refusal(cancelling(tmp_path / "m.onnx"), Request("OpenVINO", precision, 1))
    if precision in ABLE:
        assert reason == FailureReason.PARITY_FAILED
        assert 'output "y"[' in message
        assert "of sample " in message
        assert "expected " in message
        assert ", got " in message
    else:
        assert reason == FailureReason.ENGINE_UNAVAILABLE


def test_auto_takes_another_engine_where_one_gives_other_answers(tmp_path: Path) -> None:
    lowest = next((one for one in ("BF16", "FP16") if one in ABLE), "FP32")
    selection = built(cancelling(tmp_path / "m.onnx"), Request("Auto", lowest, 1)).selection
    assert selection.taken().precision == "FP32"
    passed = {one.precision: one.parity.passed for one in selection.candidates if one.parity}
    assert passed == {"FP32": True, **({lowest: False} if lowest != "FP32" else {})}


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is built of other weights: what a wrong optimisation would give."""

    def build(model: CheckedModel, precision: str, target: Path) -> tuple[str, ...]:
        weight = numpy_helper.from_array(np.zeros((64, 10), np.float32), "weight")
        save(
            target / "model.onnx",
            [
                helper.make_node("MatMul", ["x", "weight"], ["s"]),
                helper.make_node("Softmax", ["s"], ["y"]),
            ],
            [value("x", TensorProto.FLOAT, ["batch", 64])],
            [value("y", TensorProto.FLOAT, ["batch", 10])],
            weight,
        )
        return ("model.onnx",)

    honest = kinds.KINDS["ONNXRuntime"]
    kind = kinds.Kind("OpenVINO", "openvino", build, honest.load, honest.precisions)
    monkeypatch.setitem(kinds.KINDS, "OpenVINO", kind)


@pytest.mark.usefixtures("altered")
def test_an_engine_with_other_answers_is_never_taken_and_never_kept(tmp_path: Path) -> None:
    path = linear_model(tmp_path / "model.onnx", "batch")
    for _ in range(2):
        reason, message = refusal(path)
        assert reason == FailureReason.PARITY_FAILED
        assert "OpenVINO" in message
        assert 'output "y"[1] of sample 0 at batch 1: off by 0.9' in message
    selection = built(path, AUTO).selection
    assert selection.taken().engine == "ONNXRuntime"
    assert "off by" in selection.candidates[1].problem


@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_of_a_fixed_batch_is_proven_at_that_batch(tmp_path: Path, batch: int) -> None:
    report = built(linear_model(tmp_path / "model.onnx", batch)).selection.taken().parity
    assert report is not None
    assert (report.batches, report.samples) == ([batch], 64)


def test_a_forest_runs_where_it_can_and_the_table_says_why_not_elsewhere(tmp_path: Path) -> None:
    selection = built(forest(tmp_path / "model.onnx"), AUTO).selection
    assert selection.taken().engine == "ONNXRuntime"
    report = selection.taken().parity
    assert report is not None
    assert report.outputs["label"].equal == 1.0
    other = selection.candidates[1]
    assert other.engine == "OpenVINO"
    assert "TreeEnsembleClassifier" in other.problem


def test_a_model_of_strings_is_not_given_to_openvino(tmp_path: Path) -> None:
    path = elementwise(tmp_path / "model.onnx", TensorProto.STRING, ["batch"])
    reason, message = refusal(path)
    assert reason == FailureReason.BUILD_FAILED
    assert '"x" is of the type string' in message
    assert built(path, AUTO).engine.run({"x": np.array([b"a"], object)})["y"].tolist() == ["a"]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.BOOL, np.bool_),
        (TensorProto.UINT8, np.uint8),
        (TensorProto.INT32, np.int32),
        (TensorProto.INT64, np.int64),
    ],
)
@pytest.mark.parametrize("shape", [["batch", 2], ["batch", "length"], [2, 2]])
def test_tensors_of_every_type_and_shape_come_back_as_they_are(
    tmp_path: Path, kind: int, dtype: Any, shape: list[int | str]
) -> None:
    engine = built(elementwise(tmp_path / "model.onnx", kind, shape)).engine
    given: NDArray[Any] = np.arange(4).reshape(2, 2).astype(dtype)
    answer = engine.run({"x": given})["y"]
    assert answer.dtype == given.dtype
    np.testing.assert_array_equal(answer, given)


def test_golden_samples_of_a_file_are_compared_one_by_one(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal((100, 3, 32, 32))
    np.savez(tmp_path / "golden.npz", x=samples)
    path = convolutional(tmp_path / "model.onnx")
    golden = GoldenFile((tmp_path / "golden.npz").as_uri())
    request = Request("OpenVINO", "FP32", 1, golden)
    report = built(path, request).selection.taken().parity
    assert report is not None
    assert (report.golden, report.samples) == ("golden.npz", 100)
    np.savez(tmp_path / "golden.npz", x=samples[:, :1])
    reason, message = refusal(path, request)
    assert reason == FailureReason.MODEL_INVALID
    assert "golden.npz" in message
    (tmp_path / "golden.npz").unlink()
    assert "the golden inputs: there is no file" in refusal(path, request)[1]
    other = GoldenFile(golden.uri, f"sha256:{'0' * 64}")
    np.savez(tmp_path / "golden.npz", x=samples)
    reason, _ = refusal(path, Request("OpenVINO", "FP32", 1, other))
    assert reason == FailureReason.DIGEST_MISMATCH


def test_a_threshold_that_is_given_decides_and_the_others_stay_as_usual(tmp_path: Path) -> None:
    path = transformer(tmp_path / "model.onnx")
    usual = built(path).selection.taken().parity
    assert usual is not None
    error = usual.outputs["y"].max_error
    assert error > 0
    strict = Request("OpenVINO", "FP32", 1, limits=Limits(tolerance=error / 2))
    reason, message = refusal(path, strict)
    assert reason == FailureReason.PARITY_FAILED
    assert f"more than {error / 2:g}" in message
    generous = built(path, Request("OpenVINO", "FP32", 1, limits=Limits(tolerance=0.5)))
    report = generous.selection.taken().parity
    assert report is not None
    assert report.thresholds == msgspec.structs.replace(usual.thresholds, tolerance=0.5)


FALLBACK = Request("OpenVINO", "FP32", 1, fallback=True)


def test_a_model_that_the_engine_lacks_operators_for_may_fall_back_to_onnxruntime(
    tmp_path: Path,
) -> None:
    path = forest(tmp_path / "model.onnx")
    assert refusal(path)[0] == FailureReason.BUILD_FAILED
    selection = built(path, FALLBACK).selection
    first, second = selection.candidates
    assert "TreeEnsembleClassifier" in first.problem
    assert (second.engine, selection.taken()) == ("ONNXRuntime", second)
    assert selection.choice.startswith("OpenVINO ")
    assert "cannot be had" in selection.choice


def test_where_the_engine_can_be_had_it_serves_although_it_might_fall_back(tmp_path: Path) -> None:
    selection = built(convolutional(tmp_path / "model.onnx"), FALLBACK).selection
    assert [one.engine for one in selection.candidates] == ["OpenVINO"]


@pytest.mark.usefixtures("altered")
def test_other_answers_are_no_reason_to_fall_back(tmp_path: Path) -> None:
    path = linear_model(tmp_path / "model.onnx", "batch")
    assert refusal(path, FALLBACK)[0] == FailureReason.PARITY_FAILED


def test_what_was_built_and_proven_once_is_not_built_or_proven_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = convolutional(tmp_path / "model.onnx")
    first = built(path, AUTO)

    def never(*_: object) -> Any:
        raise AssertionError("it was built already")

    monkeypatch.setattr(open_vino, "build", never)
    monkeypatch.setattr(building, "choose", never)
    again = built(path, AUTO)
    assert again.selection == first.selection
    assert not again.entry.fresh


def test_an_engine_that_was_changed_in_the_cache_is_built_again(tmp_path: Path) -> None:
    path = transformer(tmp_path / "model.onnx")
    blob = built(path).entry.main
    right = blob.read_bytes()
    blob.write_bytes(right[:-100] + bytes(100))
    assert built(path).entry.fresh
    assert len(blob.read_bytes()) == len(right)


@pytest.mark.parametrize("engine", ["OpenVINO", "Auto"])
def test_what_is_no_model_is_refused_whatever_the_engine(tmp_path: Path, engine: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x80\x04 a pickle")
    reason, message = refusal(path, Request(engine, "FP32", 1))
    assert reason == FailureReason.MODEL_INVALID
    assert "torch.onnx.export" in message
