"""What every engine offers: its signature, and one call that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: a datatype of the protocol and a shape in which -1 is any extent."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BatchDimension:
    """What the first dimension of a model's inputs means.

    `dynamic`: rows are independent and any number may be sent, so that requests can share a batch.
    `fixed`: the model was exported for exactly `size` rows.
    `none`: the first dimension is not a batch; every request runs alone.
    """

    kind: Literal["dynamic", "fixed", "none"]
    size: int = 0


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs and outputs, in the model's own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    inputs_by_name: dict[str, TensorSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs_by_name", {spec.name: spec for spec in self.inputs})

    def batch_dimension(self) -> BatchDimension:
        """What the shapes alone say about the first dimension; warm-up verifies `dynamic`."""
        first = {spec.shape[0] if spec.shape else 0 for spec in (*self.inputs, *self.outputs)}
        if first == {-1}:
            return BatchDimension("dynamic")
        leading = {spec.shape[0] if spec.shape else 0 for spec in self.inputs}
        if len(leading) == 1 and (size := leading.pop()) > 0:
            return BatchDimension("fixed", size)
        return BatchDimension("none")


class InputError(Exception):
    """The engine cannot take these inputs; the message is for the client."""


class Engine(Protocol):
    """A loaded model. `run` is called by one thread at a time."""

    batch: BatchDimension  # what the first dimension means; warm-up corrects it

    @property
    def name(self) -> str:
        """The platform as the protocol's model metadata tells it, such as `onnxruntime_onnx`."""

    @property
    def precision(self) -> str:
        """The precision that it really computes in, such as FP32 or BF16."""

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs."""

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs for these inputs, C-contiguous, BYTES as object arrays of `str` or `bytes`.

        Raises `InputError` for inputs that the model cannot take, anything else for a failure.
        """


def describe(shape: Sequence[int]) -> str:
    """A shape as messages show it."""
    return str(list(shape))


def same_extents(wanted: Sequence[int], got: Sequence[int]) -> bool:
    """Whether a tensor's shape fits a specification in which -1 is any extent."""
    return len(wanted) == len(got) and all(
        extent in (-1, actual) for extent, actual in zip(wanted, got, strict=True)
    )
