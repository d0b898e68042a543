"""Whether an engine's answers are those of the original model: pure comparisons, and what they add up to."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

# Below this share of the largest row's norm a row's direction is noise.
SMALLEST_NORM = 1e-6
# An output whose values are all smaller than this is compared as if they were about so large.
SMALLEST_SCALE = 1e-9
MAX_FAILURES = 8  # told of one engine; the first says enough


class Thresholds(msgspec.Struct, frozen=True, rename="camel"):
    """What may differ.

    `tolerance`: of a value, as a share of the value or of the output's root mean square, whichever is
    larger. `cosine`: between a sample's outputs, at least. `agreement`: the share of samples with the same
    largest class, and of values of other types than floating point that are equal, at least.
    """

    tolerance: float
    cosine: float
    agreement: float


# By precision. FP32 differs by another order of summation; BF16 has 8 bits for a value, FP16 11.
DEFAULTS = {
    "FP32": Thresholds(tolerance=2e-3, cosine=0.99999, agreement=0.999),
    "FP16": Thresholds(tolerance=2e-2, cosine=0.9999, agreement=0.99),
    "BF16": Thresholds(tolerance=1e-1, cosine=0.999, agreement=0.98),
}


class Limits(msgspec.Struct, frozen=True, rename="camel"):
    """What somebody wants of the thresholds; the others are as usual."""

    tolerance: float | None = None
    cosine: float | None = None
    agreement: float | None = None

    def over(self, usual: Thresholds) -> Thresholds:
        """The thresholds that hold."""
        wanted = {
            name: value for name, value in msgspec.structs.asdict(self).items() if value is not None
        }
        return msgspec.structs.replace(usual, **wanted)


class Failure(msgspec.Struct, frozen=True, rename="camel"):
    """One way in which an engine's answers are other ones."""

    output: str
    what: str  # in words
    batch: int  # rows that ran together
    sample: int  # number of the golden sample
    index: tuple[int, ...]  # of the value in the sample's output
    expected: str
    got: str

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return (
            f'output "{self.output}"{place} of sample {self.sample} at batch {self.batch}: {self.what}, '
            f"expected {self.expected}, got {self.got}"
        )


class OutputReport(msgspec.Struct, rename="camel"):
    """How far one output was off, over all samples and batches."""

    datatype: str
    values: int = 0
    max_absolute: float = 0.0
    max_relative: float = 0.0  # of values that are not zero
    max_error: float = 0.0  # what the tolerance bounds
    min_cosine: float | None = None
    top1: float | None = None  # share of rows; None where an output has no classes
    equal: float | None = None  # share of values that are equal, for what is not floating point


class Report(msgspec.Struct, rename="camel"):
    """What a comparison found."""

    passed: bool
    reference: str
    engine: str
    golden: str  # where the samples are from
    samples: int
    batches: list[int]
    thresholds: Thresholds
    outputs: dict[str, OutputReport]
    failures: list[Failure]


class Comparison:
    """Adds up what batches show."""

    def __init__(self, thresholds: Thresholds) -> None:
        self.outputs: dict[str, OutputReport] = {}
        self.failures: list[Failure] = []
        self._thresholds = thresholds
        self._agreed: dict[str, tuple[int, int]] = {}  # samples or values that agree, of how many
        self._disagreed: dict[str, Failure] = {}  # the first that does not

    def add(
        self,
        expected: dict[str, NDArray[Any]],
        got: dict[str, NDArray[Any]],
        samples: list[int],
    ) -> None:
        """Compare the outputs of one batch, whose rows are these golden samples."""
        for name, wanted in expected.items():
            told = self.outputs.setdefault(name, OutputReport(wanted.dtype.name))
            given = got.get(name)
            if given is None or given.shape != wanted.shape:
                shape = "nothing" if given is None else str(list(given.shape))
                self._fail(
                    Failure(
                        name,
                        "another shape",
                        len(samples),
                        samples[0],
                        (),
                        str(list(wanted.shape)),
                        shape,
                    )
                )
            elif given.dtype != wanted.dtype:
                types = str(wanted.dtype), str(given.dtype)
                self._fail(Failure(name, "another type", len(samples), samples[0], (), *types))
            elif wanted.dtype.kind == "f":
                told.values += wanted.size
                self._floats(name, told, rows_of(wanted, samples), rows_of(given, samples), samples)
            else:
                told.values += wanted.size
                self._others(name, rows_of(wanted, samples), rows_of(given, samples), samples)

    def finish(self) -> None:
        """Judge what only all samples together show: the shares that agree."""
        for name, (agreed, total) in self._agreed.items():
            told = self.outputs[name]
            share = agreed / total
            if told.datatype.startswith("float"):
                told.top1 = share
            else:
                told.equal = share
            if share < self._thresholds.agreement:
                first = self._disagreed[name]
                what = (
                    f"{first.what}; {share:.2%} agree, {self._thresholds.agreement:.2%} are wanted"
                )
                self._fail(msgspec.structs.replace(first, what=what))

    def _fail(self, failure: Failure) -> None:
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(failure)

    def _floats(
        self,
        name: str,
        told: OutputReport,
        expected: NDArray[Any],
        got: NDArray[Any],
        samples: list[int],
    ) -> None:
        wanted, given = expected.astype(np.float64), got.astype(np.float64)
        finite = np.isfinite(wanted)
        alike = finite == np.isfinite(given)
        alike &= finite | (wanted == given) | (np.isnan(wanted) & np.isnan(given))
        if not alike.all():
            self._fail(
                failure_at(name, "not a number, or infinite", ~alike, expected, got, samples)
            )
            return
        wanted, given = np.where(finite, wanted, 0.0), np.where(finite, given, 0.0)
        difference = np.abs(given - wanted)
        size = np.abs(wanted)
        scale = max(root_mean_square(wanted), SMALLEST_SCALE)
        error = difference / np.maximum(size, scale)
        told.max_absolute = max(told.max_absolute, largest(difference))
        told.max_error = max(told.max_error, largest(error))
        if (size > 0).any():
            relative = np.divide(difference, size, out=np.zeros_like(size), where=size > 0)
            told.max_relative = max(told.max_relative, largest(relative))
        tolerance = self._thresholds.tolerance
        if largest(error) > tolerance:
            what = f"off by {largest(error):.3g}, more than {tolerance:g}"
            self._fail(failure_at(name, what, error == error.max(), expected, got, samples))
        if wanted.ndim >= 2:
            self._directions(name, told, wanted, given, samples)
        if wanted.ndim == 2 and wanted.shape[1] >= 2:
            self._classes(name, wanted, given, scale, samples)

    def _directions(
        self,
        name: str,
        told: OutputReport,
        wanted: NDArray[Any],
        given: NDArray[Any],
        samples: list[int],
    ) -> None:
        if math.prod(wanted.shape[1:]) < 2:
            return
        cosines = row_cosines(wanted, given)
        lowest = float(cosines.min(initial=1.0))
        told.min_cosine = lowest if told.min_cosine is None else min(told.min_cosine, lowest)
        if lowest < self._thresholds.cosine:
            row = int(cosines.argmin())
            wish = f"{self._thresholds.cosine:g} or more"
            self._fail(
                Failure(
                    name,
                    "the cosine of the outputs",
                    len(samples),
                    samples[row],
                    (),
                    wish,
                    f"{lowest:.6g}",
                )
            )

    def _classes(
        self, name: str, wanted: NDArray[Any], given: NDArray[Any], scale: float, samples: list[int]
    ) -> None:
        agree = same_class(wanted, given, self._thresholds.tolerance, scale)
        self._count(name, int(agree.sum()), agree.size)
        if not agree.all() and name not in self._disagreed:
            row = int((~agree).argmax())
            classes = [f"class {int(one[row].argmax())}" for one in (wanted, given)]
            self._disagreed[name] = Failure(
                name, "another class is largest", len(samples), samples[row], (), *classes
            )

    def _others(
        self, name: str, expected: NDArray[Any], got: NDArray[Any], samples: list[int]
    ) -> None:
        equal = np.asarray(expected == got, dtype=bool)
        self._count(name, int(equal.sum()), equal.size)
        if not equal.all() and name not in self._disagreed:
            self._disagreed[name] = failure_at(
                name, "another value", ~equal, expected, got, samples
            )

    def _count(self, name: str, agreed: int, total: int) -> None:
        before = self._agreed.get(name, (0, 0))
        if total:
            self._agreed[name] = (before[0] + agreed, before[1] + total)


def rows_of(array: NDArray[Any], samples: list[int]) -> NDArray[Any]:
    """The array with one row per sample; one that has no such rows is a row of the first sample."""
    return array if array.shape[:1] == (len(samples),) else array.reshape(1, -1)


def root_mean_square(values: NDArray[Any]) -> float:
    """0.0 for no values; no overflow for large ones."""
    top = largest(np.abs(values))
    return top * float(np.sqrt(np.mean(np.square(values / top)))) if top > 0 else 0.0


def largest(values: NDArray[Any]) -> float:
    """The largest of values that are not negative; 0.0 for none."""
    return float(values.max(initial=0.0))


def row_cosines(wanted: NDArray[Any], given: NDArray[Any]) -> NDArray[Any]:
    """The cosine of each row with its like; 1 for rows that are next to nothing."""
    left, right = (one.reshape(len(one), -1) for one in (wanted, given))
    top = max(largest(np.abs(left)), largest(np.abs(right)))
    if top == 0:
        return np.ones(len(left))
    left, right = left / top, right / top  # squares neither overflow nor vanish
    norms = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1)
    product = norms[0] * norms[1]
    told = np.maximum(*norms) > SMALLEST_NORM * np.maximum(*norms).max()
    cosines = np.divide(
        (left * right).sum(axis=1), product, out=np.zeros(len(left)), where=product > 0
    )
    return np.where(told, np.clip(cosines, -1.0, 1.0), 1.0)


def same_class(
    wanted: NDArray[Any], given: NDArray[Any], tolerance: float, scale: float
) -> NDArray[Any]:
    """Whether each row [rows, classes] has the same largest class, or one that was as good before."""
    chosen = np.take_along_axis(wanted, given.argmax(axis=1)[:, None], axis=1)[:, 0]
    top = wanted.max(axis=1)
    return np.asarray(top - chosen <= tolerance * np.maximum(np.abs(top), scale))


def failure_at(
    name: str,
    what: str,
    where: NDArray[Any],
    expected: NDArray[Any],
    got: NDArray[Any],
    samples: list[int],
) -> Failure:
    """The failure of the first value that is marked."""
    row, *index = (int(one) for one in np.unravel_index(int(where.argmax()), where.shape))
    place = (row, *index)
    shown = (show(expected[place]), show(got[place]))
    return Failure(name, what, len(samples), samples[row], tuple(index), *shown)


def show(value: Any) -> str:
    """A value in a message."""
    return f"{float(value):.7g}" if isinstance(value, np.floating) else str(value)[:60]
