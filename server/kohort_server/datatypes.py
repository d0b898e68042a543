"""The datatypes of the Open Inference Protocol and how each is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import ml_dtypes
import numpy as np

BYTES = "BYTES"


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype of fixed size: its numpy type (little-endian) and its code for `struct`.

    `struct` has no BF16: there the code is that of the float it is cut from.
    """

    name: str
    dtype: np.dtype[Any]
    code: str

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def element(self) -> type[bool] | type[int] | type[float]:
        """What an element is in Python."""
        return float if self.code in "efd" else bool if self.code == "?" else int

    def packer(self, count: int) -> Callable[..., bytes]:
        """Makes a buffer of so many numbers; raises `struct.error` or `OverflowError` for others.

        Raises `struct.error` itself for more than any memory holds.
        """
        pack = Struct(f"<{count}{self.code}").pack
        return pack if self.dtype != BFLOAT16 else lambda *values: to_bfloat16(pack(*values))


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

FIXED_SIZE: dict[str, Datatype] = {
    name: Datatype(name, np.dtype(numpy_type), struct_code)
    for name, numpy_type, struct_code in (
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
        ("BF16", BFLOAT16, "f"),
        ("FP32", "<f4", "f"),
        ("FP64", "<f8", "d"),
    )
}
NAMES = frozenset({*FIXED_SIZE, BYTES})


def to_bfloat16(floats: bytes) -> bytes:
    """FP32 numbers as BF16; raises `OverflowError` for those that are finite and too large."""
    wide = np.frombuffer(floats, "<f4")
    cut = wide.astype(BFLOAT16)
    if not np.isfinite(cut[np.isfinite(wide)]).all():
        raise OverflowError("float too large to pack with bfloat16 format")
    return cut.tobytes()


def element_count(shape: Sequence[int]) -> int:
    """How many elements a tensor of this shape has; 1 for a scalar's empty shape."""
    count = 1
    for extent in shape:
        count *= extent
    return count
