"""The datatypes of the Open Inference Protocol and how each is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BYTES = "BYTES"


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype of fixed size: its numpy type (little-endian) and its code for `struct`."""

    name: str
    dtype: np.dtype[Any]
    code: str

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize


FIXED_SIZE: dict[str, Datatype] = {
    name: Datatype(name, np.dtype(numpy_code), struct_code)
    for name, numpy_code, struct_code in (
        ("BOOL", "?", "?"),
        ("UINT8", "<u1", "B"),
        ("UINT16", "<u2", "H"),
        ("UINT32", "<u4", "I"),
        ("UINT64", "<u8", "Q"),
        ("INT8", "<i1", "b"),
        ("INT16", "<i2", "h"),
        ("INT32", "<i4", "i"),
        ("INT64", "<i8", "q"),
        ("FP16", "<f2", "e"),
        ("FP32", "<f4", "f"),
        ("FP64", "<f8", "d"),
    )
}
NAMES = frozenset({*FIXED_SIZE, BYTES})


def element_count(shape: Sequence[int]) -> int:
    """How many elements a tensor of this shape has; 1 for a scalar's empty shape."""
    count = 1
    for extent in shape:
        count *= extent
    return count
