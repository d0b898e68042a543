"""A real server process, the models it serves, and raw and ordinary ways to call it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kohort_server.conformance import Answer, call

FEATURES = 64
CLASSES = 10
START_SECONDS = 30.0


@dataclass
class ServerProcess:
    """A running server."""

    process: subprocess.Popen[str]
    port: int

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        return call(("127.0.0.1", self.port), method, path, body, headers)

    def infer(self, rows: NDArray[Any], model: str = "m", name: str = "x") -> Answer:
        """An inference in JSON."""
        tensor = json_tensor(name, rows)
        return self.call("POST", f"/v2/models/{model}/infer", encode({"inputs": [tensor]}))

    def infer_ok(self) -> bool:
        """Whether the linear model answers."""
        return self.infer(np.zeros((1, FEATURES), np.float32)).status == 200

    def socket(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def wait(self) -> tuple[int, str]:
        """Its exit status and stderr."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


DATATYPES = {"float32": "FP32", "int64": "INT64", "bool": "BOOL", "float64": "FP64"}


def json_tensor(name: str, array: NDArray[Any]) -> dict[str, Any]:
    """A tensor of a request in JSON."""
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": DATATYPES[array.dtype.name],
        "data": array.reshape(-1).tolist(),
    }


def encode(value: Any) -> bytes:
    """JSON as bytes."""
    return json.dumps(value).encode()


def free_port() -> int:
    """A port below the ephemeral range that nobody listens on."""
    start = 10000 + os.getpid() % 9000
    for port in range(start, 30000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free between 10000 and 30000")


def start(
    uri: str,
    *options: str,
    name: str = "m",
    revision: str = "r1",
    before: str = "",
    **how: Any,
) -> ServerProcess:
    """A server that was just started; it may fail.

    `before` is Python that runs before it does; `how` goes to `Popen`.
    """
    port = free_port()
    command = [sys.executable, "-c", f"{before}\nfrom kohort_server.main import main; main()"]
    command += ["serve", uri, "--name", name, "--revision", revision, "--host", "127.0.0.1"]
    command += ["--port", str(port), *options]
    process = subprocess.Popen(command, **{"stderr": subprocess.PIPE, "text": True, **how})
    return ServerProcess(process, port)


@contextmanager
def serving(model: Path, *options: str, **how: Any) -> Iterator[ServerProcess]:
    """A server that is ready; killed at the end if it still runs."""
    server = start(model.as_uri(), *options, **how)
    try:
        wait_until_ready(server)
        yield server
    finally:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGKILL)
        server.process.communicate()


def wait_until_ready(server: ServerProcess) -> None:
    """Return when the server says that it is ready."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            if server.call("GET", "/v2/health/ready").status == 200:
                return
        except OSError:
            if server.process.poll() is not None:
                raise RuntimeError(f"the server ended: {server.wait()[1]}") from None
        time.sleep(0.02)
    raise RuntimeError("the server did not become ready")


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *weights: Any,
    opsets: Mapping[str, int] | None = None,
) -> Path:
    """A model file of these nodes, of ONNX's opset 17 or of these."""
    graph = helper.make_graph(list(nodes), "model", list(inputs), list(outputs), list(weights))
    used = [helper.make_opsetid(*opset) for opset in (opsets or {"": 17}).items()]
    onnx.save(helper.make_model(graph, opset_imports=used, ir_version=9), path)
    return path


def value(name: str, kind: int, shape: Sequence[int | str]) -> Any:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def linear_model(path: Path, batch: int | str) -> Path:
    """Softmax of a linear map from 64 features to 10 classes, for a fixed or any batch."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((FEATURES, CLASSES)).astype(np.float32)
    return save(
        path,
        [
            helper.make_node("MatMul", ["x", "weight"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, [batch, FEATURES])],
        [value("y", TensorProto.FLOAT, [batch, CLASSES])],
        numpy_helper.from_array(weight, "weight"),
    )


def slow_model(path: Path, size: int = 1800) -> Path:
    """A model that takes some tenths of a second per request: products of large matrices."""
    columns = np.full((1, size), 1e-3, np.float32)
    rows = np.full((size, 1), 1e-3, np.float32)
    return save(
        path,
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Add", ["columns", "sum"], ["shifted"]),
            helper.make_node("MatMul", ["rows", "shifted"], ["square"]),
            helper.make_node("MatMul", ["square", "square"], ["cube"]),
            helper.make_node("MatMul", ["cube", "square"], ["power"]),
            helper.make_node("ReduceMean", ["power"], ["y"], axes=[0, 1], keepdims=1),
        ],
        [value("x", TensorProto.FLOAT, [1, FEATURES])],
        [value("y", TensorProto.FLOAT, [1, 1])],
        numpy_helper.from_array(columns, "columns"),
        numpy_helper.from_array(rows, "rows"),
    )
