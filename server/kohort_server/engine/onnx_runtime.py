"""The onnxruntime engine, on the CPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort.contract import FailureReason
from kohort_server.datatypes import BFLOAT16, BYTES, element_count
from kohort_server.engine.interface import BatchDimension, InputError, Signature, TensorSpec
from kohort_server.errors import StartFailure

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": BYTES,
}


BFLOAT16_OF_ONNX = 16  # TensorProto.BFLOAT16


class OnnxRuntimeEngine:
    """One onnxruntime session."""

    name = "onnxruntime_onnx"
    precision = "FP32"  # or what the model itself says: nothing is lowered

    def __init__(self, path: Path, threads: int, optimise: bool = True) -> None:
        """Load the model; raises `StartFailure` with ModelInvalid or EngineUnavailable."""
        self._session = open_session(path, threads, optimise)
        self.signature = Signature(
            tuple(tensor_spec(node) for node in self._session.get_inputs()),
            tuple(tensor_spec(node) for node in self._session.get_outputs()),
        )
        self.batch: BatchDimension = self.signature.batch_dimension()
        self._output_names = [spec.name for spec in self.signature.outputs]
        self._text_inputs = [spec.name for spec in self.signature.inputs if spec.datatype == BYTES]
        # onnxruntime's Python has no arrays of BF16. It takes other tensors beside arrays, but
        # gives back all outputs in one way, for which no input may be text.
        self._wrapped = [spec.name for spec in self.signature.inputs if spec.datatype == "BF16"]
        self._outputs_wrapped = any(spec.datatype == "BF16" for spec in self.signature.outputs)
        if self._outputs_wrapped and self._text_inputs:
            raise StartFailure(
                FailureReason.MODEL_INVALID,
                f'{path.name} has the text input "{self._text_inputs[0]}" and outputs of BF16, which '
                "onnxruntime cannot run together from Python; cast those to FP32 in the model",
            )

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Engine.run`; a BYTES input must be UTF-8, which is all that onnxruntime takes."""
        if self._text_inputs:
            inputs = {
                name: as_text(name, array) if name in self._text_inputs else array
                for name, array in inputs.items()
            }
        if self._outputs_wrapped:
            given = {name: ort_value(array) for name, array in inputs.items()}
            told = self._session.run_with_ort_values(self._output_names, given)
            outputs = [array_of(value) for value in told]
        else:
            wrapped = {name: ort_value(inputs[name]) for name in self._wrapped}
            outputs = self._session.run(self._output_names, inputs | wrapped if wrapped else inputs)
        return dict(zip(self._output_names, outputs, strict=True))


def ort_value(array: NDArray[Any]) -> Any:
    """An array as onnxruntime's own kind of tensor, which reads the array's memory."""
    from onnxruntime import OrtValue

    if array.dtype != BFLOAT16:
        return OrtValue.ortvalue_from_numpy(array)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), BFLOAT16_OF_ONNX)


def array_of(value: Any) -> NDArray[Any]:
    """A copy of onnxruntime's own kind of tensor as an array."""
    if value.data_type() != "tensor(bfloat16)":
        copied: NDArray[Any] = value.numpy()
        return copied
    shape = value.shape()
    memory = (ctypes.c_char * (BFLOAT16.itemsize * element_count(shape))).from_address(
        value.data_ptr()
    )
    return np.frombuffer(memory, BFLOAT16).reshape(shape).copy()


def open_session(path: Path, threads: int, optimise: bool) -> Any:
    """An inference session that leaves the CPU alone while it waits."""
    try:
        import onnxruntime
    except ImportError as error:
        raise StartFailure(
            FailureReason.ENGINE_UNAVAILABLE,
            f"onnxruntime cannot be imported ({error}); install the extra: pip install "
            "'kohort[server]'",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = (
        4  # only what is fatal: errors are raised, and logged by this server
    )
    # Spinning threads burn a pod's CPU quota between requests and gain nothing at load.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base class
        raise StartFailure(
            FailureReason.MODEL_INVALID,
            f"{path.name} is not a model that onnxruntime {onnxruntime.__version__} can load: "
            f"{first_line(error)}; export it to ONNX again and check it with onnx.checker",
        ) from error


def tensor_spec(node: Any) -> TensorSpec:
    """An input or output of a session in the protocol's terms."""
    datatype = DATATYPES.get(node.type)
    if datatype is None:
        raise StartFailure(
            FailureReason.MODEL_INVALID,
            f'"{node.name}" has the type {node.type}, which cannot be served; export the model '
            "with plain tensors (for scikit-learn classifiers: the option zipmap=False)",
        )
    # A symbolic or unknown extent comes as a string or None. A shape of unknown rank comes as [].
    shape = tuple(extent if isinstance(extent, int) else -1 for extent in node.shape)
    return TensorSpec(node.name, datatype, shape)


def as_text(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """An object array of `str` for one of `bytes`."""
    try:
        text = [
            element if isinstance(element, str) else element.decode()
            for element in array.reshape(-1).tolist()
        ]
    except UnicodeDecodeError as error:
        raise InputError(f'input "{name}": a string is not UTF-8 ({error.reason})') from error
    return np.array(text, dtype=object).reshape(array.shape)


def first_line(error: Exception) -> str:
    """The first line of an error's message, without a trailing full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
