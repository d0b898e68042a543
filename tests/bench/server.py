"""The server's speed on one core: requests per second and CPU, beside the bare engine.

Run with `python -m tests.bench.server`. The server is pinned to one core, the clients to another.
Prints a Markdown table: minimum, median and maximum over the runs show the machine's noise.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper, numpy_helper

from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from tests.bench.load import Target, client_for, load
from tests.bench.peers.processes import REQUIREMENTS, running

LAYERS = (64, 512, 512, 10)
PROTOCOLS = {"binary": "HTTP binary", "json": "HTTP JSON", "grpc": "gRPC"}
BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Sample:
    """One run: throughput, CPU seconds of the server per 1,000 requests, latencies in ms."""

    per_second: float
    cpu_per_1000: float
    p50: float
    p99: float


def save_mlp(path: Path, layers: Sequence[int] = LAYERS) -> None:
    """A multilayer perceptron with random weights and a dynamic batch."""
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for index, (rows, columns) in enumerate(pairwise(layers)):
        weight = (random.standard_normal((rows, columns)) / rows**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"weight{index}"))
        weights.append(numpy_helper.from_array(np.zeros(columns, np.float32), f"bias{index}"))
        last = index == len(layers) - 2
        summed = "y" if last else f"sum{index}"
        nodes.append(helper.make_node("Gemm", [value, f"weight{index}", f"bias{index}"], [summed]))
        if not last:
            value = f"active{index}"
            nodes.append(helper.make_node("Relu", [summed], [value]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", layers[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", layers[-1]])],
        weights,
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def free_port() -> int:
    """A port below the ephemeral range that nothing listens on."""
    for port in range(20000, 30000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no free port between 20000 and 30000")


@contextmanager
def server(model: Path, core: int) -> Iterator[tuple[int, int]]:
    """A ready server on one core: its process id and port."""
    port = free_port()
    command = [sys.executable, "-c", "from kohort_server.main import main; main()", "serve"]
    command += [f"file://{model}", "--name", "mlp", "--revision", "1", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *command, "--port", str(port), "--drain-delay", "0s"]
    )
    try:
        while not answers(f"http://127.0.0.1:{port}/v2/health/ready"):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with status {process.returncode}")
            time.sleep(0.05)
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def measure_server(
    pid: int, port: int, protocol: str, target: Target, connections: int, seconds: float
) -> Sample:
    """One run against a server."""
    client = client_for(protocol, target)
    before = cpu_seconds(pid)
    start = time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        latencies = sorted(runner.run(load(port, client, connections, seconds)))
    taken = time.perf_counter() - start
    count = len(latencies)
    return Sample(
        count / taken,
        (cpu_seconds(pid) - before) * 1000 / count,
        latencies[count // 2] * 1000,
        latencies[count * 99 // 100] * 1000,
    )


def measure_engine(engine: OnnxRuntimeEngine, batch: int, seconds: float) -> Sample:
    """One run of the bare engine at one batch size."""
    inputs = {"x": np.zeros((batch, LAYERS[0]), np.float32)}
    count = 0
    cpu = time.process_time()
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        engine.run(inputs)
        count += batch
    taken = time.perf_counter() - start
    millis = taken / count * batch * 1000
    return Sample(count / taken, (time.process_time() - cpu) * 1000 / count, millis, millis)


def line(name: str, samples: Sequence[Sample]) -> str:
    """One line of the table: minimum / median / maximum of each figure."""

    def spread(figure: Callable[[Sample], float], digits: int) -> str:
        values = [figure(sample) for sample in samples]
        shown = (min(values), statistics.median(values), max(values))
        return " / ".join(f"{value:,.{digits}f}" for value in shown)

    return (
        f"| {name} | {spread(lambda s: s.per_second, 0)} | {spread(lambda s: s.cpu_per_1000, 4)} "
        f"| {spread(lambda s: s.p50, 2)} | {spread(lambda s: s.p99, 2)} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--peers", action="store_true", help="measure MLServer and KServe too")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "mlp.onnx"
        save_mlp(model)
        results: dict[str, list[Sample]] = {}
        with server(model, cores[0]) as (pid, port):
            os.sched_setaffinity(0, {cores[-1]})
            row = np.random.default_rng(1).standard_normal((1, LAYERS[0])).astype(np.float32)
            target = Target("mlp", "x", row)
            for protocol in PROTOCOLS:  # warm-up of both sides
                measure_server(pid, port, protocol, target, given.connections, 0.5)
            for _ in range(given.runs):
                for protocol, name in PROTOCOLS.items():
                    sample = measure_server(
                        pid, port, protocol, target, given.connections, given.seconds
                    )
                    results.setdefault(f"server, {name}", []).append(sample)
            resident = {"server": resident_megabytes(pid)}
        for peer in REQUIREMENTS if given.peers else ():
            ports = (free_port(), free_port() + 1)
            with running(peer, model, cores[0], ports) as pid:
                for protocol, port in (("json", ports[0]), ("grpc", ports[1])):
                    measure_server(pid, port, protocol, target, given.connections, 1)
                    for _ in range(given.runs):
                        sample = measure_server(
                            pid, port, protocol, target, given.connections, given.seconds
                        )
                        results.setdefault(f"{peer}, {PROTOCOLS[protocol]}", []).append(sample)
                resident[peer] = resident_megabytes(pid)
        engine = OnnxRuntimeEngine(model, threads=1)
        best = max(BATCHES, key=lambda batch: measure_engine(engine, batch, 0.2).per_second)
        for _ in range(given.runs):
            for batch in (1, best):
                sample = measure_engine(engine, batch, given.seconds / 3)
                results.setdefault(f"bare `session.run`, batch {batch}", []).append(sample)
    print(f"\nMLP {'-'.join(map(str, LAYERS))}, {given.connections} connections, one core each for")
    print(
        f"server and clients, {given.runs} runs of {given.seconds} s, minimum / median / maximum;"
    )
    held = ", ".join(f"{name} {size:.0f} MB" for name, size in resident.items())
    print(f"resident memory afterwards: {held}.\n")
    print("| | rows/s | CPU-s per 1,000 | p50 ms | p99 ms |\n|---|---|---|---|---|")
    for name, samples in results.items():
        print(line(name, samples))


if __name__ == "__main__":
    main()
