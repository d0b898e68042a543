"""The inputs that a model is asked for its answers with: given in a file, or drawn from its signature."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort.contract import FailureReason
from kohort_server.batch.calibration import sample_inputs
from kohort_server.datatypes import BYTES, FIXED_SIZE
from kohort_server.engine.interface import (
    BatchDimension,
    Signature,
    TensorSpec,
    describe,
    same_extents,
)
from kohort_server.errors import StartFailure

MAX_GOLDEN_BYTES = 4 << 30  # unpacked
DRAWN = "drawn from the signature"
DRAWN_ROWS = 64
SEED = 20
# Rows of floating point are drawn in these sizes in turn: models are asked what is ordinary, and what is not.
SIZES = (1.0, 0.1, 10.0, 0.0)


# What zipfile, zlib and numpy raise over files that are broken, encrypted, or claim to be huge.
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    struct.error,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs by name, whose first dimension counts the samples.

    `whole`: the model has no batch dimension, so that each sample is all that one run takes.
    """

    source: str
    inputs: dict[str, NDArray[Any]]
    samples: int
    whole: bool = False

    def batches(self, sizes: Sequence[int]) -> Iterator[tuple[list[int], dict[str, NDArray[Any]]]]:
        """Samples by number and their inputs, in batches of these sizes: all of them in the largest."""
        start = 0
        for size in sizes[:-1]:
            yield self._batch(start, size)
            start += size
        for start in range(0, self.samples, sizes[-1]):
            yield self._batch(start, sizes[-1])

    def count(self, sizes: Sequence[int]) -> int:
        """How many batches `batches` gives."""
        return len(sizes) - 1 + math.ceil(self.samples / sizes[-1])

    def _batch(self, start: int, size: int) -> tuple[list[int], dict[str, NDArray[Any]]]:
        # The last batch is filled up with the first samples: a batch has its size exactly.
        rows = [(start + number) % self.samples for number in range(size)]
        if self.whole:
            return rows, {name: np.asarray(array[rows[0]]) for name, array in self.inputs.items()}
        return rows, {
            name: np.ascontiguousarray(array[rows]) for name, array in self.inputs.items()
        }


def drawn(signature: Signature, extent: int, batch: BatchDimension) -> Golden:
    """Samples made from the model's own signature, the same for the same signature.

    `extent`: of dimensions that are not known, other than the batch.
    """
    if batch.kind == "none":
        one = sample_inputs(signature, 1, extent, SEED)
        return Golden(DRAWN, {name: array[None] for name, array in one.items()}, 1, whole=True)
    # A model of exactly n rows has its samples drawn n at a time.
    at_once = batch.size if batch.kind == "fixed" else DRAWN_ROWS
    parts = [
        sample_inputs(signature, at_once, extent, SEED + number)
        for number in range(math.ceil(DRAWN_ROWS / at_once))
    ]
    inputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for array in inputs.values():
        if array.dtype.kind == "f":
            for row in range(len(array)):
                array[row] *= array.dtype.type(SIZES[row % len(SIZES)])
    return Golden(DRAWN, inputs, at_once * len(parts))


def read(path: Path, signature: Signature, whole: bool = False) -> Golden:
    """Samples from an .npz file with an array per input; nothing in it is unpickled.

    Raises `StartFailure` with ModelInvalid for a file that does not fit the model.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_GOLDEN_BYTES:
            raise unfit(
                path,
                f"unpacks to {unpacked} bytes, more than {MAX_GOLDEN_BYTES}; give fewer samples",
            )
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in signature.inputs_by_name if name in file.files}
            names = ", ".join(file.files) or "nothing"
    except UNREADABLE as error:
        raise unfit(path, f"is not a file of numpy.savez with plain arrays ({error})") from error
    for spec in signature.inputs:
        if spec.name not in arrays:
            raise unfit(
                path, f'has no array "{spec.name}", which the model wants (it has: {names})'
            )
        arrays[spec.name] = fitting(path, spec, arrays[spec.name], whole)
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise unfit(
            path,
            f"has arrays of {' and '.join(map(str, sorted(counts)))} samples; give each one the same",
        )
    return Golden(path.name, arrays, counts.pop(), whole)


def fitting(path: Path, spec: TensorSpec, array: NDArray[Any], whole: bool) -> NDArray[Any]:
    """The array in the type that the input has."""
    wanted = (-1, *(spec.shape if whole else spec.shape[1:]))
    if not same_extents(wanted, array.shape):
        what = (
            f'has the shape {describe(array.shape)} for "{spec.name}", which is {describe(wanted)}'
        )
        raise unfit(path, what)
    if spec.datatype == BYTES:
        if array.dtype.kind not in "US":
            raise unfit(path, f'has {array.dtype} for "{spec.name}", which takes strings')
        return array.astype(object)
    dtype = FIXED_SIZE[spec.datatype].dtype
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise unfit(path, f'has {array.dtype} for "{spec.name}", which is {dtype}')
    return array.astype(dtype)


def unfit(path: Path, what: str) -> StartFailure:
    """The failure of golden inputs that cannot be used."""
    return StartFailure(FailureReason.MODEL_INVALID, f"the golden inputs {path.name}: {what}")
