"""Between a model's inputs and what transforms work on: pictures from black to white, tables, texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort_server.datatypes import BYTES
from kohort_server.engine.interface import Signature
from kohort_server.gates.errors import GateError
from kohort_server.gates.pictures import Pictures
from kohort_server.gates.samples import Samples
from kohort_server.gates.spec import Metamorphic, Order, Picture
from kohort_server.gates.transforms import CHANGES, Change, Family

CHUNK_VALUES = 1 << 22  # of pictures that are changed at once: they are wide while that is done
SEED = 8
SLACK = 1e-3  # by which values may be out of range: of rounding


@dataclass(frozen=True, slots=True)
class Layout:
    """How one input holds pictures: its shape without the samples, and what its values mean."""

    input: str
    shape: tuple[int, ...]
    height: int
    width: int
    channels: int
    picture: Picture

    def chunks(self, count: int) -> Iterator[slice]:
        """The parts in which so many pictures are worked on: memory is bounded."""
        some = max(1, CHUNK_VALUES // (self.height * self.width * self.channels))
        for start in range(0, count, some):
            yield slice(start, min(start + some, count))

    def pictures(self, array: NDArray[Any]) -> Pictures:
        """[n, height, width, channels] from black at 0 to white at 1; copies."""
        n, low, high = len(array), *self.picture.range
        if self.picture.channels is Order.FIRST:
            told = array.reshape(n, self.channels, self.height, self.width).transpose(0, 2, 3, 1)
        else:
            told = array.reshape(n, self.height, self.width, self.channels)
        values = told.astype(np.float64) * np.array(self.picture.std) + np.array(self.picture.mean)
        pictures: Pictures = (values - low) / (high - low)
        return pictures

    def array(self, pictures: Pictures, dtype: np.dtype[Any]) -> NDArray[Any]:
        """What the input takes."""
        low, high = self.picture.range
        values = pictures * (high - low) + low
        values = (values - np.array(self.picture.mean)) / np.array(self.picture.std)
        if self.picture.channels is Order.FIRST:
            values = values.transpose(0, 3, 1, 2)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = np.clip(np.round(values), limits.min, limits.max)
        return np.ascontiguousarray(values.reshape(len(pictures), *self.shape).astype(dtype))


def layout_of(picture: Picture, signature: Signature, samples: Samples) -> Layout:
    """Where the pictures are; raises `GateError` where what was said does not fit the input."""
    name = input_named(picture.input, signature)
    shape = samples.golden.inputs[name].shape[1:]
    first = picture.channels is Order.FIRST
    if picture.height:
        height, width = picture.height, picture.width
    elif len(shape) == 3:
        height, width = shape[1:] if first else shape[:2]
    else:
        raise GateError(
            f'"{name}" has the shape {list(shape)} for each sample; say the picture\'s height and width'
        )
    size = math.prod(shape)
    if not size or size % (height * width):
        raise GateError(
            f'"{name}" has {size} values for each sample, which is no picture of {height}×{width}'
        )
    channels = size // (height * width)
    wanted = (channels, height, width) if first else (height, width, channels)
    if len(shape) == 3 and tuple(shape) != wanted:
        raise GateError(
            f'"{name}" has the shape {list(shape)} for each sample, and with channels: {picture.channels} '
            f"that of a picture is {list(wanted)}"
        )
    for told, numbers in (("mean", picture.mean), ("std", picture.std)):
        if len(numbers) not in (1, channels):
            raise GateError(f"{told} has {len(numbers)} numbers for {channels} channels")
    return Layout(name, tuple(shape), height, width, channels, picture)


def check_values(layout: Layout, array: NDArray[Any]) -> None:
    """Raise `GateError` for pictures that are outside of their range."""
    low, high = layout.picture.range
    for some in layout.chunks(len(array)):
        values = layout.pictures(array[some])
        least, most = float(values.min()), float(values.max())
        if least < -SLACK or most > 1 + SLACK:
            raise GateError(
                f'"{layout.input}" has values from {least * (high - low) + low:g} to '
                f"{most * (high - low) + low:g}, outside the picture's range of {low:g} to {high:g}; correct "
                "range, mean and std"
            )


def input_named(name: str, signature: Signature) -> str:
    """An input's name; the only one where none is given."""
    names = [spec.name for spec in signature.inputs]
    if name and name not in names:
        raise GateError(f'the model has no input "{name}"; it has: {", ".join(names)}')
    if not name and len(names) != 1:
        raise GateError(f"the model has several inputs ({', '.join(names)}); say which with input")
    return name or names[0]


def transformed(
    gate: Metamorphic, samples: Samples, signature: Signature, picture: Picture | None
) -> Samples:
    """The samples after the gate's transform; the same for the same samples.

    Raises `GateError` where the transform does not fit, or changes none of them.
    """
    change = CHANGES[gate.transform]
    amount = float(gate.amount if gate.amount is not None else change.usual or 0.0)
    if change.family is Family.PICTURE:
        if picture is None:
            raise GateError(
                f"{gate.transform} is for pictures: say in dataset.picture how they lie"
            )
        layout = layout_of(picture, signature, samples)
        name = layout.input
        array = samples.golden.inputs[name]
        check_values(layout, array)
        after = changed_pictures(change, layout, array, amount)
    else:
        name = input_named(gate.input, signature)
        array = samples.golden.inputs[name]
        text = signature.inputs_by_name[name].datatype == BYTES
        if text != (change.family is Family.TEXT):
            held = "text" if text else "numbers"
            raise GateError(
                f'{gate.transform} is for {change.family.value}, and "{name}" holds {held}'
            )
        if change.family is Family.TEXT:
            after = changed_texts(change, array, amount)
        else:
            after = changed_table(change, name, array, gate.columns, amount)
    if array.dtype.kind == "f":
        same = np.array_equal(after, array, equal_nan=True)
    else:
        same = bool(np.array_equal(after, array))
    if same:
        raise GateError(f"{gate.transform} changes none of these samples, so that it shows nothing")
    return samples.with_input(name, after)


def changed_pictures(
    change: Change, layout: Layout, array: NDArray[Any], amount: float
) -> NDArray[Any]:
    """Pictures after a transform, some at a time."""
    after = np.empty_like(array)
    for some in layout.chunks(len(array)):
        done = change.of(layout.pictures(array[some]), amount, SEED + some.start)
        after[some] = layout.array(done, array.dtype)
    return after


def changed_texts(change: Change, array: NDArray[Any], amount: float) -> NDArray[Any]:
    """Texts after a transform: object arrays of ``str`` or ``bytes``, as they were."""
    random = np.random.default_rng(SEED)
    after = np.empty(array.size, object)
    for at, text in enumerate(array.reshape(-1)):
        if isinstance(text, bytes):
            try:
                after[at] = change.of(text.decode(), amount, random).encode()
            except UnicodeDecodeError as error:
                raise GateError(f"a text of the golden data is not UTF-8: {text[:40]!r}") from error
        else:
            after[at] = change.of(str(text), amount, random)
    return after.reshape(array.shape)


def changed_table(
    change: Change, name: str, array: NDArray[Any], columns: tuple[int, ...], amount: float
) -> NDArray[Any]:
    """A table after a transform of some columns."""
    table = array[:, None] if array.ndim == 1 else array
    if table.ndim != 2 or table.dtype.kind not in "iuf":
        raise GateError(
            f'"{name}" is {array.dtype} of the shape {list(array.shape)}, and no table of numbers'
        )
    if columns and max(columns) >= table.shape[1]:
        raise GateError(
            f'"{name}" has {table.shape[1]} columns, from 0 on; there is no column {max(columns)}'
        )
    chosen = sorted(set(columns)) or list(range(table.shape[1]))
    after: NDArray[Any] = change.of(table, chosen, amount, SEED)
    return after.reshape(array.shape)
