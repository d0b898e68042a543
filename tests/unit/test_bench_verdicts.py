"""The faults and the counts of the bench of whole rollouts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from kohort_server.batch.batcher import Batcher
from kohort_server.batch.call import Call
from kohort_server.errors import RequestError
from tests.bench.faulty_server import FAULTS, Fault, submit
from tests.bench.verdicts import SCRAPE, Seen


@dataclass(frozen=True)
class Sent:
    """A request as far as the faults look at it."""

    inputs: dict[str, Any]


def sent(*row: float) -> Call:
    return cast("Call", Sent({"x": ((1, 4), np.array([row], np.float32).tobytes())}))


async def waited(row: tuple[float, ...], fault: Fault) -> float:
    """Milliseconds that a request waits before the model has it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[float] = loop.create_future()
    began = loop.time()
    submit(cast("Batcher", None), sent(*row), fault, lambda *_: done.set_result(loop.time()))
    return 1000 * (await done - began)


@pytest.mark.parametrize(
    ("row", "fault", "fails"),
    [
        ((0, 1, 0, 0.02), "none", False),
        ((1, 1, 0, 0.02), "none", True),
        ((0, 1, 0, 0.02), "errors", True),
        ((0, 1, 0, 0.5), "errors", False),
        ((0, 1, 1, 0.5), "one group of clients", True),
        ((0, 1, 0, 0.5), "one group of clients", False),
    ],
)
async def test_a_request_fails_on_its_own_account_or_by_the_fault(
    row: tuple[float, ...], fault: str, fails: bool
) -> None:
    if fails:
        with pytest.raises(RequestError):
            await waited(row, FAULTS[fault])
    else:
        assert await waited(row, FAULTS[fault]) >= 0


async def test_requests_take_as_long_as_they_say_and_longer_by_the_fault() -> None:
    quick, late = (0.0, 10.0, 0.0, 0.5), (0.0, 60.0, 0.0, 0.5)
    assert await waited(quick, FAULTS["none"]) >= 9
    assert await waited(late, FAULTS["tail latency"]) >= 119


def test_answers_are_counted_by_scrape() -> None:
    counts = {100: [3, 1], 104: [2, 0], 105: [4, 4], 200: [9, 9]}
    requests, failed, *_ = Seen.of(counts, since=100.0, until=100.0 + SCRAPE).arms
    assert requests.tolist() == [5, 4]
    assert failed.tolist() == [1, 4]
