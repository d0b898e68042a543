"""Inputs of 602 KB (1x3x224x224 FP32): what receiving one costs, and images beside the bare engine.

Run with `python -m tests.bench.large`. The floor is a process that only receives the same bytes into one
buffer and answers; everything is on one core, the clients on another.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import uvloop
from onnx import TensorProto, helper, numpy_helper

from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from tests.bench.load import Target, client_for, http_request, load
from tests.bench.server import cpu_seconds, free_port, resident_megabytes, server

SHAPE = (3, 224, 224)
CHANNELS = (3, 48, 96, 192, 384)
ROW = np.random.default_rng(1).standard_normal((1, *SHAPE)).astype(np.float32)
TARGET = Target("mlp", "x", ROW)


def save_first_element(path: Path) -> None:
    """A model that looks at one number of its input: all that is left is receiving."""
    constants = [
        numpy_helper.from_array(np.array(values, np.int64), name)
        for name, values in (("starts", [0, 0, 0]), ("ends", [1, 1, 1]), ("axes", [1, 2, 3]))
    ]
    nodes = [helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"])]
    save(path, nodes, constants, 1, 1, 1)


def save_images(path: Path) -> None:
    """A small convolutional network with random weights."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for index, (before, after) in enumerate(pairwise(CHANNELS)):
        kernel = (random.standard_normal((after, before, 3, 3)) / 9).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{index}"))
        strides, pads = [2, 2], [1, 1, 1, 1]
        conv = [last, f"kernel{index}"]
        nodes.append(helper.make_node("Conv", conv, [f"c{index}"], strides=strides, pads=pads))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        last = f"r{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["y"]))
    save(path, nodes, weights, CHANNELS[-1])


def save(path: Path, nodes: list[Any], weights: list[Any], *extents: int) -> None:
    """A model of images."""
    graph = helper.make_graph(
        nodes,
        "images",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *extents])],
        weights,
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


@contextmanager
def floor(core: int, size: int) -> Iterator[tuple[int, int]]:
    """A process that receives bodies of this size into one buffer: its process id and port."""
    port = free_port()
    child = os.fork()
    if not child:
        os.sched_setaffinity(0, {core})
        receive(port, size)
        os._exit(0)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield child, port
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def receive(port: int, size: int) -> None:
    """Answer each `size` bytes of each connection."""
    import select

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    buffer = memoryview(bytearray(size))
    poll = select.epoll()
    with socket.create_server(("127.0.0.1", port), backlog=100) as listener:
        connections: dict[int, list[Any]] = {}
        poll.register(listener, select.EPOLLIN)
        while True:
            for number, _ in poll.poll():
                if number == listener.fileno():
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    connections[connection.fileno()] = [connection, 0]
                    poll.register(connection, select.EPOLLIN)
                    continue
                state = connections[number]
                count = state[0].recv_into(buffer[state[1] :])
                state[1] += count
                if not count:
                    poll.unregister(number)
                    del connections[number]
                elif state[1] == size:
                    state[1] = 0
                    state[0].sendall(answer)


def measure(pid: int, port: int, protocol: str, connections: int, seconds: float) -> Any:
    """Requests per second and CPU microseconds of the server per request."""
    client = client_for(protocol, TARGET)
    before, start = cpu_seconds(pid), time.perf_counter()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        latencies = runner.run(load(port, client, connections, seconds))
    taken = time.perf_counter() - start
    return len(latencies) / taken, (cpu_seconds(pid) - before) * 1e6 / len(latencies)


def show(name: str, runs: list[Any]) -> None:
    """Medians and the range."""
    rates, costs = [run[0] for run in runs], [run[1] for run in runs]
    print(
        f"| {name} | {statistics.median(rates):,.0f} | {min(costs):,.0f} / "
        f"{statistics.median(costs):,.0f} / {max(costs):,.0f} |",
        flush=True,
    )


def measure_bare(engine: OnnxRuntimeEngine, seconds: float) -> Any:
    """The same of the engine alone, in this process."""
    count, cpu, start = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        engine.run({"x": ROW})
        count += 1
    taken = time.perf_counter() - start
    return count / taken, (time.process_time() - cpu) * 1e6 / count


def beside_bare(model: Path, cores: list[int], given: argparse.Namespace) -> None:
    """Images through the server and through the engine alone in turns on one core, and their ratio."""
    engine = OnnxRuntimeEngine(model, threads=1)
    with server(model, cores[0]) as (pid, port):
        for protocol in ("binary", "grpc"):
            for connections in given.connections:
                measure(pid, port, protocol, connections, 0.5)
                runs = []
                for _ in range(given.runs):
                    os.sched_setaffinity(0, {cores[0]})
                    bare = measure_bare(engine, given.seconds)
                    os.sched_setaffinity(0, {cores[-1]})
                    runs.append((measure(pid, port, protocol, connections, given.seconds), bare))
                name = f"images, {protocol}, {connections} connections"
                show(f"server, {name}", [run[0] for run in runs])
                show("bare `session.run` in the same turns", [run[1] for run in runs])
                rate = statistics.median(served[0] / bare[0] for served, bare in runs)
                cost = statistics.median(bare[1] / served[1] for served, bare in runs)
                print(
                    f"| bare to server, median of the turns | {rate:.2f} | {cost:.2f} |", flush=True
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    whole = len(http_request(TARGET, binary=True))
    print("| | requests/s | CPU µs per request, minimum / median / maximum |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        first, images = Path(directory) / "first.onnx", Path(directory) / "images.onnx"
        save_first_element(first)
        save_images(images)
        os.sched_setaffinity(0, {cores[-1]})
        servers: tuple[tuple[str, Callable[[], AbstractContextManager[tuple[int, int]]]], ...] = (
            ("received, nothing else", lambda: floor(cores[0], whole)),
            ("server, first element", lambda: server(first, cores[0])),
        )
        for name, started in servers:
            with started() as (pid, port):
                for protocol in ("binary", "grpc") if name.startswith("server") else ("binary",):
                    for connections in given.connections:
                        measure(pid, port, protocol, connections, 0.5)
                        runs = [
                            measure(pid, port, protocol, connections, given.seconds)
                            for _ in range(given.runs)
                        ]
                        show(f"{name}, {protocol}, {connections} connections", runs)
                print(f"resident: {resident_megabytes(pid):.0f} MB", file=sys.stderr)
        beside_bare(images, cores, given)


if __name__ == "__main__":
    main()
