"""What the batcher takes and gives back: one call of the model on behalf of one request."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

# A tensor that came over the wire stays the buffer it came in (row-major, little-endian) until its
# batch is put together: joining buffers is several times cheaper than making and joining arrays.
# BYTES has no fixed size and comes as an object array.
TensorData = bytes | memoryview
Shape = tuple[int, ...]
# By name: shape and data.
Inputs = dict[str, tuple[Shape, TensorData | NDArray[Any]]]


class Result:
    """The outputs of one batch, shared by the calls that ran in it."""

    __slots__ = ("_bytes", "_lists", "arrays", "shapes")

    def __init__(self, arrays: dict[str, NDArray[Any]], shared: bool = False) -> None:
        """`shared` where the first extent is the rows of several calls."""
        self.arrays = arrays
        # What the answers of different batches may have in common: shapes but for those rows.
        self.shapes = tuple([array.shape[shared:] for array in arrays.values()])
        self._lists: dict[str, list[Any]] = {}
        self._bytes: dict[str, bytes] = {}

    def flat_list(self, name: str) -> list[Any]:
        """All elements of an output in row-major order; made once per batch."""
        values = self._lists.get(name)
        if values is None:
            values = self._lists[name] = self.arrays[name].reshape(-1).tolist()
        return values

    def flat_bytes(self, name: str) -> bytes:
        """All of a fixed-size output's elements in row-major order; made once per batch."""
        data = self._bytes.get(name)
        if data is None:
            data = self._bytes[name] = self.arrays[name].tobytes()
        return data


class HasInputs(Protocol):
    """What can be put together in a batch."""

    inputs: Inputs


class Call(HasInputs, Protocol):
    """A decoded request that waits for the model.

    `rows` is the batch extent, 1 where the model has none. `batch_key` is equal for calls whose
    shapes agree but for the rows.
    """

    rows: int
    size: int  # bytes held while waiting
    batch_key: Any
    abandoned: bool  # the client has gone: not worth running
    received: float  # time.perf_counter when it was complete
    deadline: float  # time.perf_counter after which nobody waits for it; may be infinite

    def deliver(self, result: Result, start: int | None) -> None:
        """Take rows `start` to `start + rows` of a result, or all of it where start is None."""

    def fail(self, error: Exception) -> None:
        """Take an error instead."""
