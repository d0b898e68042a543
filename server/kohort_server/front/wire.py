"""The JSON of the Open Inference Protocol as typed structures, and its string tensors in binary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec

from kohort_server.errors import RequestError

# What msgspec raises for bytes that are not the JSON that is wanted.
INVALID_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
LENGTH_PREFIX = 4  # bytes before every BYTES element: its length, little-endian


# JSON has numbers of any size.
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class TensorParameters(msgspec.Struct):
    """What may be said about one input or requested output."""

    binary_data_size: Int64 | None = None
    binary_data: bool | None = None
    classification: int | None = None
    shared_memory_region: str | None = None


class InputHeader(msgspec.Struct):
    """One input; `data` stays raw JSON until its datatype is known."""

    name: str
    shape: tuple[Int64, ...]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: TensorParameters | None = None


class RequestedOutput(msgspec.Struct):
    """An output that the client wants, and how."""

    name: str
    parameters: TensorParameters | None = None


class RequestParameters(msgspec.Struct):
    """What may be said about the whole request."""

    binary_data_output: bool = False
    timeout: Int64 | None = None  # microseconds
    triton_enable_empty_final_response: bool = False


class RequestHeader(msgspec.Struct):
    """An inference request, without the binary tensors that may follow it."""

    inputs: list[InputHeader]
    id: str = ""
    outputs: list[RequestedOutput] | None = None
    parameters: RequestParameters | None = None


def unpack_bytes(name: str, data: bytes | memoryview, count: int) -> list[bytes]:
    """The elements of a binary BYTES tensor, which must fill `data` exactly."""
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        if len(elements) == count:
            raise RequestError(
                400, f'input "{name}": more strings than the {count} that its shape wants'
            )
        start = at + LENGTH_PREFIX
        end = start + int.from_bytes(data[at:start], "little")
        if end > len(data) or start > len(data):
            raise RequestError(
                400, f'input "{name}": the length before element {len(elements)} exceeds the data'
            )
        elements.append(bytes(data[start:end]))
        at = end
    if len(elements) != count:
        raise RequestError(
            400, f'input "{name}": {count} strings wanted by its shape, got {len(elements)}'
        )
    return elements


def pack_bytes(elements: Iterable[str | bytes]) -> bytes:
    """A BYTES tensor in binary: every element with its length before it."""
    pieces: list[bytes] = []
    for element in elements:
        encoded = element.encode() if isinstance(element, str) else element
        pieces.append(len(encoded).to_bytes(LENGTH_PREFIX, "little"))
        pieces.append(encoded)
    return b"".join(pieces)
