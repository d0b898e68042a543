"""Measuring what a batch costs: warm-up runs, the latency curve, and whether rows are independent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kohort_server.batch.assemble import assemble
from kohort_server.batch.call import Inputs
from kohort_server.buffers import Buffers
from kohort_server.datatypes import BFLOAT16, BYTES, FIXED_SIZE
from kohort_server.engine.interface import BatchDimension, Signature, TensorSpec

Run = Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
BUDGET = 0.3  # seconds for the whole curve
REPEATS = 7
# A larger batch must save at least this share of the time per row to be worth its latency.
USEFUL_GAIN = 0.05
# Below this a batch runs on the loop itself: handing it to a thread would cost more than it saves.
INLINE_SECONDS = 0.001
# No batch is chosen that takes longer than this: every request in it would wait for all of it.
LONGEST_BATCH = 0.05
# Extents that are tried in turn for dynamic dimensions other than the batch.
TRIAL_EXTENTS = (16, 1, 64, 224)
# What another order of summation may change, relative to a number or to 1.
TOLERANCES = {
    np.dtype(np.float64): 1e-3,
    np.dtype(np.float32): 1e-3,
    np.dtype(np.float16): 1e-2,
    BFLOAT16: 5e-2,
}


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds per run by batch size, and what follows from it."""

    seconds: dict[int, float]
    max_rows: int
    inline: bool

    @property
    def seconds_per_row(self) -> float:
        """Time per row at the chosen batch size: what a queue's wait is estimated with."""
        return self.seconds[self.max_rows] / self.max_rows

    def expected(self, rows: int) -> float:
        """Time of a run of so many rows, at least of the smallest that was measured."""
        for size, seconds in self.seconds.items():  # ascending
            if size >= rows:
                return seconds
        return self.seconds_per_row * rows


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was learned: the curve, and what the first dimension really is."""

    curve: Curve
    batch: BatchDimension


class WarmUpError(Exception):
    """The model does not run on inputs made from its own signature."""


def calibrate(
    run: Run,
    signature: Signature,
    batch: BatchDimension,
    clock: Callable[[], float] = time.perf_counter,
) -> Calibration:
    """Warm the model up at every batch size it will see and choose the largest useful one.

    Raises `WarmUpError` when the model cannot run at all.
    """
    rows = batch.size if batch.kind == "fixed" else 1
    extent = workable_extent(run, signature, rows)
    if batch.kind == "dynamic" and not rows_are_independent(run, signature, extent):
        batch = BatchDimension("none")
    sizes = BATCH_SIZES if batch.kind == "dynamic" else (rows,)
    seconds = measure(run, signature, extent, sizes, clock)
    return Calibration(choose(seconds), batch)


def workable_extent(run: Run, signature: Signature, rows: int) -> int:
    """The first trial extent for unknown dimensions with which the model runs."""
    unknown = any(-1 in spec.shape[1:] for spec in signature.inputs)
    error: Exception | None = None
    for extent in TRIAL_EXTENTS if unknown else TRIAL_EXTENTS[:1]:
        try:
            run(sample_inputs(signature, rows, extent))
            return extent
        except Exception as raised:
            error = error or raised
    raise WarmUpError(str(error)) from error


def measure(
    run: Run,
    signature: Signature,
    extent: int,
    sizes: Sequence[int],
    clock: Callable[[], float],
) -> dict[int, float]:
    """Median seconds per run for each batch size that fits the budget; the first always does.

    What it takes to put a batch together counts: for large inputs it is more than some models take.
    """
    seconds: dict[int, float] = {}
    buffers = Buffers()
    first = sizes[0]
    part = Part(signature, first, extent)
    end = clock() + BUDGET
    for size in sizes:
        parts = [part] * (size // first)
        run(assemble(signature, parts, size, buffers))
        samples: list[float] = []
        while len(samples) < REPEATS and (not samples or clock() < end):
            start = clock()
            run(assemble(signature, parts, size, buffers))
            samples.append(clock() - start)
        seconds[size] = sorted(samples)[len(samples) // 2]
        # The next size takes up to twice as long per run, and needs two runs to say anything.
        if clock() + 4 * seconds[size] > end:
            break
    return seconds


class Part:
    """What a request with the first of the sizes brings to a batch."""

    def __init__(self, signature: Signature, rows: int, extent: int) -> None:
        self.inputs: Inputs = {
            name: (array.shape, array if array.dtype == object else array.tobytes())
            for name, array in sample_inputs(signature, rows, extent).items()
        }


def choose(seconds: dict[int, float]) -> Curve:
    """The largest batch that is still useful: each doubling before it saved time per row."""
    allowed = {
        size: taken
        for size, taken in seconds.items()
        if taken <= LONGEST_BATCH or size == min(seconds)
    }
    best = min(taken / size for size, taken in allowed.items())
    max_rows = min(
        size for size, taken in allowed.items() if taken / size <= best * (1 + USEFUL_GAIN)
    )
    return Curve(seconds, max_rows, inline=seconds[max_rows] < INLINE_SECONDS)


def rows_are_independent(run: Run, signature: Signature, extent: int) -> bool:
    """Whether two requests run together give what each gives alone, for this model."""
    first = sample_inputs(signature, 1, extent, seed=1)
    second = sample_inputs(signature, 2, extent, seed=2)
    together = {name: np.concatenate([first[name], second[name]]) for name in first}
    try:
        apart = [run(first), run(second)]
        joint = run(together)
    except Exception:
        return False
    for name, array in joint.items():
        if array.shape[:1] != (3,):
            return False
        parts = [outputs[name] for outputs in apart]
        if [part.shape for part in parts] != [(n, *array.shape[1:]) for n in (1, 2)]:
            return False
        if not close(array, np.concatenate(parts)):
            return False
    return True


def close(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Equality, within what another order of summation can change in floating point."""
    tolerance = TOLERANCES.get(left.dtype)
    if tolerance is None:
        return bool((left == right).all())
    # As wide as any, for isclose knows no bfloat16.
    wide, other = left.astype(np.float64), right.astype(np.float64)
    return bool(np.allclose(wide, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def sample_inputs(
    signature: Signature, rows: int, extent: int, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Harmless inputs: small numbers that are valid indices too, and short strings."""
    random = np.random.default_rng(seed)
    return {spec.name: sample_tensor(spec, rows, extent, random) for spec in signature.inputs}


def sample_tensor(
    spec: TensorSpec, rows: int, extent: int, random: np.random.Generator
) -> NDArray[Any]:
    """A tensor for one input, unknown extents filled in."""
    shape = tuple(
        known if known >= 0 else (rows if axis == 0 else extent)
        for axis, known in enumerate(spec.shape)
    )
    if spec.datatype == BYTES:
        return np.full(shape, b"a", dtype=object)
    fixed = FIXED_SIZE[spec.datatype]
    if fixed.element is float:
        return random.standard_normal(shape).astype(fixed.dtype)
    return random.integers(0, 2, shape).astype(fixed.dtype)
