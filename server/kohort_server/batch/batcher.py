"""The queue in front of the model: gathers calls into batches, bounds the wait, isolates failures.

A call is run at the end of the loop's tick when the model is idle, so that all requests which
arrived together share a batch; while the model is busy, calls accumulate. No delay is ever added.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray

from kohort_server.batch.assemble import assemble
from kohort_server.batch.calibration import Curve
from kohort_server.batch.call import Call, Result
from kohort_server.batch.statistics import Statistics
from kohort_server.buffers import Buffers
from kohort_server.engine.interface import Engine
from kohort_server.errors import RequestError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait: beyond any of these a request is refused with 503."""

    calls: int = 4096
    size: int = 512 << 20  # bytes
    wait: float = 5.0  # seconds, estimated from the measured curve


# Some models take long for some inputs only. One that took so many seconds on the loop, where nothing
# else can be answered meanwhile, runs in a thread for its next runs: seconds of which it really ran
# for some, or else it was the machine that had no time.
LONGEST_INLINE = 0.02
OWN_TIME = 0.005
WARY_RUNS = 1000

# How long runs take now, relative to the calibration: a machine that has other work or is throttled
# makes them slower. Each run counts for this share, and none as more than so many times slower.
RECENT = 0.1
SLOWEST = 10.0


class Batcher:
    """Runs calls on one engine. All methods belong to the loop's thread."""

    def __init__(self, engine: Engine, curve: Curve, limits: QueueLimits | None = None) -> None:
        self._engine = engine
        self._curve = curve
        self._limits = limits or QueueLimits()
        self._batched = engine.batch.kind == "dynamic"
        self._max_rows = curve.max_rows if self._batched else 1
        # What runs alone counts as one row, however many the model was exported for.
        alone = curve.seconds[curve.max_rows]
        self._seconds_per_row = curve.seconds_per_row if self._batched else alone
        self._waiting: deque[Call] = deque()
        self._waiting_rows = 0
        self._waiting_size = 0
        self._busy = False
        self._loop = asyncio.get_running_loop()
        # Batches for the engine's thread, None to end it. An executor and its futures would cost
        # more than the rest of the way there and back.
        self._handed: SimpleQueue[list[Call] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None  # from the first batch that needs it
        self._slowness = 1.0  # of recent runs, relative to the calibration
        self._wary = 0  # runs that still go to the thread although the curve says the loop
        self._buffers = Buffers()  # of the thread that runs the model
        self.statistics = Statistics()

    @property
    def max_rows(self) -> int:
        """The most rows that are put together; a larger request runs alone."""
        return self._max_rows

    @property
    def waiting_calls(self) -> int:
        """Requests that wait for the model now."""
        return len(self._waiting)

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for the model now."""
        return self._waiting_rows

    @property
    def waiting_size(self) -> int:
        """Bytes of inputs that wait for the model now."""
        return self._waiting_size

    def submit(self, call: Call) -> None:
        """Queue a call; raises `RequestError` 503 when the wait would be too long, or in vain."""
        rows = call.rows
        wait = self._waiting_rows * self._seconds_per_row * self._slowness
        if self._waiting and (
            len(self._waiting) >= self._limits.calls
            or self._waiting_size + call.size > self._limits.size
            or wait > self._limits.wait
            or call.received + wait > call.deadline
        ):
            raise RequestError(
                503,
                f"the model is overloaded: {len(self._waiting)} requests wait, about {wait:.1f} s; "
                "retry later or add replicas",
                retry_after=max(1, math.ceil(wait)),
            )
        self._waiting.append(call)
        self._waiting_rows += rows
        self._waiting_size += call.size
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._dispatch)

    def close(self) -> None:
        """Let go of the engine's thread; nothing may wait any more."""
        self._handed.put(None)

    def _dispatch(self) -> None:
        calls = self._next_batch()
        if not calls:
            self._busy = False
        elif self._curve.inline and not self._wary:
            self._finish(calls, self._run(calls))
            if self._waiting:
                self._loop.call_soon(self._dispatch)
            else:
                self._busy = False
        else:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
                self._thread.start()
            self._handed.put(calls)

    def _work(self) -> None:
        """Run batches, in the engine's thread."""
        while (calls := self._handed.get()) is not None:
            outcomes = self._run(calls)
            try:
                self._loop.call_soon_threadsafe(self._ran_in_thread, calls, outcomes)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del calls, outcomes  # while this thread waits, their memory is used again

    def _ran_in_thread(self, calls: list[Call], outcomes: Outcomes) -> None:
        if self._waiting:
            self._dispatch()  # before the answers are written: the model is what is scarce
        else:
            self._busy = False
        self._finish(calls, outcomes)

    def _finish(self, calls: list[Call], outcomes: Outcomes) -> None:
        start = time.perf_counter()
        finish(calls, outcomes, self._batched)
        self.statistics.answered(time.perf_counter() - start, len(calls))

    def _next_batch(self) -> list[Call]:
        """The longest run of waiting calls that fit one batch; a larger call runs alone."""
        waiting = self._waiting
        calls: list[Call] = []
        rows = 0
        now = time.perf_counter()
        queued = 0.0
        expired: list[Call] = []
        soonest = now + self._curve.expected(1) * self._slowness
        while waiting:
            call = waiting[0]
            if calls and (
                rows + call.rows > self._max_rows
                or not self._batched
                or call.batch_key != calls[0].batch_key
            ):
                break
            waiting.popleft()
            self._waiting_rows -= call.rows
            self._waiting_size -= call.size
            if call.abandoned:
                self.statistics.cancelled += 1
            # Where there is nothing else to do a run is tried: perhaps the estimate is wrong.
            elif call.deadline < (soonest if waiting else now):
                expired.append(call)
            else:
                calls.append(call)
                rows += call.rows
                queued += now - call.received
        if calls:
            self.statistics.dispatched(queued, len(calls))
        if expired:
            finish(expired, [EXPIRED] * len(expired), self._batched)
        return calls

    def _run(self, calls: list[Call]) -> Outcomes:
        """Run a batch; one that fails is run call by call, so that only the bad ones fail."""
        begun = time.perf_counter()
        before = time.thread_time()
        try:
            return self._run_together(calls)
        except Exception as error:
            if len(calls) == 1:
                return error
        finally:
            taken = time.perf_counter() - begun
            rows = sum([call.rows for call in calls]) if self._batched else 1
            times = min(taken / self._curve.expected(rows), SLOWEST)
            self._slowness += (times - self._slowness) * RECENT
            if taken > LONGEST_INLINE and time.thread_time() - before > OWN_TIME:
                self._wary = WARY_RUNS
            elif self._wary:
                self._wary -= 1
        outcomes: list[Result | Exception] = []
        for call in calls:
            try:
                outcomes.append(self._run_together([call]))
            except Exception as error:
                outcomes.append(error)
        return outcomes

    def _run_together(self, calls: list[Call]) -> Result:
        rows = sum([call.rows for call in calls])
        begun = time.perf_counter()
        inputs = assemble(self._engine.signature, calls, rows, self._buffers)
        assembled = time.perf_counter()
        outputs = self._engine.run(inputs)
        self.statistics.ran(rows, len(calls), assembled - begun, time.perf_counter() - assembled)
        if self._batched:
            check_rows(outputs, rows)
        return Result(outputs, shared=self._batched)


EXPIRED = RequestError(504, "the request's time ran out while it waited")

# One result for all calls, one error for the only call, or one of either per call.
Outcomes = Result | Exception | list[Result | Exception]


def check_rows(outputs: dict[str, NDArray[Any]], rows: int) -> None:
    """Raise when an output does not have the rows that went in: they could not be told apart."""
    for name, array in outputs.items():
        if array.shape[:1] != (rows,):
            raise ValueError(
                f'output "{name}" has the shape {list(array.shape)} for {rows} rows of input'
            )


def finish(calls: list[Call], outcomes: Outcomes, batched: bool) -> None:
    """Hand every call its rows, or its error; one that cannot take them holds up no other."""
    shared = isinstance(outcomes, Result)
    if not isinstance(outcomes, list):
        outcomes = [outcomes] * len(calls)
    start = 0
    for call, outcome in zip(calls, outcomes, strict=True):
        try:
            if isinstance(outcome, Result):
                call.deliver(outcome, start if batched else None)
            else:
                call.fail(outcome)
        except Exception:
            log.exception("a request could not be answered")
        if shared:
            start += call.rows
