"""A million requests that nobody should send, and tens of thousands of connections that break off.

Run with `python -m tests.bench.fuzz`. The first part feeds the server's parsers in this process, the
second a server process over sockets; beside both, good clients check every answer. A failure is told
with its seed and round: `--seed S --first ROUND --requests 1` plays that round again.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import uvloop

from tests.component.server_process import serving
from tests.fuzz.sockets import MODEL, Told, open_files, resident_bytes, storm
from tests.fuzz.tensors import save_model
from tests.fuzz.world import World

WARM = 0.1  # the share after which memory is looked at for the first time


async def parsers(directory: Path, seed: int, first: int, requests: int) -> None:
    """So many requests in rounds."""
    begun = time.perf_counter()
    sent = warm = 0
    number = first
    async with World(directory) as world:
        while sent < requests:
            sent += await world.round(seed, number)
            number += 1
            if not warm and sent > WARM * requests:
                warm = resident_bytes()
                print(
                    f"in this process: {sent:,} requests, {warm / 1e6:.1f} MB resident", flush=True
                )
    taken = time.perf_counter() - begun
    print(
        f"in this process: {sent:,} requests in {number - first:,} rounds and {taken:.0f} s, "
        f"{resident_bytes() / 1e6:.1f} MB resident; nothing raised, logged, left, or answered wrongly; "
        f"the longest step took {world.longest[0] * 1e3:.0f} ms of CPU (round {world.longest[1]})"
    )


def connections(directory: Path, seed: int, count: int) -> None:
    """So many connections to a server process."""
    path = directory / "socket.onnx"
    save_model(path, MODEL)
    with serving(path, name=MODEL) as server:
        pid = server.process.pid
        files = open_files(pid)
        begun = time.perf_counter()
        for part, share in (("first", WARM), ("then", 1 - WARM)):
            sub_seed = 2 * seed + (part == "then")
            told: Told = asyncio.run(storm(server.port, sub_seed, int(count * share)))
            print(
                f"over sockets, {part}: {told.bad:,} bad connections {told.ways}, "
                f"{told.good:,} good answers, {resident_bytes(pid) / 1e6:.1f} MB resident",
                flush=True,
            )
        taken = time.perf_counter() - begun
        while open_files(pid) > files:
            time.sleep(0.05)
        server.process.terminate()
        status, errors = server.wait()
    assert status == 0, status
    complaints = [line for line in errors.splitlines() if " INFO " not in line]
    assert not complaints, complaints
    print(f"over sockets: {taken:.0f} s; no file is left open and nothing is in the log")


def main() -> None:
    """Do both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the first round")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=40_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(parsers(Path(directory), given.seed, given.first, given.requests))
        if given.connections:
            connections(Path(directory), given.seed, given.connections)


if __name__ == "__main__":
    main()
