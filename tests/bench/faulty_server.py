"""The model server with faults: what a request is to meet is in its own numbers, and in FAULT.

A request's row holds whether it fails, how many milliseconds it waits before the model sees it, its
client's group, and a number drawn from [0, 1): so clients can differ, and be the same on any revision.
FAULT makes a revision worse: see ``FAULTS``.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from kohort_server.batch.batcher import Batcher
from kohort_server.batch.call import Call
from kohort_server.errors import RequestError
from kohort_server.main import main

NUMBERS = 4
LATE_MS = 60.0


@dataclass(frozen=True)
class Fault:
    """``failing``: share of requests that fail besides. ``slower``: how many times as long those take
    that take ``beyond`` milliseconds at least. ``group``: whose requests all fail; 0: nobody's."""

    failing: float = 0.0
    slower: float = 1.0
    beyond: float = 0.0
    group: int = 0


FAULTS = {
    "none": Fault(),
    "errors": Fault(failing=0.04),
    "latency": Fault(slower=1.5),
    "tail latency": Fault(slower=2.0, beyond=LATE_MS),
    "one group of clients": Fault(group=1),
}


def submit(batcher: Batcher, call: Call, fault: Fault, real: Any) -> None:
    """What stands in for ``Batcher.submit``."""
    _, data = call.inputs["x"]
    row = np.frombuffer(data, np.float32)[:NUMBERS] if not isinstance(data, np.ndarray) else data
    fails, milliseconds, group, drawn = row.reshape(-1).tolist()
    if fails or drawn < fault.failing or (fault.group and group == fault.group):
        raise RequestError(500, "a fault of the bench")
    if milliseconds >= fault.beyond:
        milliseconds *= fault.slower
    asyncio.get_running_loop().call_later(milliseconds / 1000, real, batcher, call)


def break_server(fault: Fault) -> None:
    """From now on the server has the fault."""
    real = Batcher.submit

    def patched(self: Batcher, call: Call) -> None:
        submit(self, call, fault, real)

    Batcher.submit = patched  # type: ignore[method-assign]


if __name__ == "__main__":
    break_server(FAULTS[os.environ.get("FAULT", "none")])
    main()
