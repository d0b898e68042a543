"""The OpenVINO engine, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort.contract import FailureReason
from kohort_server.engine.interface import BatchDimension, Signature, TensorSpec
from kohort_server.errors import StartFailure

DATATYPES = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
}
HINTS = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}
NAMES = {hint: name for name, hint in HINTS.items()}
# What a CPU must say that it can do; it computes in another precision without a word where it cannot.
CAPABILITIES = {"FP32": "FP32", "BF16": "BF16", "FP16": "FP16"}
# Layers that compute nothing: they are told in the precision of what they pass on.
PASSING = frozenset({"Input", "Output", "Const", "Reorder", "Convert", "Reshape", "Transpose"})
# Layers that do a network's work, by which its precision is named.
WORKING = frozenset({"FullyConnected", "MatMul", "Convolution", "Deconvolution", "RNNSeq", "RNNCell", "MHA",
                     "ScaledDotProductAttention"})  # fmt: skip


class OpenVinoEngine:
    """One compiled model and its infer request."""

    name = "openvino_onnx"

    def __init__(self, compiled: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        """An engine of a compiled model whose ports have these names in ONNX, in this order."""
        self.signature = Signature(
            tuple(map(tensor_spec, inputs, compiled.inputs)),
            tuple(map(tensor_spec, outputs, compiled.outputs)),
        )
        self.batch: BatchDimension = self.signature.batch_dimension()
        self.precision = effective_precision(layer_precisions(compiled))
        self._request = compiled.create_infer_request()
        self._inputs = inputs
        self._outputs = outputs

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Engine.run`. The inputs are read in place; the outputs are the caller's own."""
        # By position: a name of ONNX may stand for an input and an output alike.
        given = {
            index: np.ascontiguousarray(inputs[name]) for index, name in enumerate(self._inputs)
        }
        result = self._request.infer(given, share_inputs=True, share_outputs=False)
        return {name: result[index] for index, name in enumerate(self._outputs)}


def build(onnx: Path, precision: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> bytes:
    """The compiled model as bytes that `load` takes; raises `StartFailure` with BuildFailed."""
    openvino = imported()
    core = openvino.Core()
    require(core, precision)
    try:
        model = core.read_model(str(onnx))
        for names, ports in ((inputs, model.inputs), (outputs, model.outputs)):
            if len(names) != len(ports):
                raise RuntimeError(
                    f"it sees {len(ports)} of the inputs or outputs {', '.join(names)}"
                )
            for name, port in zip(names, ports, strict=True):
                if name not in port.get_names():
                    raise RuntimeError(f'it does not see "{name}" where the model has it')
                tensor_spec(name, port)
        compiled = core.compile_model(model, "CPU", settings(precision, 1))
        exported: bytes = compiled.export_model().getvalue()
    except RuntimeError as error:
        raise StartFailure(
            FailureReason.BUILD_FAILED,
            f"OpenVINO {release(openvino)} cannot build {onnx.name}: {first_reason(error)}; use the "
            "engine ONNXRuntime",
        ) from error
    return exported


def load(
    built: bytes, precision: str, inputs: tuple[str, ...], outputs: tuple[str, ...], threads: int
) -> OpenVinoEngine:
    """The engine of what `build` gave, here and with this version; raises `StartFailure`."""
    openvino = imported()
    core = openvino.Core()
    require(core, precision)
    try:
        # What is built does not keep its precision: without it said again, the CPU's own choice is taken.
        compiled = core.import_model(built, "CPU", settings(precision, threads))
        return OpenVinoEngine(compiled, inputs, outputs)
    except RuntimeError as error:
        raise StartFailure(
            FailureReason.BUILD_FAILED,
            f"OpenVINO {release(openvino)} cannot load what was built: {first_reason(error)}; build "
            "it again",
        ) from error


def settings(precision: str, threads: int) -> dict[str, Any]:
    """How the CPU shall run it: one request at a time on all of its threads, in no other precision."""
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Pods share cores: threads that are pinned to some of them would wait for each other.
        "ENABLE_CPU_PINNING": False,
    }


def imported() -> Any:
    """The package; raises `StartFailure` with EngineUnavailable."""
    try:
        import openvino
    except ImportError as error:
        raise StartFailure(
            FailureReason.ENGINE_UNAVAILABLE,
            f"OpenVINO cannot be imported ({error}); install the extra: pip install "
            "'kohort[server,openvino]'",
        ) from error
    return openvino


def precisions(core: Any) -> tuple[str, ...]:
    """The precisions that this CPU computes in."""
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name, needed in CAPABILITIES.items() if needed in able)


def require(core: Any, precision: str) -> None:
    """Raise EngineUnavailable for a precision that this CPU would silently replace."""
    able = precisions(core)
    if precision not in able:
        raise StartFailure(
            FailureReason.ENGINE_UNAVAILABLE,
            f"this CPU does not compute in {precision} with OpenVINO; use one of {', '.join(able)}",
        )


def tensor_spec(name: str, port: Any) -> TensorSpec:
    """An input or output of a compiled model in the protocol's terms."""
    kind = port.get_element_type().get_type_name()
    datatype = DATATYPES.get(kind)
    if datatype is None:
        raise RuntimeError(f'"{name}" is of the type {kind}, which is not served with OpenVINO')
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise RuntimeError(
            f'"{name}" has any number of dimensions, which is not served with OpenVINO'
        )
    return TensorSpec(
        name, datatype, tuple(-1 if extent.is_dynamic else extent.get_length() for extent in shape)
    )


def layer_precisions(compiled: Any) -> list[tuple[str, str]]:
    """Kind and precision of every layer that really runs."""
    told = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops()]
    return [(text(info["layerType"]), text(info["runtimePrecision"])) for info in told]


def text(value: Any) -> str:
    """What OpenVINO tells of a layer, as plain text."""
    return str(value.value if hasattr(value, "value") else value)


def effective_precision(layers: list[tuple[str, str]]) -> str:
    """The precision in which a network works: that of its products, of all of its layers without any.

    Several are told in order, such as BF16+FP32. A network that computes nothing in floating point is FP32.
    """
    working = {precision for kind, precision in layers if kind in WORKING}
    others = {precision for kind, precision in layers if kind not in PASSING}
    names = sorted({NAMES[one] for one in working or others if one in NAMES})
    return "+".join(names) or "FP32"


def release(openvino: Any) -> str:
    """Its version without the build."""
    return str(openvino.__version__).partition("-")[0]


def first_reason(error: Exception) -> str:
    """What went wrong, of a message that begins with the places in OpenVINO's code that it passed."""
    lines = [line.strip("- ") for line in str(error).splitlines()]
    places = ("Exception from", "Check '")
    told = [line for line in lines if line and not line.startswith(places) and line[-1] != ":"]
    return " ".join(told or lines)[:300].rstrip(". ") or type(error).__name__
