"""Protocol buffers from and to plain values, after the schema.

A message is a dict without the fields that have their default. Numbers of a repeated field are one
array, strings and messages a list, a map a dict, an enum the name of its value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort_server.rpc.schema import Field, enum_values, message

Message = bytes | memoryview
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
FLOATS = {"double": (FIXED64, "<f8"), "float": (FIXED32, "<f4")}
INTEGERS = {"bool": "?", "int32": "<i4", "int64": "<i8", "uint32": "<u4", "uint64": "<u8"}
MOST_VARINT_BYTES = 10
DEEPEST = 32  # messages within messages
MOST_FIELDS = 100_000  # of a message with all in it: each takes about a microsecond


class ProtobufError(Exception):
    """Bytes that are no message."""


class Bounds:
    """What one message with all in it may still hold, and how deep in it something is."""

    __slots__ = ("depth", "fields")

    def __init__(self) -> None:
        self.fields = MOST_FIELDS
        self.depth = 0


def read_varint(data: Message, at: int) -> tuple[int, int]:
    """A variable-length integer at `at`, and where it ends."""
    value = shift = 0
    for at in range(at, min(at + MOST_VARINT_BYTES, len(data))):  # noqa: B020 (goes on from it)
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + 1
        shift += 7
    raise ProtobufError("the message ends within a number, or a number is too long")


def fields(data: Message, bounds: Bounds) -> Iterable[tuple[int, int, Any]]:
    """(number, wire type, value) of every field in order; a delimited value is a piece of `data`."""
    at = 0
    end = len(data)
    while at < end:
        bounds.fields -= 1
        if bounds.fields < 0:
            raise ProtobufError(f"it has more than {MOST_FIELDS} fields; send tensors raw")
        tag = data[at]  # one byte for most fields
        at += 1
        if tag >= 0x80:
            tag, at = read_varint(data, at - 1)
        wire = tag & 7
        value: Any
        if wire == VARINT:
            value, at = read_varint(data, at)
        elif wire == DELIMITED:
            size, at = read_varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            value, at = data[at : at + size], at + size
        else:
            raise ProtobufError(f"wire type {wire} is not supported")
        if at > end:
            raise ProtobufError("the message ends within a field")
        yield tag >> 3, wire, value


def decode(name: str, data: Message, bounds: Bounds | None = None) -> dict[str, Any]:
    """A message by its full name; fields that the schema does not have are passed over."""
    bounds = bounds or Bounds()
    bounds.depth += 1
    if bounds.depth > DEEPEST:
        raise ProtobufError("messages are nested too deeply")
    known = {field.number: field for field in message(name)}
    pieces: dict[Field, list[tuple[int, Any]]] = {}
    for number, wire, value in fields(data, bounds):
        if field := known.get(number):
            pieces.setdefault(field, []).append((wire, value))
    told = {field.name: decode_field(field, found, bounds) for field, found in pieces.items()}
    bounds.depth -= 1
    return told


def decode_field(field: Field, pieces: list[tuple[int, Any]], bounds: Bounds) -> Any:
    """A field's value from all its occurrences."""
    if field.mapped:
        return dict(decode_entry(field, value, bounds) for _, value in pieces)
    if field.kind in FLOATS or field.kind in INTEGERS:
        numbers = [decode_numbers(field.kind, wire, value) for wire, value in pieces]
        array = numbers[0] if len(numbers) == 1 else np.concatenate(numbers)
        if field.repeated:
            return array
        return array[-1].item() if len(array) else 0
    values = [decode_value(field.kind, wire, value, bounds) for wire, value in pieces]
    return values if field.repeated else values[-1]


def decode_value(kind: str, wire: int, value: Any, bounds: Bounds) -> Any:
    """A string, bytes, an enum or a message."""
    if (names := enum_values(kind)) is not None:
        return names[value] if wire == VARINT and value < len(names) else names[0]
    if wire != DELIMITED:
        raise ProtobufError(f"wire type {wire} is not of a {kind}")
    if kind == "string":
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError as error:
            raise ProtobufError("a string is not UTF-8") from error
    return value if kind == "bytes" else decode(kind, value, bounds)


def decode_entry(field: Field, data: Any, bounds: Bounds) -> tuple[str, Any]:
    """One entry of a map."""
    key, value = "", {}
    if isinstance(data, int):
        raise ProtobufError("an entry of a map is no message")
    for number, wire, piece in fields(data, bounds):
        if number == 1:
            key = decode_value("string", wire, piece, bounds)
        elif number == 2:
            value = decode_value(field.kind, wire, piece, bounds)
    return key, value


def decode_numbers(kind: str, wire: int, value: Any) -> NDArray[Any]:
    """Numbers, packed or one."""
    if kind in FLOATS:
        fixed, dtype = FLOATS[kind]
        if wire not in (fixed, DELIMITED) or len(value) % np.dtype(dtype).itemsize:
            raise ProtobufError(f"a {kind} has a wrong size")
        return np.frombuffer(value, dtype)
    if wire == VARINT:
        unsigned = np.array([value], "<u8")
    elif wire == DELIMITED:
        unsigned = unpack_varints(value)
    else:
        raise ProtobufError(f"wire type {wire} is not of a {kind}")
    return unsigned.astype(INTEGERS[kind])


def unpack_varints(data: Message) -> NDArray[np.uint64]:
    """All integers that are packed in `data`."""
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80) + 1
    if len(raw) and (not len(ends) or ends[-1] != len(raw)):
        raise ProtobufError("the message ends within a number")
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)]
    sizes = ends - starts
    if sizes.max(initial=0) > MOST_VARINT_BYTES:
        raise ProtobufError("a number is too long")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(sizes.max(initial=0))):
        longer = sizes > place
        bits = raw[starts[longer] + place].astype(np.uint64) & np.uint64(0x7F)
        values[longer] |= bits << np.uint64(7 * place)
    return values


def pack_varints(values: NDArray[Any]) -> bytes:
    """Integers or booleans, packed; negative ones take ten bytes."""
    unsigned = values.astype(np.int64).view(np.uint64) if values.dtype.kind in "ib" else values
    unsigned = unsigned.reshape(-1).astype(np.uint64)
    sizes = np.ones(len(unsigned), np.int64)
    for place in range(1, MOST_VARINT_BYTES):
        sizes += unsigned >= np.uint64(1 << (7 * place))
    ends = np.cumsum(sizes)
    packed = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    for place in range(int(sizes.max(initial=0))):
        longer = sizes > place
        bits = unsigned[longer] >> np.uint64(7 * place) & np.uint64(0x7F)
        more = np.where(sizes[longer] > place + 1, 0x80, 0)
        packed[(ends - sizes)[longer] + place] = bits.astype(np.uint8) | more.astype(np.uint8)
    return packed.tobytes()


def varint(value: int) -> bytes:
    """A variable-length integer; a negative one as its two's complement."""
    value &= 0xFFFFFFFFFFFFFFFF
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def delimited(number: int, data: Message) -> bytes:
    """A field with a length before its data."""
    return b"".join((varint(number << 3 | DELIMITED), varint(len(data)), data))


def encode(name: str, values: dict[str, Any]) -> bytes:
    """A message by its full name from a dict; raises `KeyError` for what it has no field for."""
    known = {field.name: field for field in message(name)}
    return b"".join(encode_field(known[key], value) for key, value in values.items())


def encode_field(field: Field, value: Any) -> bytes:
    """A field with all that it holds; nothing for an empty one."""
    number, kind = field.number, field.kind
    if field.mapped:
        return b"".join(
            delimited(number, delimited(1, key.encode()) + delimited(2, encode(kind, entry)))
            for key, entry in value.items()
        )
    if field.repeated and kind in FLOATS:
        packed = np.asarray(value, FLOATS[kind][1]).tobytes()
        return delimited(number, packed) if packed else b""
    if field.repeated and kind in INTEGERS:
        packed = pack_varints(np.asarray(value, INTEGERS[kind]))
        return delimited(number, packed) if packed else b""
    return b"".join(encode_one(number, kind, one) for one in (value if field.repeated else [value]))


def encode_one(number: int, kind: str, value: Any) -> bytes:
    """One value with its tag."""
    if kind in FLOATS:
        wire, dtype = FLOATS[kind]
        return varint(number << 3 | wire) + struct.pack(
            dtype.replace("f8", "d").replace("f4", "f"), value
        )
    if kind in INTEGERS:
        return varint(number << 3) + varint(int(value))
    if (names := enum_values(kind)) is not None:
        return varint(number << 3) + varint(names.index(value))
    if kind == "string":
        return delimited(number, value.encode())
    return delimited(number, value if kind == "bytes" else encode(kind, value))
