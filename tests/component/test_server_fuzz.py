"""Requests that nobody should send: a sample of what `python -m tests.bench.fuzz` does for longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.server_process import ServerProcess, serving
from tests.fuzz.sockets import MODEL, open_files, storm
from tests.fuzz.tensors import save_model
from tests.fuzz.world import World

SEED = 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    save_model(tmp_path / "model.onnx", MODEL)
    with serving(tmp_path / "model.onnx", "--drain-delay", "0s", name=MODEL) as running:
        yield running


def test_no_bytes_make_the_server_fail_break_the_protocol_or_answer_others_wrongly(
    tmp_path: Path,
) -> None:
    async def rounds() -> int:
        async with World(tmp_path) as world:
            return sum([await world.round(SEED, number) for number in range(300)])

    assert asyncio.run(rounds()) > 5000


def test_clients_that_break_off_or_stall_leave_nothing_behind_and_harm_nobody(
    server: ServerProcess,
) -> None:
    before = open_files(server.process.pid)
    told = asyncio.run(storm(server.port, SEED, connections=600))
    assert told.bad == 600
    assert told.good > 100
    end = time.monotonic() + 30
    while (left := open_files(server.process.pid)) > before and time.monotonic() < end:
        time.sleep(0.05)
    assert left <= before
    server.process.terminate()
    status, errors = server.wait()
    assert status == 0
    assert {line.split()[2] for line in errors.splitlines()} == {"INFO"}, errors
