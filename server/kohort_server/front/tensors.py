"""One tensor of a request: its elements from JSON or from bytes, checked against what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import error as StructError
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kohort_server.batch.call import Shape, TensorData
from kohort_server.engine.interface import TensorSpec, describe
from kohort_server.errors import RequestError
from kohort_server.front.wire import INVALID_JSON, unpack_bytes

_decode_any = msgspec.json.Decoder().decode


class ElementKind(msgspec.Struct):
    """How elements of one kind are read from JSON: a flat list at once, or converted one by one."""

    decode_list: Callable[[msgspec.Raw], list[Any]]
    type: type[Any]


def element_kind(element: type[Any]) -> ElementKind:
    """The way to read elements of a Python type."""
    return ElementKind(msgspec.json.Decoder(list[element]).decode, element)  # type: ignore[valid-type]


STRINGS = element_kind(str)
KINDS = {kind: element_kind(kind) for kind in (bool, int, float)}


class CheckedInput(msgspec.Struct):
    """An input whose name, datatype and shape fit the model, and what decodes its elements."""

    spec: TensorSpec
    shape: Shape
    count: int
    size: int | None  # bytes; None for BYTES
    kind: ElementKind
    pack: Callable[..., bytes] | None  # numbers to a buffer; None for BYTES


def json_tensor(wanted: CheckedInput, data: msgspec.Raw) -> TensorData | NDArray[Any]:
    """An input whose data is JSON, flat or nested."""
    try:
        values = wanted.kind.decode_list(data)
    except INVALID_JSON:
        values = nested_values(wanted, data)
    if len(values) != wanted.count:
        raise RequestError(
            400,
            f'input "{wanted.spec.name}": shape {describe(wanted.shape)} wants {wanted.count} '
            f"elements, data has {len(values)}",
        )
    if wanted.pack is None:
        return object_array([value.encode() for value in values], wanted.shape)
    try:
        # For short lists several times faster than making an array.
        return wanted.pack(*values)
    except (StructError, OverflowError) as error:
        raise RequestError(
            400, f'input "{wanted.spec.name}": a value does not fit {wanted.spec.datatype}: {error}'
        ) from error


def nested_values(wanted: CheckedInput, data: msgspec.Raw) -> list[Any]:
    """The elements of nested lists, whose extents must be the shape's."""
    name = wanted.spec.name
    try:
        level: Any = [_decode_any(data)]
    except INVALID_JSON as error:
        raise RequestError(400, f'input "{name}": {error}') from error
    for extent in wanted.shape:
        if not all(isinstance(part, list) and len(part) == extent for part in level):
            raise RequestError(
                400,
                f'input "{name}": data is neither a flat list of {wanted.spec.datatype} values '
                f"nor nested as its shape {describe(wanted.shape)}",
            )
        level = [value for part in level for value in part]
    try:
        return msgspec.convert(level, list[wanted.kind.type])  # type: ignore[name-defined]
    except (msgspec.ValidationError, OverflowError) as error:
        raise RequestError(400, f'input "{name}": {error}') from error


def binary_tensor(wanted: CheckedInput, data: TensorData) -> TensorData | NDArray[Any]:
    """An input that came in binary: its bytes as they are, strings as an object array."""
    if wanted.pack is None:
        return object_array(unpack_bytes(wanted.spec.name, data, wanted.count), wanted.shape)
    if wanted.spec.datatype == "BOOL" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise RequestError(400, f'input "{wanted.spec.name}": a BOOL byte is neither 0 nor 1')
    return data


def object_array(values: Sequence[Any], shape: Shape) -> NDArray[Any]:
    """Strings as an array of objects."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)
