"""Writing inference responses: what a batch's answers have in common is written once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from numpy.typing import NDArray

from kohort_server.batch.call import Result, Shape
from kohort_server.datatypes import BYTES, element_count
from kohort_server.engine.interface import TensorSpec
from kohort_server.errors import RequestError
from kohort_server.front.wire import pack_bytes

REMEMBERED = 256  # templates

encode_json = msgspec.json.Encoder().encode


class WantedOutput(msgspec.Struct, frozen=True):
    """An output to send back, and whether it goes in binary."""

    spec: TensorSpec
    binary: bool


class OutputTemplate(msgspec.Struct):
    """An output's JSON up to the value that differs between the answers of a batch.

    The value is `data`, or for binary the size of the data; `after` is what follows it.
    """

    name: str
    text: bool  # BYTES
    binary: bool
    row: int  # elements of one row; of all of them where the output is not split by rows
    item: int  # bytes of an element
    before: bytes
    after: bytes


Template = TypeVar("Template")
MakeTemplate = Callable[[Sequence[WantedOutput], Result, int | None], Template]


class Templates(Generic[Template]):
    """What answers have in common, by what requests ask for; made anew when outputs' shapes change."""

    def __init__(self, make: MakeTemplate[Template]) -> None:
        self._make = make
        self._made: dict[tuple[int, int | None], tuple[Any, tuple[Shape, ...], Template]] = {}

    def of(self, outputs: Sequence[WantedOutput], result: Result, rows: int | None) -> Template:
        """For answers of so many rows; None for a result that is not split by rows."""
        # What is remembered keeps the outputs alive, so that their identity stands for them.
        key = (id(outputs), rows)
        found = self._made.get(key)
        if found is not None and found[1] == result.shapes:
            return found[2]
        if len(self._made) >= REMEMBERED:
            self._made.clear()
        template = self._make(outputs, result, rows)
        self._made[key] = (outputs, result.shapes, template)
        return template


def opening(model: str, revision: str) -> bytes:
    """How every response begins."""
    told = encode_json({"model_name": model, "model_version": revision})
    return told[:-1] + b',"outputs":['


def output_templates(
    outputs: Sequence[WantedOutput], result: Result, rows: int | None
) -> list[OutputTemplate]:
    """Templates for answers of so many rows; None for a result that is not split by rows."""
    templates = []
    for wanted in outputs:
        spec = wanted.spec
        array = result.arrays[spec.name]
        row, shape = output_shape(array, rows)
        head = encode_json({"name": spec.name, "datatype": spec.datatype, "shape": shape})[:-1]
        value, after = (
            (b',"parameters":{"binary_data_size":', b"}}") if wanted.binary else (b',"data":', b"}")
        )
        templates.append(
            OutputTemplate(
                spec.name,
                spec.datatype == BYTES,
                wanted.binary,
                row,
                array.itemsize,
                head + value,
                after,
            )
        )
    return templates


def output_shape(array: NDArray[Any], rows: int | None) -> tuple[int, Shape]:
    """Elements per row, and the shape, of so many rows of an output; None for all of it."""
    if rows is None:
        return array.size, array.shape
    return element_count(array.shape[1:]), (rows, *array.shape[1:])


def write_answer(
    begin: bytes,
    templates: Sequence[OutputTemplate],
    result: Result,
    identity: str,
    start: int,
    rows: int,
) -> tuple[int | None, bytes]:
    """A response with rows `start` to `start + rows`, and its JSON's length where binary follows."""
    pieces = [begin]
    tail: list[bytes] = []
    for template in templates:
        first = start * template.row
        last = first + rows * template.row
        pieces.append(template.before)
        if template.binary:
            data = binary_data(template, result, first, last)
            tail.append(data)
            pieces.append(b"%d" % len(data))
        else:
            values = result.flat_list(template.name)[first:last]
            pieces.append(encode_json(text_values(template, values) if template.text else values))
        pieces.append(template.after)
        pieces.append(b",")
    pieces[-1] = b"]"
    pieces.append(b',"id":%b}' % encode_json(identity) if identity else b"}")
    if not tail:
        return None, b"".join(pieces)
    header = b"".join(pieces)
    return len(header), b"".join([header, *tail])


def binary_data(template: OutputTemplate, result: Result, first: int, last: int) -> bytes:
    """Elements of an output in the protocol's binary form."""
    if template.text:
        return pack_bytes(result.flat_list(template.name)[first:last])
    return result.flat_bytes(template.name)[first * template.item : last * template.item]


def text_values(template: OutputTemplate, values: Sequence[str | bytes]) -> list[str]:
    """Strings for JSON; raises `RequestError` for bytes that are no text."""
    try:
        return [value if isinstance(value, str) else value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise RequestError(
            400, f'output "{template.name}" is not UTF-8 text; ask for it with binary_data'
        ) from error
