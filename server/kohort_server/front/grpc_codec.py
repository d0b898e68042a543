"""Inference requests and responses as protocol buffers, to the values that HTTP's codec makes too.

The head of a request, all before its tensors, is the same for many requests but for its id. It is
validated once and then found again by its bytes, so that a request costs a few steps over fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kohort_server.batch.call import Inputs, Result, TensorData
from kohort_server.datatypes import BYTES, FIXED_SIZE
from kohort_server.engine.interface import TensorSpec
from kohort_server.errors import RequestError
from kohort_server.front.answer import (
    OutputTemplate,
    Templates,
    WantedOutput,
    binary_data,
    output_shape,
)
from kohort_server.front.codec import (
    CACHED_HEADER,
    CACHED_HEADERS,
    Codec,
    InferRequest,
    Layout,
    make_request,
)
from kohort_server.front.tensors import CheckedInput, binary_tensor, object_array
from kohort_server.front.wire import (
    InputHeader,
    RequestedOutput,
    RequestHeader,
    RequestParameters,
    TensorParameters,
)
from kohort_server.rpc import protobuf
from kohort_server.rpc.protobuf import Message, ProtobufError, delimited, read_varint, varint

REQUEST = "inference.ModelInferRequest"
# Tags of the request's fields: all are delimited and below sixteen.
ID, RAW = 0x1A, 0x3A
HEAD_TAGS = frozenset({0x0A, 0x12, ID, 0x22, 0x2A, 0x32})
RAW_OUTPUT = varint(6 << 3 | protobuf.DELIMITED)

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


class OutputPiece(msgspec.Struct):
    """An output of a response: its template, and its bytes up to the tensor's where size is fixed."""

    template: OutputTemplate
    before: bytes | None


class ResponseTemplate(msgspec.Struct):
    """What the responses of one batch with equal outputs and rows have in common."""

    raw: bool
    described: bytes  # the outputs without their data; empty where data is part of them
    pieces: list[OutputPiece]
    specs: list[tuple[TensorSpec, tuple[int, ...]]]


class GrpcCodec:
    """Decodes ModelInferRequests to, and encodes ModelInferResponses of, one model."""

    def __init__(self, model: str, versions: Sequence[str], codec: Codec) -> None:
        """`versions` are the names that this model's version answers to, its own first."""
        self._model = model
        self._versions = versions
        self._codec = codec
        self._opening = delimited(1, model.encode()) + delimited(2, versions[0].encode())
        self._templates = Templates(response_template)
        self._layouts: dict[bytes, Layout] = {}
        outputs = codec.signature.outputs
        self._all_raw = tuple(WantedOutput(spec, True) for spec in outputs)
        # Half-precision numbers have no typed form, and either all outputs are raw or none is.
        typed = all(spec.datatype in CONTENTS for spec in outputs)
        self._all_typed = tuple(WantedOutput(spec, not typed) for spec in outputs)

    def decode(self, message: Message) -> InferRequest:
        """A request; raises `RequestError`, and nothing else, for what is none of this model."""
        try:
            key, identity, at = read_head(message)
            layout = self._layouts.get(key)
            if layout is None:
                return self._decode_unknown(message, key)
            raw = raw_pieces(message, at, len(layout.inputs))
            return self._with_raw(layout, identity, raw, len(message))
        except (ProtobufError, IndexError, UnicodeDecodeError) as error:
            raise RequestError(400, f"the request is no ModelInferRequest: {error}") from error

    def _decode_unknown(self, message: Message, key: bytes) -> InferRequest:
        told = protobuf.decode(REQUEST, message)
        if told.get("model_name", "") != self._model or (
            told.get("model_version", "") not in ("", *self._versions)
        ):
            raise RequestError(
                404,
                f'the model "{told.get("model_name", "")}" in the version '
                f'"{told.get("model_version", "")}" is not served here; this server serves '
                f'"{self._model}" in the version "{self._versions[0]}"',
            )
        inputs = told.get("inputs", [])
        raw = told.get("raw_input_contents", [])
        if raw and len(raw) != len(inputs):
            raise RequestError(
                400,
                f"{len(inputs)} inputs wanted in raw_input_contents, got {len(raw)}; all inputs "
                "are raw or none is",
            )
        layout = self._codec.validated(self._header(told, inputs, raw), self._outputs(told, raw))
        identity = told.get("id", "")
        if not raw:
            data: Inputs = {}
            for part, given in zip(layout.inputs, inputs, strict=True):
                tensor = typed_tensor(part.checked, given.get("contents", {}))
                data[part.checked.spec.name] = (part.checked.shape, tensor)
            return make_request(layout, identity, data, len(message))
        if key and len(key) <= CACHED_HEADER:
            if len(self._layouts) >= CACHED_HEADERS:
                self._layouts.clear()
            self._layouts[key] = layout
        return self._with_raw(layout, identity, raw, len(message))

    def _header(
        self, told: dict[str, Any], inputs: list[dict[str, Any]], raw: Sequence[Message]
    ) -> RequestHeader:
        """The request as HTTP's JSON has it."""
        parameters = told.get("parameters", {})
        return RequestHeader(
            inputs=[
                InputHeader(
                    given.get("name", ""),
                    tuple(np.asarray(given.get("shape", ())).tolist()),
                    given.get("datatype", ""),
                    parameters=tensor_parameters(given, len(raw[index]) if raw else None),
                    data=TYPED,
                )
                for index, given in enumerate(inputs)
            ],
            parameters=RequestParameters(
                timeout=parameter(parameters, "timeout", int),
                triton_enable_empty_final_response=bool(
                    parameter(parameters, "triton_enable_empty_final_response", bool)
                ),
            ),
        )

    def _outputs(self, told: dict[str, Any], raw: Sequence[Message]) -> tuple[WantedOutput, ...]:
        every = self._all_raw if raw or not told.get("inputs") else self._all_typed
        if not told.get("outputs"):
            return every
        header = RequestHeader(
            [],
            outputs=[
                RequestedOutput(output.get("name", ""), tensor_parameters(output, None))
                for output in told["outputs"]
            ],
        )
        wanted = self._codec.wanted_outputs(header)
        return tuple(WantedOutput(output.spec, every[0].binary) for output in wanted)

    def _with_raw(
        self, layout: Layout, identity: str, raw: Sequence[Message], size: int
    ) -> InferRequest:
        if len(raw) != len(layout.inputs):
            raise RequestError(
                400, f"{len(layout.inputs)} inputs wanted in raw_input_contents, got {len(raw)}"
            )
        inputs: Inputs = {}
        for part, piece in zip(layout.inputs, raw, strict=True):
            checked = part.checked
            if checked.size is not None and len(piece) != checked.size:
                raise RequestError(
                    400,
                    f'input "{checked.spec.name}": {checked.spec.datatype} of shape '
                    f"{list(checked.shape)} is {checked.size} bytes, got {len(piece)}",
                )
            inputs[checked.spec.name] = (checked.shape, binary_tensor(checked, piece))
        return make_request(layout, identity, inputs, size)

    def encode(self, request: InferRequest, result: Result, start: int | None) -> list[bytes]:
        """A ModelInferResponse in pieces; the request's rows begin at `start`, None for all."""
        rows = None if start is None else request.rows
        template = self._templates.of(request.outputs, result, rows)
        first, count = (0, 1) if start is None else (start, request.rows)
        pieces = [self._opening]
        if request.id:
            pieces.append(delimited(3, request.id.encode()))
        if request.final:
            pieces.append(FINAL)
        if template.raw:
            pieces.append(template.described)
            for piece in template.pieces:
                row = piece.template.row
                data = binary_data(piece.template, result, first * row, (first + count) * row)
                pieces.append(
                    RAW_OUTPUT + varint(len(data)) if piece.before is None else piece.before
                )
                pieces.append(data)
        else:
            for piece, (spec, shape) in zip(template.pieces, template.specs, strict=True):
                row = piece.template.row
                values = result.arrays[spec.name].reshape(-1)[first * row : (first + count) * row]
                pieces.append(typed_output(spec, shape, values))
        return pieces


# Stands where JSON has data: it is looked at elsewhere.
TYPED = msgspec.Raw(b"null")
FINAL = protobuf.encode(
    "inference.ModelInferResponse",
    {"parameters": {"triton_final_response": {"bool_param": True}}},
)


def response_template(
    outputs: Sequence[WantedOutput], result: Result, rows: int | None
) -> ResponseTemplate:
    """What responses of so many rows have in common; None for a result that is not split by rows."""
    raw = outputs[0].binary
    described = []
    pieces = []
    specs = []
    for wanted in outputs:
        spec = wanted.spec
        array = result.arrays[spec.name]
        row, shape = output_shape(array, rows)
        specs.append((spec, shape))
        if raw:
            described.append(delimited(5, output_fields(spec, shape)))
        text = spec.datatype == BYTES
        size = row * (1 if rows is None else rows) * array.itemsize
        before = None if text else RAW_OUTPUT + varint(size)
        template = OutputTemplate(spec.name, text, raw, row, array.itemsize, b"", b"")
        pieces.append(OutputPiece(template, before))
    return ResponseTemplate(raw, b"".join(described), pieces, specs)


def read_head(message: Message) -> tuple[bytes, str, int]:
    """The bytes before the raw tensors without the id, the id, and where the raw tensors begin.

    The bytes are empty where they cannot be told so easily.
    """
    at = rest = 0
    end = len(message)
    before = b""
    identity = ""
    while at < end:
        tag = message[at]
        if tag == RAW:
            break
        if tag not in HEAD_TAGS or at > CACHED_HEADER:
            return b"", "", 0
        size = message[at + 1]
        start = at + 2
        if size > 0x7F:
            size, start = read_varint(message, at + 1)
        stop = start + size
        if tag == ID:
            identity = str(message[start:stop], "utf-8")
            before = bytes(message[:at])
            rest = stop
        at = stop
    return before + bytes(message[rest:at]), identity, at


def raw_pieces(message: Message, at: int, most: int) -> list[Message]:
    """The raw tensors, which must be all that is left from `at` on."""
    pieces: list[Message] = []
    end = len(message)
    while at < end:
        if message[at] != RAW:
            raise ProtobufError("a field follows the raw tensors")
        if len(pieces) == most:
            raise ProtobufError(f"it has more than {most} raw tensors")
        size = message[at + 1]
        start = at + 2
        if size > 0x7F:
            size, start = read_varint(message, at + 1)
        at = start + size
        pieces.append(message[start:at])
    if at != end:
        raise ProtobufError("the message ends within a tensor")
    return pieces


def parameter(parameters: dict[str, Any], name: str, wanted: type) -> Any:
    """A parameter of the request, or None; raises `RequestError` when it has another type."""
    if name not in parameters:
        return None
    for value in parameters[name].values():
        if isinstance(value, wanted):
            return value
    raise RequestError(400, f'the parameter "{name}" is not of the type {wanted.__name__}')


def tensor_parameters(told: dict[str, Any], size: int | None) -> TensorParameters:
    """The parameters of an input or output as HTTP's JSON has them."""
    parameters = told.get("parameters", {})
    return TensorParameters(
        binary_data_size=size,
        classification=parameter(parameters, "classification", int),
        shared_memory_region=parameter(parameters, "shared_memory_region", str),
    )


def typed_tensor(wanted: CheckedInput, contents: dict[str, Any]) -> TensorData | NDArray[Any]:
    """An input from its typed contents."""
    spec = wanted.spec
    field = CONTENTS.get(spec.datatype)
    if field is None:
        raise RequestError(
            400, f'input "{spec.name}": {spec.datatype} must be sent in raw_input_contents'
        )
    values = contents.get(field, ())
    if len(values) != wanted.count:
        raise RequestError(
            400,
            f'input "{spec.name}": shape {list(wanted.shape)} wants {wanted.count} elements, '
            f"{field} has {len(values)}",
        )
    if spec.datatype == BYTES:
        return object_array([bytes(value) for value in values], wanted.shape)
    array = np.asarray(values)
    stored = array.astype(FIXED_SIZE[spec.datatype].dtype)
    if array.dtype.kind in "iu" and (stored != array).any():
        raise RequestError(400, f'input "{spec.name}": a value does not fit {spec.datatype}')
    return stored.tobytes()


def output_fields(spec: TensorSpec, shape: Sequence[int]) -> bytes:
    """An InferOutputTensor without its data."""
    return protobuf.encode(
        "inference.ModelInferResponse.InferOutputTensor",
        {"name": spec.name, "datatype": spec.datatype, "shape": shape},
    )


def typed_output(spec: TensorSpec, shape: Sequence[int], values: NDArray[Any]) -> bytes:
    """An output with its data in it."""
    told = values.tolist() if spec.datatype == BYTES else values
    if spec.datatype == BYTES:
        told = [value.encode() if isinstance(value, str) else value for value in told]
    contents = protobuf.encode("inference.InferTensorContents", {CONTENTS[spec.datatype]: told})
    return delimited(5, output_fields(spec, shape) + delimited(5, contents))
