"""Batching: what the queue promises, and what is learned from a model's latencies."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kohort_server.batch.batcher import Batcher, QueueLimits
from kohort_server.batch.calibration import Curve, WarmUpError, calibrate, choose
from kohort_server.batch.call import Call, Result
from kohort_server.batch.statistics import Statistics
from kohort_server.engine.interface import BatchDimension, Engine, Signature, TensorSpec
from kohort_server.errors import RequestError

Arrays = dict[str, NDArray[Any]]
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
INLINE = Curve({1: 0.0001, 8: 0.0002}, max_rows=8, inline=True)
THREADED = Curve({1: 0.01, 8: 0.02}, max_rows=8, inline=False)


class FunctionEngine(Engine):
    """An engine that is a function, and remembers the rows of each run."""

    name = "function"
    precision = "FP32"
    signature = SIGNATURE

    def __init__(self, function: Callable[[Any], Any], batch: str = "dynamic") -> None:
        self.function = function
        self.batch = BatchDimension(batch)  # type: ignore[arg-type]
        self.ran: list[int] = []

    def run(self, inputs: Arrays) -> Arrays:
        self.ran.append(len(inputs["x"]))
        return {"y": self.function(inputs["x"])}


class FutureCall(Call):
    """A call whose outcome is awaited."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.inputs = {"x": (rows.shape, rows.tobytes())}
        self.rows = len(rows)
        self.size = rows.nbytes
        self.batch_key = None
        self.abandoned = False
        self.received = time.perf_counter()
        self.deadline = math.inf
        self.outcome: asyncio.Future[NDArray[Any]] = asyncio.get_running_loop().create_future()

    def deliver(self, result: Result, start: int | None) -> None:
        rows = result.arrays["y"]
        self.outcome.set_result(rows if start is None else rows[start : start + self.rows])

    def fail(self, error: Exception) -> None:
        self.outcome.set_exception(error)


def affine(rows: Any) -> Any:
    """A model whose answer for a row depends on that row only."""
    return rows * 2 + 1


def constant_rows(value: float, count: int = 1) -> NDArray[np.float32]:
    """Rows that are told apart by their value."""
    return np.full((count, 2), value, np.float32)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.booleans(), st.booleans())
def test_every_request_gets_the_answer_it_would_get_alone(
    rows: list[int], inline: bool, batched: bool
) -> None:
    async def world() -> None:
        engine = FunctionEngine(affine, "dynamic" if batched else "none")
        batcher = Batcher(engine, INLINE if inline else THREADED)
        sent = [constant_rows(index, count) for index, count in enumerate(rows)]
        calls = [FutureCall(array) for array in sent]
        for call in calls:
            batcher.submit(call)
        for array, call in zip(sent, calls, strict=True):
            np.testing.assert_array_equal(await call.outcome, affine(array))
        assert batcher.waiting_rows == batcher.waiting_size == 0
        assert sum(engine.ran) == sum(rows)
        assert all(ran <= 8 or ran in rows for ran in engine.ran)
        batcher.close()

    asyncio.run(world())


async def test_requests_that_arrive_together_share_a_batch() -> None:
    engine = FunctionEngine(affine)
    batcher = Batcher(engine, INLINE)
    calls = [FutureCall(constant_rows(value)) for value in range(8)]
    for call in calls:
        batcher.submit(call)
    await asyncio.gather(*(call.outcome for call in calls))
    assert engine.ran == [8]
    assert {rows: size.batches for rows, size in batcher.statistics.sizes.items()} == {8: 1}


@pytest.mark.parametrize("curve", [INLINE, THREADED])
async def test_one_bad_request_does_not_fail_the_others_in_its_batch(curve: Curve) -> None:
    def no_sevens(rows: Any) -> Any:
        if (rows == 7).any():
            raise ValueError("seven")
        return affine(rows)

    batcher = Batcher(FunctionEngine(no_sevens), curve)
    calls = [FutureCall(constant_rows(value)) for value in (6, 7, 8)]
    for call in calls:
        batcher.submit(call)
    outcomes = await asyncio.gather(*(call.outcome for call in calls), return_exceptions=True)
    assert isinstance(outcomes[1], ValueError)
    np.testing.assert_array_equal(outcomes[0], affine(constant_rows(6)))
    np.testing.assert_array_equal(outcomes[2], affine(constant_rows(8)))
    batcher.close()


async def test_a_model_that_mixes_rows_up_answers_with_an_error_not_with_anothers_rows() -> None:
    batcher = Batcher(FunctionEngine(lambda rows: rows[:1]), INLINE)
    calls = [FutureCall(constant_rows(1, 2)), FutureCall(constant_rows(2, 2))]
    for call in calls:
        batcher.submit(call)
    for call in calls:
        with pytest.raises(ValueError, match="for 2 rows of input"):
            await call.outcome


async def test_what_a_client_no_longer_waits_for_is_not_run() -> None:
    engine = FunctionEngine(affine)
    batcher = Batcher(engine, INLINE)
    gone, here = FutureCall(constant_rows(1)), FutureCall(constant_rows(2))
    batcher.submit(gone)
    batcher.submit(here)
    gone.abandoned = True
    await here.outcome
    assert engine.ran == [1]
    assert not gone.outcome.done()
    assert batcher.waiting_rows == batcher.waiting_size == 0


async def test_what_is_too_late_is_told_so_and_not_run() -> None:
    engine = FunctionEngine(affine)
    batcher = Batcher(engine, INLINE)
    late, here = FutureCall(constant_rows(1)), FutureCall(constant_rows(2))
    late.deadline = time.perf_counter() - 1
    batcher.submit(late)
    batcher.submit(here)
    await here.outcome
    with pytest.raises(RequestError) as raised:
        await late.outcome
    assert raised.value.status == 504
    assert engine.ran == [1]


async def test_what_would_be_answered_too_late_is_refused_at_once() -> None:
    batcher = Batcher(FunctionEngine(affine), THREADED)
    waiting = [FutureCall(constant_rows(value, 8)) for value in range(5)]
    for call in waiting:
        batcher.submit(call)
    hasty = FutureCall(constant_rows(9))
    hasty.deadline = hasty.received + 0.05  # 40 rows wait for about 0.1 s
    with pytest.raises(RequestError, match="the model is overloaded"):
        batcher.submit(hasty)
    await asyncio.gather(*(call.outcome for call in waiting))
    batcher.close()


@pytest.mark.parametrize(
    "limits",
    [QueueLimits(calls=3), QueueLimits(size=3 * 8), QueueLimits(wait=3 * 0.02 / 8 - 0.001)],
    ids=["calls", "bytes", "wait"],
)
async def test_beyond_its_bound_the_queue_refuses_at_once_and_says_when_to_retry(
    limits: QueueLimits,
) -> None:
    batcher = Batcher(FunctionEngine(affine), THREADED, limits)
    calls = [FutureCall(constant_rows(value)) for value in range(3)]
    for call in calls:
        batcher.submit(call)
    with pytest.raises(RequestError) as raised:
        batcher.submit(FutureCall(constant_rows(9)))
    assert raised.value.status == 503
    assert raised.value.retry_after == 1
    await asyncio.gather(*(call.outcome for call in calls))
    batcher.close()


async def test_the_wait_is_estimated_from_how_long_runs_take_now_not_from_the_calibration_alone() -> (
    None
):
    def throttled(rows: Any) -> Any:
        time.sleep(0.01)
        return affine(rows)

    curve = Curve({1: 0.001}, max_rows=1, inline=False)
    batcher = Batcher(FunctionEngine(throttled, "none"), curve, QueueLimits(wait=0.1))
    for _ in range(30):  # what it learns from
        call = FutureCall(constant_rows(1))
        batcher.submit(call)
        await call.outcome
    calls = [FutureCall(constant_rows(value)) for value in range(60)]
    refused = 0
    for call in calls:
        try:
            batcher.submit(call)
        except RequestError:
            refused += 1
    assert refused > 30  # by the calibration all would wait for 60 ms
    await asyncio.gather(*(call.outcome for call in calls[: len(calls) - refused]))
    batcher.close()


async def test_what_could_not_be_answered_in_time_any_more_is_not_run_while_others_wait() -> None:
    engine = FunctionEngine(affine)
    curve = Curve({1: 10.0}, max_rows=1, inline=False)
    batcher = Batcher(engine, curve, QueueLimits(wait=60.0))
    hasty = FutureCall(constant_rows(1))
    hasty.deadline = hasty.received + 5
    patient = FutureCall(constant_rows(2))
    batcher.submit(hasty)
    batcher.submit(patient)
    await patient.outcome
    with pytest.raises(RequestError) as raised:
        await hasty.outcome
    assert raised.value.status == 504
    assert engine.ran == [1]
    alone = FutureCall(constant_rows(3))
    alone.deadline = alone.received + 5  # nothing else to do: perhaps the estimate is wrong
    batcher.submit(alone)
    await alone.outcome
    batcher.close()


@pytest.mark.parametrize("kind", ["fixed", "none"])
async def test_the_wait_of_requests_that_run_alone_is_that_of_their_whole_runs(kind: str) -> None:
    curve = Curve({4: 0.01}, max_rows=4, inline=False)  # the model was exported for four rows
    batcher = Batcher(FunctionEngine(affine, kind), curve, QueueLimits(wait=0.025))
    calls = [FutureCall(constant_rows(value)) for value in range(3)]
    for call in calls:
        batcher.submit(call)
    with pytest.raises(RequestError, match="3 requests wait"):
        batcher.submit(FutureCall(constant_rows(9)))
    await asyncio.gather(*(call.outcome for call in calls))
    batcher.close()


@given(
    st.dictionaries(st.sampled_from([1, 2, 4, 8, 16, 32]), st.floats(1e-6, 10)).filter(
        lambda seconds: 1 in seconds
    )
)
def test_the_chosen_batch_is_about_as_cheap_per_row_as_any_that_is_not_too_slow(
    seconds: dict[int, float],
) -> None:
    curve = choose(seconds)
    bearable = {size: taken for size, taken in seconds.items() if size == 1 or taken <= 0.05}
    assert curve.max_rows in bearable
    cheapest = min(taken / size for size, taken in bearable.items())
    assert curve.seconds_per_row <= cheapest * 1.05


def test_a_model_that_gains_nothing_from_batches_gets_none() -> None:
    assert choose({1: 0.008, 2: 0.0161, 4: 0.033}).max_rows == 1


def test_a_model_that_gains_from_batches_gets_the_largest_that_does() -> None:
    assert choose({1: 24e-6, 2: 26e-6, 4: 31e-6, 8: 50e-6, 16: 82e-6, 32: 160e-6}).max_rows == 16


def test_a_model_whose_rows_depend_on_each_other_is_never_batched() -> None:
    def centred(inputs: Arrays) -> Arrays:
        return {"y": inputs["x"] - inputs["x"].mean(axis=0)}

    learned = calibrate(centred, SIGNATURE, BatchDimension("dynamic"))
    assert learned.batch == BatchDimension("none")
    assert learned.curve.max_rows == 1


def test_a_model_with_independent_rows_is_batched() -> None:
    learned = calibrate(
        lambda inputs: {"y": affine(inputs["x"])}, SIGNATURE, BatchDimension("dynamic")
    )
    assert learned.batch == BatchDimension("dynamic")
    assert set(learned.curve.seconds) >= {1, 2, 4}


def test_a_fixed_batch_is_measured_at_its_own_size() -> None:
    fixed = Signature((TensorSpec("x", "FP32", (4, 2)),), (TensorSpec("y", "FP32", (4, 2)),))
    assert fixed.batch_dimension() == BatchDimension("fixed", 4)
    learned = calibrate(lambda inputs: {"y": affine(inputs["x"])}, fixed, fixed.batch_dimension())
    assert list(learned.curve.seconds) == [4]


def test_a_model_that_cannot_run_is_told_with_its_own_error() -> None:
    def broken(inputs: Arrays) -> Arrays:
        raise ValueError("no kernel")

    with pytest.raises(WarmUpError, match="no kernel"):
        calibrate(broken, SIGNATURE, BatchDimension("dynamic"))


def test_a_batch_that_costs_more_to_put_together_than_it_saves_is_not_made() -> None:
    images = Signature(
        (TensorSpec("x", "FP32", (-1, 3, 224, 224)),), (TensorSpec("y", "FP32", (-1, 1)),)
    )
    learned = calibrate(
        lambda inputs: {"y": inputs["x"][:, 0, 0, :1]}, images, BatchDimension("dynamic")
    )
    assert learned.batch == BatchDimension("dynamic")
    assert learned.curve.max_rows == 1


@pytest.mark.parametrize("curve", [INLINE, THREADED])
async def test_a_request_that_cannot_be_answered_holds_up_no_other(curve: Curve) -> None:
    class Unanswerable(FutureCall):
        def deliver(self, result: Result, start: int | None) -> None:
            raise RuntimeError("no way to answer")

        fail = deliver  # type: ignore[assignment]

    batcher = Batcher(FunctionEngine(affine), curve)
    expired = Unanswerable(constant_rows(0))
    expired.deadline = expired.received
    for _ in range(3):
        calls = [expired, FutureCall(constant_rows(1)), Unanswerable(constant_rows(2))]
        calls.append(FutureCall(constant_rows(3)))
        for call in calls:
            batcher.submit(call)
        async with asyncio.timeout(30):
            for call in (calls[1], calls[3]):
                await call.outcome
    batcher.close()


def test_batches_of_countless_sizes_are_counted_without_keeping_each_size() -> None:
    statistics = Statistics()
    sizes = range(1, 5001)
    for rows in sizes:
        statistics.ran(rows, 1, 0.0, 0.0)
    assert (statistics.batches, statistics.rows) == (5000, sum(sizes))
    assert len(statistics.sizes) < 300
    assert sum(size.batches for size in statistics.sizes.values()) == 5000
