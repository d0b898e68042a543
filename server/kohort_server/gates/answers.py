"""What a model says of each sample: scores of classes, a class, or a number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort_server.datatypes import BFLOAT16
from kohort_server.gates.errors import GateError

EVEN = 0.5  # from which score on a single score says yes


@dataclass(frozen=True, slots=True)
class Answers:
    """Of n samples. ``classes``: int64 [n]; ``scores``: float64 [n, classes]; ``values``: float64 [n]."""

    output: str
    classes: NDArray[np.int64] | None = None
    scores: NDArray[np.float64] | None = None
    values: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        for told in (self.classes, self.scores, self.values):
            if told is not None:
                return len(told)
        return 0

    def top(self) -> NDArray[np.int64]:
        """The class of each sample; raises `GateError` for answers that are numbers of another kind."""
        if self.classes is not None:
            return self.classes
        assert self.values is not None
        if not ((self.values >= 0) & (self.values <= 1)).all():
            raise GateError(
                f'the output "{self.output}" is one number per sample and no score from 0 to 1, so that it '
                "says no class; use RMSE, or name an output with a score per class"
            )
        return (self.values >= EVEN).astype(np.int64)

    def score_table(self) -> NDArray[np.float64]:
        """Scores of each class, [n, classes]; a single score is that of class 1 of two."""
        if self.scores is not None:
            return self.scores
        if self.values is None:
            raise GateError(
                f'the output "{self.output}" says a class and no scores; name one with a score per class'
            )
        return np.stack([1 - self.values, self.values], axis=1)

    def numbers(self) -> NDArray[np.float64]:
        """The number that each sample gets."""
        if self.values is None:
            raise GateError(
                f'the output "{self.output}" says classes and not one number per sample; name another output'
            )
        return self.values

    def confidence(self) -> NDArray[np.float64]:
        """How sure the model is of its own answer: its largest score."""
        largest: NDArray[np.float64] = self.score_table().max(axis=1)
        return largest

    def told(self, row: int) -> str:
        """The answer to one sample in words."""
        if self.scores is not None and self.classes is not None:
            return f"class {self.classes[row]} ({self.scores[row].max():.3g})"
        if self.classes is not None:
            return f"class {self.classes[row]}"
        return f"{self.numbers()[row]:.6g}"


def answers_of(outputs: Mapping[str, NDArray[Any]], wanted: str | None = None) -> Answers:
    """What the outputs say: the one that is wanted, else the only one with scores, numbers or classes.

    Raises `GateError` where that is not clear, or where a score is no number.
    """
    if wanted is not None:
        if wanted not in outputs:
            raise GateError(
                f'the model has no output "{wanted}"; it has: {", ".join(sorted(outputs))}'
            )
        return _one(wanted, outputs[wanted])
    floating = {
        name: array
        for name, array in outputs.items()
        if array.dtype.kind == "f" or array.dtype == BFLOAT16
    }
    for some in (floating, outputs):
        if len(some) == 1:
            return _one(*next(iter(some.items())))
    raise GateError(f"the model has several outputs ({', '.join(outputs)}); say which with output")


def _one(name: str, array: NDArray[Any]) -> Answers:
    if array.dtype == BFLOAT16:
        array = array.astype(np.float32)
    if array.dtype.kind in "biu":
        flat = array.reshape(len(array), -1)
        if flat.shape[1] != 1:
            raise GateError(f'the output "{name}" has {flat.shape[1]} classes per sample, not one')
        return Answers(name, classes=flat[:, 0].astype(np.int64))
    if array.dtype.kind != "f":
        raise GateError(f'the output "{name}" is text; gates need class numbers, scores or numbers')
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1)))
        raise GateError(f'the output "{name}" of sample {row} is NaN or infinite')
    if numbers.ndim == 1 or numbers.shape[1:] == (1,):
        return Answers(name, values=numbers.reshape(len(numbers)))
    if numbers.ndim != 2:
        raise GateError(
            f'the output "{name}" has the shape {list(array.shape)}; gates need scores, or one number'
        )
    return Answers(name, numbers.argmax(axis=1).astype(np.int64), numbers)
