"""Several processes that serve one port: one server to its clients, to Prometheus, and to who stops it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.component.server_process import ServerProcess, linear_model, serving
from tests.fuzz.sockets import open_files

SIZE = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    model = linear_model(tmp_path / "model.onnx", "batch")
    with serving(model, "--workers", str(SIZE), "--drain-delay", "0s") as running:
        yield running


def others(server: ServerProcess) -> list[int]:
    """The processes that the first one has started."""
    pid = server.process.pid
    return [int(told) for told in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def becomes(true: Callable[[], bool]) -> bool:
    """Whether it does, within a while."""
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def runs(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_all_processes_serve_and_each_tells_what_all_have_counted(server: ServerProcess) -> None:
    pids = [server.process.pid, *others(server)]
    assert len(pids) == SIZE
    before = {pid: open_files(pid) for pid in pids}
    connections = [server.socket() for _ in range(60)]
    assert becomes(lambda: sum(map(open_files, pids)) >= sum(before.values()) + 60)
    assert all(open_files(pid) > before[pid] for pid in pids)
    for connection in connections:
        connection.close()
    for _ in range(60):
        assert server.infer_ok()
    resident = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    for _ in range(10):  # each on a connection of its own: of any process
        samples = dict(
            line.rsplit(" ", 1)
            for line in server.call("GET", "/metrics").body.decode().splitlines()
            if not line.startswith("#")
        )
        of = '{code="200",cohort="",model="m",revision="r1"}'
        assert float(samples[f"kohort_server_requests_total{of}"]) == 60
        assert float(samples['nv_inference_count{model="m",version="r1"}']) == 60
        memory = float(samples["process_resident_memory_bytes"]) / os.sysconf("SC_PAGE_SIZE")
        assert memory == pytest.approx(resident, rel=0.1)
        (stats,) = server.call("GET", "/v2/models/stats").json["model_stats"]
        assert stats["inference_stats"]["success"]["count"] == 60


def test_all_end_well_when_the_server_is_told_to_stop(server: ServerProcess) -> None:
    pids = others(server)
    server.process.send_signal(signal.SIGTERM)
    status, errors = server.wait()
    assert status == 0, errors
    assert not any(map(runs, pids))


def test_a_process_that_dies_takes_the_server_with_it(server: ServerProcess) -> None:
    pids = others(server)
    os.kill(pids[0], signal.SIGKILL)
    status, errors = server.wait()
    assert status == 1
    assert f"process {pids[0]} ended with status -9" in errors
    assert not any(map(runs, pids))


def test_none_is_left_when_the_first_process_dies(server: ServerProcess) -> None:
    pids = others(server)
    server.process.kill()
    assert becomes(lambda: not any(map(runs, pids)))


def test_a_port_that_is_taken_is_told_though_processes_would_share_it(tmp_path: Path) -> None:
    model = linear_model(tmp_path / "model.onnx", "batch")
    with serving(model) as first:
        with (
            pytest.raises(RuntimeError, match="cannot listen"),
            serving(model, "--workers", "2", "--port", str(first.port)),
        ):
            pass
        assert first.infer_ok()
