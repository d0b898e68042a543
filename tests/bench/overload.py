"""More requests than a server can answer: what is answered, how late, and how soon the rest is refused.

Run with `python -m tests.bench.overload`. A model that takes a few milliseconds and gains nothing from
batches, on one core; requests arrive at random times whether or not earlier ones are answered, and wait
for half a second at most, as they say in `timeout`. Goodput is what is answered with 200 within that time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import cast

import numpy as np
import uvloop

from tests.bench.load import Target, client_for, load
from tests.bench.server import cpu_seconds, server
from tests.component.server_process import FEATURES, slow_model

PATIENCE = 0.5  # seconds
SIZE = 500  # of the matrices that are multiplied
HEALTH_EVERY = 0.02
HEALTH = b"GET /v2/health/ready HTTP/1.1\r\nHost: h\r\n\r\n"


def infer_request() -> bytes:
    """What every client sends."""
    tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": [0.0] * FEATURES}
    told = {"inputs": [tensor], "parameters": {"timeout": int(PATIENCE * 1e6)}}
    body = json.dumps(told).encode()
    return (b"POST /v2/models/mlp/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b") % (
        len(body),
        body,
    )


class Connection(asyncio.Protocol):
    """Sends one request at a time; `idle` is where it waits for the next."""

    def __init__(self, idle: deque[Connection], took: dict[int, list[float]]) -> None:
        self.idle = idle
        self.took = took  # seconds by status
        self.pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.idle.append(self)

    def send(self, request: bytes) -> None:
        """Send a request."""
        self.sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.pending += data
        head, separator, body = self.pending.partition(b"\r\n\r\n")
        if separator and len(body) >= int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]):
            self.took.setdefault(int(head[9:12]), []).append(time.perf_counter() - self.sent)
            self.pending = b""
            self.idle.append(self)


async def arrive(
    port: int, rate: float, seconds: float
) -> tuple[dict[int, list[float]], list[float]]:
    """Send at this rate: how long what took by status, and how long health checks did."""
    loop = asyncio.get_running_loop()
    took: dict[int, list[float]] = {}
    idle: deque[Connection] = deque()
    checks: dict[int, list[float]] = {}
    checking: deque[Connection] = deque()
    for _ in range(int(rate * PATIENCE * 2) + 20):
        await loop.create_connection(lambda: Connection(idle, took), "127.0.0.1", port)
    await loop.create_connection(lambda: Connection(checking, checks), "127.0.0.1", port)
    total = len(idle)
    request = infer_request()
    chance = random.Random(1)
    now = start = time.perf_counter()
    due, check = start, start
    while now < start + seconds:
        while due <= now:
            idle.popleft().send(request)  # there are enough: each comes back within its patience
            due += chance.expovariate(rate)
        if check <= now and checking:
            checking.popleft().send(HEALTH)
            check = now + HEALTH_EVERY
        await asyncio.sleep(0.001)
        now = time.perf_counter()
    while len(idle) < total:  # noqa: ASYNC110 (no event for it)
        await asyncio.sleep(0.01)
    for connection in (*idle, *checking):
        connection.transport.close()
    return took, checks.get(200, [])


def percentile(values: list[float], share: float) -> str:
    """In milliseconds."""
    ordered = sorted(values)
    return f"{ordered[int(len(ordered) * share)] * 1000:,.1f}" if ordered else ""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory:
        model = slow_model(Path(directory) / "model.onnx", SIZE)
        with server(model, cores[0]) as (pid, port):
            os.sched_setaffinity(0, {cores[-1]})
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                row = Target("mlp", "x", np.zeros((1, FEATURES), np.float32))
                client = client_for("json", row)
                before = cpu_seconds(pid)
                peak = len(runner.run(load(port, client, 8, given.seconds))) / given.seconds
                cost = (cpu_seconds(pid) - before) / given.seconds
                print(
                    f"peak, 8 clients that wait for their answers: {peak:,.0f} requests/s, "
                    f"{peak / cost:,.0f} per CPU second of the server\n"
                )
                print(
                    "| offered | goodput/s | of the peak | the same per CPU second "
                    "| answered p50, p99 ms | refused | "
                    "refused after p50, p99 ms | health p99 ms |\n"
                    "|---|---|---|---|---|---|---|---|"
                )
                for times in (0.8, 1.5, 3.0, 6.0):
                    before = cpu_seconds(pid)
                    took, checks = runner.run(arrive(port, times * peak, given.seconds))
                    spent = (cpu_seconds(pid) - before) / given.seconds
                    answered = [seconds for seconds in took.get(200, []) if seconds <= PATIENCE]
                    refused = took.get(503, []) + took.get(504, [])
                    offered = sum(map(len, took.values()))
                    good = len(answered) / given.seconds
                    print(
                        f"| {times} × | {good:,.0f} | {good / peak:.2f} "
                        f"| {good / spent / (peak / cost):.2f} "
                        f"| {percentile(answered, 0.5)}, {percentile(answered, 0.99)} "
                        f"| {len(refused) / offered:.0%} "
                        f"| {percentile(refused, 0.5)}, {percentile(refused, 0.99)} "
                        f"| {percentile(checks, 0.99)} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
