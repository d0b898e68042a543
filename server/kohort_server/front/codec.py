"""Open Inference Protocol requests and responses, JSON and binary, to values and back.

Transports hand over bytes and get bytes; nothing here knows of sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import error as StructError

import msgspec

from kohort_server.batch.call import Inputs, Result, Shape
from kohort_server.datatypes import BYTES, FIXED_SIZE, NAMES, element_count
from kohort_server.engine.interface import (
    BatchDimension,
    Signature,
    TensorSpec,
    describe,
    same_extents,
)
from kohort_server.errors import RequestError
from kohort_server.front.answer import (
    Templates,
    WantedOutput,
    opening,
    output_templates,
    write_answer,
)
from kohort_server.front.tensors import (
    KINDS,
    STRINGS,
    CheckedInput,
    binary_tensor,
    json_tensor,
)
from kohort_server.front.wire import (
    INVALID_JSON,
    InputHeader,
    RequestHeader,
    RequestParameters,
    TensorParameters,
)

CACHED_HEADER = 4096  # bytes; longer headers of binary requests are not remembered
CACHED_HEADERS = 256

_decode_header = msgspec.json.Decoder(RequestHeader).decode


NO_PARAMETERS = RequestParameters()


class InputLayout(msgspec.Struct):
    """A validated input: its data is JSON, or the next `binary_size` bytes after the header."""

    checked: CheckedInput
    data: msgspec.Raw
    binary_size: int | None


class Layout(msgspec.Struct):
    """A validated request but for its tensors' data."""

    id: str
    inputs: list[InputLayout]
    outputs: tuple[WantedOutput, ...]
    rows: int
    batch_key: tuple[Shape, ...] | None
    binary_size: int
    timeout: float | None
    final: bool


class InferRequest(msgspec.Struct):
    """A decoded request. A tensor is (shape, row-major little-endian buffer or object array)."""

    id: str
    inputs: Inputs
    outputs: tuple[WantedOutput, ...]
    rows: int
    batch_key: tuple[Shape, ...] | None
    size: int
    timeout: float | None  # seconds that the client waits; None where it does not say
    final: bool  # the client wants to be told that this response is the last to its request


class Codec:
    """Decodes requests to, and encodes responses of, one model."""

    def __init__(
        self, model: str, revision: str, signature: Signature, batch: BatchDimension
    ) -> None:
        self._opening = opening(model, revision)
        self._templates = Templates(output_templates)
        self.signature = signature
        self._batch = batch
        self._all_json = tuple(WantedOutput(spec, False) for spec in signature.outputs)
        self._all_binary = tuple(WantedOutput(spec, True) for spec in signature.outputs)
        self._outputs_by_name = {spec.name: spec for spec in signature.outputs}
        # Only shapes beside the rows that may differ between requests keep them apart.
        self._several_shapes = any(-1 in spec.shape[1:] for spec in signature.inputs)
        # A client repeats the header of its binary requests; validating it is most of their cost.
        self._cached_layout = lru_cache(CACHED_HEADERS)(self._layout)
        self._checked = lru_cache(CACHED_HEADERS)(self._check_input)

    def decode(self, body: bytes | memoryview, header_length: int | None) -> InferRequest:
        """A request from its body; `header_length` is the length of the JSON before binary data.

        None means that the body is all JSON, 0 that it is the only input's data without a header.
        Raises `RequestError`, and nothing else, for what is not a valid request to this model.
        """
        if header_length is None:
            return self._with_data(self._layout(body), memoryview(b""), len(body))
        if header_length == 0:
            return self._decode_raw(memoryview(body))
        if header_length > len(body):
            raise RequestError(
                400,
                f"Inference-Header-Content-Length is {header_length}, the body has only "
                f"{len(body)} bytes",
            )
        view = memoryview(body)
        header = bytes(view[:header_length])
        layout = (
            self._cached_layout(header) if header_length <= CACHED_HEADER else self._layout(header)
        )
        return self._with_data(layout, view[header_length:], len(body))

    def _decode_raw(self, data: memoryview) -> InferRequest:
        """A request that is one input's data and nothing else; its outputs go back in binary."""
        inputs = self.signature.inputs
        if len(inputs) != 1 or inputs[0].datatype == BYTES:
            raise RequestError(
                400, "a request without a JSON header needs a model with one numeric input"
            )
        spec = inputs[0]
        known = FIXED_SIZE[spec.datatype].size * element_count(
            [extent for extent in spec.shape if extent >= 0]
        )
        unknown = spec.shape.count(-1)
        if unknown > 1 or known == 0 or len(data) % known or (not unknown and len(data) != known):
            raise RequestError(
                400,
                f'input "{spec.name}": {len(data)} bytes do not make a {spec.datatype} tensor of '
                f"shape {describe(spec.shape)}",
            )
        shape = tuple(extent if extent >= 0 else len(data) // known for extent in spec.shape)
        header = RequestHeader(
            [
                InputHeader(
                    spec.name,
                    shape,
                    spec.datatype,
                    parameters=TensorParameters(binary_data_size=len(data)),
                )
            ]
        )
        layout = self.validated(header, self._all_binary)
        return self._with_data(layout, data, len(data))

    def _layout(self, header: bytes | memoryview) -> Layout:
        try:
            parsed = _decode_header(header)
        except INVALID_JSON as error:
            raise RequestError(400, f"the request is not valid: {error}") from error
        return self.validated(parsed, self.wanted_outputs(parsed))

    def wanted_outputs(self, header: RequestHeader) -> tuple[WantedOutput, ...]:
        """The outputs that a request asks for, all where it names none. Raises `RequestError`."""
        binary = header.parameters is not None and header.parameters.binary_data_output
        if not header.outputs:
            return self._all_binary if binary else self._all_json
        wanted = []
        for output in header.outputs:
            spec = self._outputs_by_name.get(output.name)
            if spec is None:
                raise RequestError(
                    400,
                    f'output "{output.name}" does not exist; the model has '
                    f"{names(self.signature.outputs)}",
                )
            refuse_unsupported(output.name, output.parameters)
            told = output.parameters.binary_data if output.parameters is not None else None
            wanted.append(WantedOutput(spec, binary if told is None else told))
        return tuple(wanted)

    def validated(self, header: RequestHeader, outputs: tuple[WantedOutput, ...]) -> Layout:
        """A request whose inputs fit the model. Raises `RequestError`."""
        inputs = [self._validated_input(given) for given in header.inputs]
        if len(inputs) != len(self.signature.inputs) or len(inputs) > 1:
            self._check_each_given_once([given.name for given in header.inputs])
        rows = 1
        key = None
        if self._batch.kind == "dynamic":
            rows = inputs[0].checked.shape[0]
            if len(inputs) > 1:
                check_same_rows(header.inputs)
            if self._several_shapes:
                shapes = {given.name: given.shape[1:] for given in header.inputs}
                key = tuple(shapes[spec.name] for spec in self.signature.inputs)
        size = 0
        for given in inputs:
            size += given.binary_size or 0
        told = header.parameters or NO_PARAMETERS
        timeout = told.timeout / 1e6 if told.timeout is not None and told.timeout > 0 else None
        final = told.triton_enable_empty_final_response
        return Layout(header.id, inputs, outputs, rows, key, size, timeout, final)

    def _check_each_given_once(self, given: Sequence[str]) -> None:
        for spec in self.signature.inputs:
            if (count := given.count(spec.name)) != 1:
                what = "is missing" if count == 0 else f"is given {count} times"
                raise RequestError(
                    400,
                    f'input "{spec.name}" {what}; the model has {names(self.signature.inputs)}',
                )

    def _validated_input(self, given: InputHeader) -> InputLayout:
        checked = self._checked(given.name, given.datatype, given.shape)
        told = given.parameters
        refuse_unsupported(given.name, told)
        size = told.binary_data_size if told is not None else None
        if size is None:
            if not given.data:
                raise RequestError(
                    400,
                    f'input "{given.name}" has neither "data" nor a "binary_data_size" parameter',
                )
        elif size < 0 or checked.size not in (None, size):
            raise RequestError(
                400,
                f'input "{given.name}": {given.datatype} of shape {describe(given.shape)} is '
                f"{checked.size} bytes, binary_data_size is {size}",
            )
        return InputLayout(checked, given.data, size)

    def _check_input(self, name: str, datatype: str, shape: Shape) -> CheckedInput:
        spec = self.signature.inputs_by_name.get(name)
        if spec is None:
            raise RequestError(
                400,
                f'input "{name}" does not exist; the model has {names(self.signature.inputs)}',
            )
        if datatype != spec.datatype:
            known = "" if datatype in NAMES else ", which is not a datatype of the protocol"
            raise RequestError(
                400, f'input "{name}": datatype {spec.datatype} wanted, got {datatype}{known}'
            )
        if not same_extents(spec.shape, shape) or min(shape, default=0) < 0:
            raise RequestError(
                400,
                f'input "{name}": shape {describe(spec.shape)} wanted, got {describe(shape)}',
            )
        count = element_count(shape)
        if datatype == BYTES:
            return CheckedInput(spec, shape, count, None, STRINGS, None)
        fixed = FIXED_SIZE[datatype]
        try:
            pack = fixed.packer(count)
        except StructError as error:
            raise RequestError(
                400, f'input "{name}": shape {describe(shape)} is larger than any memory'
            ) from error
        kind = KINDS[fixed.element]
        return CheckedInput(spec, shape, count, count * fixed.size, kind, pack)

    def _with_data(self, layout: Layout, binary: memoryview, size: int) -> InferRequest:
        if len(binary) != layout.binary_size:
            raise RequestError(
                400,
                f"the inputs' binary_data_size sum to {layout.binary_size} bytes, "
                f"{len(binary)} bytes follow the JSON header",
            )
        inputs: Inputs = {}
        at = 0
        for given in layout.inputs:
            checked = given.checked
            if given.binary_size is None:
                data = json_tensor(checked, given.data)
            else:
                end = at + given.binary_size
                data = binary_tensor(checked, binary[at:end])
                at = end
            inputs[checked.spec.name] = (checked.shape, data)
        return make_request(layout, layout.id, inputs, size)

    def encode(
        self, request: InferRequest, result: Result, start: int | None
    ) -> tuple[int | None, bytes]:
        """The response's body, and the length of its JSON where binary tensors follow.

        The request's rows begin at `start`; None means that the whole result is its own.
        """
        rows = None if start is None else request.rows
        templates = self._templates.of(request.outputs, result, rows)
        if start is None:
            return write_answer(self._opening, templates, result, request.id, 0, 1)
        return write_answer(self._opening, templates, result, request.id, start, request.rows)


def make_request(layout: Layout, identity: str, inputs: Inputs, size: int) -> InferRequest:
    """A request of this layout with its id and its tensors' data."""
    return InferRequest(
        identity,
        inputs,
        layout.outputs,
        layout.rows,
        layout.batch_key,
        size,
        layout.timeout,
        layout.final,
    )


def refuse_unsupported(name: str, told: TensorParameters | None) -> None:
    """Raise for what other servers can do with a tensor and this one cannot."""
    if told is not None and told.shared_memory_region is not None:
        raise RequestError(501, f'"{name}": shared memory is not supported; send the data')
    if told is not None and told.classification is not None:
        raise RequestError(501, f'"{name}": classification is not supported; ask for the scores')


def check_same_rows(inputs: Sequence[InputHeader]) -> None:
    """Raise when the inputs of a batch differ in their number of rows."""
    if len({given.shape[0] for given in inputs}) > 1:
        told = ", ".join(f'"{given.name}" {given.shape[0]}' for given in inputs)
        raise RequestError(400, f"all inputs must have the same number of rows, got {told}")


def names(specs: Sequence[TensorSpec]) -> str:
    """The names of tensors as messages list them."""
    return ", ".join(f'"{spec.name}"' for spec in specs)
