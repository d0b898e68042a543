"""Putting the inputs of several calls together into the arrays that an engine runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort_server.batch.call import HasInputs, TensorData
from kohort_server.buffers import SMALLEST_SLOT, Buffers
from kohort_server.datatypes import BYTES, FIXED_SIZE
from kohort_server.engine.interface import Signature


def assemble(
    signature: Signature, calls: Sequence[HasInputs], rows: int, buffers: Buffers
) -> dict[str, NDArray[Any]]:
    """One array per input with the rows of all calls in order; `rows` is their sum."""
    if len(calls) == 1:
        only = calls[0].inputs
        return {spec.name: as_array(spec.datatype, *only[spec.name]) for spec in signature.inputs}
    arrays: dict[str, NDArray[Any]] = {}
    for spec in signature.inputs:
        name = spec.name
        parts: list[Any] = [call.inputs[name][1] for call in calls]
        if spec.datatype == BYTES:
            arrays[name] = np.concatenate(parts)
        else:
            shape = (rows, *calls[0].inputs[name][0][1:])
            joined = np.frombuffer(join(parts, buffers), FIXED_SIZE[spec.datatype].dtype)
            arrays[name] = joined.reshape(shape)
    return arrays


def join(parts: Sequence[TensorData], buffers: Buffers) -> TensorData:
    """All parts in one piece of memory; a large one is used again."""
    size = 0
    for part in parts:
        size += len(part)
    if size < SMALLEST_SLOT:
        return b"".join(parts)
    joined = buffers.take(size)
    at = 0
    for part in parts:
        end = at + len(part)
        joined[at:end] = part
        at = end
    return joined


def as_array(
    datatype: str, shape: tuple[int, ...], data: bytes | memoryview | NDArray[Any]
) -> NDArray[Any]:
    """The tensor as an array; a buffer is copied only where its elements lie unaligned."""
    if isinstance(data, np.ndarray):
        return data
    array = np.frombuffer(data, FIXED_SIZE[datatype].dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()
