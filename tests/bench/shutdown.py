"""Servers that are told to stop under load: what they accepted must be answered.

Run with `python -m tests.bench.shutdown`. Clients call at a steady rate over HTTP/1.1 and gRPC and, as a
gateway does, go on for a while after they are asked to go, on new connections. A request is lost when
a connection that was accepted ends without its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import uvloop

from tests.component.server_process import ServerProcess, serving
from tests.fuzz.sockets import MODEL, GrpcCaller, HttpCaller
from tests.fuzz.tensors import Tensor, make_pool, save_model

CLIENTS = 40
DRAIN = "5s"  # for so long the server serves on
GOING_ON = 1.5  # seconds that clients do
UNDER_WAY = 1.0  # seconds of load before the signal


async def keep_time(
    caller: HttpCaller, every: float, inputs: list[Tensor], outcomes: Counter[str]
) -> None:
    """Call every so many seconds until a while after the server has asked to go."""
    await asyncio.sleep(caller.random.random() * every)
    await caller.connect()
    due = time.monotonic()
    end = float("inf")
    while time.monotonic() < end:
        try:
            if caller.asked_to_go or caller.writer.is_closing():
                caller.writer.close()
                await caller.connect()
        except ConnectionRefusedError:
            break  # the server has gone
        try:
            await caller.call(inputs)
            outcomes["answered"] += 1
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            outcomes[f"lost: {type(error).__name__}"] += 1
            caller.writer.close()
        if caller.asked_to_go:
            end = min(end, time.monotonic() + GOING_ON)
        due += every
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    caller.writer.close()


async def stop_under_load(server: ServerProcess, rate: float) -> Counter[str]:
    """How the requests of one shutdown ended."""
    outcomes: Counter[str] = Counter()
    pool = make_pool(MODEL)
    callers = [
        (HttpCaller if index % 2 else GrpcCaller)(server.port, Random(index))
        for index in range(CLIENTS)
    ]
    begun = time.monotonic()
    calling = [
        asyncio.ensure_future(keep_time(caller, CLIENTS / rate, pool[0], outcomes))
        for caller in callers
    ]
    await asyncio.sleep(UNDER_WAY)
    server.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*calling)
    outcomes["per second"] = int(outcomes["answered"] / (time.monotonic() - begun))
    return outcomes


def main() -> None:
    """Stop so many servers, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shutdowns", type=int, default=20)
    parser.add_argument("--rate", type=float, default=5000.0, help="requests per second")
    given = parser.parse_args()
    total: Counter[str] = Counter()
    rates = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        save_model(path, MODEL)
        for _ in range(given.shutdowns):
            with serving(path, "--drain-delay", DRAIN, name=MODEL) as server:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    outcomes = runner.run(stop_under_load(server, given.rate))
                status, errors = server.wait()
            assert status == 0, errors
            rates.append(outcomes.pop("per second"))
            total += outcomes
    print(f"{given.shutdowns} shutdowns at {min(rates):,} to {max(rates):,} requests per second:")
    print(", ".join(f"{count:,} {how}" for how, count in total.items()))


if __name__ == "__main__":
    main()
