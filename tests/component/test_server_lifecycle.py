"""A server's life: starts that fail, overload, and a shutdown that loses nothing."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import numpy as np
import pytest

from kohort.contract import FailureReason, parse_failure
from kohort_server.rpc import protobuf
from tests.component.server_process import (
    FEATURES,
    ServerProcess,
    encode,
    json_tensor,
    linear_model,
    serving,
    slow_model,
    start,
    wait_until_ready,
)

ROW = np.zeros((1, FEATURES), np.float32)
INFER_BODY = encode({"inputs": [json_tensor("x", ROW)]})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return linear_model(tmp_path / "model.onnx", "batch")


@contextmanager
def http_files(files: dict[str, tuple[int, bytes, dict[str, str]]]) -> Iterator[str]:
    """A web server of fixed answers: path → (status, body, headers)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = files.get(self.path, (404, b"", {}))
            self.send_response(status)
            for name, told in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, told)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_address[1]}"
        web.shutdown()


def failure_of(server: ServerProcess) -> tuple[FailureReason, str]:
    """Why a server did not start, as the operator reads it: from the last line."""
    status, errors = server.wait()
    assert status == 1
    failure = parse_failure(errors.splitlines()[-1])
    assert failure is not None, errors
    return failure.reason, failure.message


def test_a_missing_file_is_told_by_its_path() -> None:
    reason, message = failure_of(start("file:///nowhere/model.onnx"))
    assert reason == FailureReason.MODEL_NOT_FOUND
    assert "/nowhere/model.onnx" in message


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model at all")
    reason, message = failure_of(start(path.as_uri()))
    assert reason == FailureReason.MODEL_INVALID
    assert "model.onnx" in message


def test_a_digest_that_differs_is_told_with_both(model: Path) -> None:
    wanted = f"sha256:{'0' * 64}"
    reason, message = failure_of(start(model.as_uri(), "--digest", wanted))
    assert reason == FailureReason.DIGEST_MISMATCH
    assert wanted in message
    assert hashlib.sha256(model.read_bytes()).hexdigest() in message


def test_a_model_is_downloaded_once_verified_and_kept(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    cache = tmp_path / "cache"
    options = ("--digest", digest, "--cache-dir", str(cache))
    files = {
        "/model.onnx": (200, content, {}),
        "/moved": (302, b"", {"Location": "/model.onnx"}),
    }
    with http_files(files) as url:
        server = start(f"{url}/moved", *options)
        wait_until_ready(server)
        assert server.infer_ok()
        server.process.send_signal(signal.SIGKILL)
        server.wait()
    (kept,) = cache.glob("models/*/files/*")
    assert kept.read_bytes() == content
    again = start(f"{url}/moved", *options)  # nobody listens there any more
    wait_until_ready(again)
    again.process.send_signal(signal.SIGKILL)
    again.wait()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", FailureReason.MODEL_NOT_FOUND),
        ("/forbidden", FailureReason.ACCESS_DENIED),
        ("/loop", FailureReason.DOWNLOAD_FAILED),
        ("/cut", FailureReason.DOWNLOAD_FAILED),
        ("/other", FailureReason.DIGEST_MISMATCH),
    ],
)
def test_a_download_that_fails_is_told_and_leaves_nothing(
    tmp_path: Path, path: str, reason: FailureReason
) -> None:
    files = {
        "/forbidden": (403, b"", {}),
        "/loop": (302, b"", {"Location": "/loop"}),
        "/cut": (200, b"short", {"Content-Length": "500"}),
        "/other": (200, b"other", {}),
    }
    options = ("--cache-dir", str(tmp_path), "--digest", f"sha256:{'1' * 64}")
    with http_files(files) as url:
        assert failure_of(start(f"{url}{path}", *options))[0] == reason
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size] == []


def test_the_port_answers_while_the_model_is_still_on_its_way(tmp_path: Path) -> None:
    class NeverEnding(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            ended.wait(60)

        def log_message(self, format: str, *args: object) -> None:
            pass

    asked, ended = threading.Event(), threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), NeverEnding) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_address[1]}/model.onnx"
        server = start(url, "--cache-dir", str(tmp_path))
        assert asked.wait(30)
        assert server.call("GET", "/v2/health/live").status == 200
        ready = server.call("GET", "/v2/health/ready")
        assert (ready.status, ready.json["ready"]) == (503, False)
        assert server.infer(ROW).status == 503
        server.process.send_signal(signal.SIGTERM)
        assert server.wait()[0] == 0
        ended.set()
        web.shutdown()


async def keep_asking(port: int, outcomes: Counter[str], busy: asyncio.Event) -> None:
    """A client that goes on for a while after it was asked to go, as until a route has changed."""
    url = f"http://127.0.0.1:{port}/v2/models/m/infer"
    farewells = 0
    async with aiohttp.ClientSession() as session:
        while farewells < 20:
            try:
                async with session.post(url, data=INFER_BODY) as response:
                    await response.read()
                    outcomes[str(response.status)] += 1
                    farewells += response.headers.get("connection") == "close"
            except aiohttp.ClientError as error:
                outcomes[type(error).__name__] += 1
                return
            if outcomes["200"] > 500:
                busy.set()


async def test_a_shutdown_under_load_loses_no_request(model: Path) -> None:
    with serving(model, "--drain-delay", "3s") as server:
        outcomes: Counter[str] = Counter()
        busy = asyncio.Event()
        clients = [
            asyncio.ensure_future(keep_asking(server.port, outcomes, busy)) for _ in range(16)
        ]
        await busy.wait()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        ready = await asyncio.to_thread(server.call, "GET", "/v2/health/ready")
        assert (ready.status, ready.headers["connection"]) == (503, "close")
        status, _ = await asyncio.to_thread(server.wait)
    assert status == 0
    assert set(outcomes) == {"200"}


def test_a_request_that_is_running_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    with serving(slow_model(tmp_path / "model.onnx"), "--drain-delay", "0s") as server:
        with ThreadPoolExecutor(3) as clients:
            answers = [clients.submit(server.infer, ROW) for _ in range(3)]
            while "queue_rows{" not in (told := metrics_of(server)) or waiting(told) == 0:
                pass
            server.process.send_signal(signal.SIGTERM)
            assert [answer.result().status for answer in answers] == [200] * 3
        assert server.wait()[0] == 0


def test_overload_is_refused_at_once_and_what_nobody_waits_for_is_not_run(tmp_path: Path) -> None:
    with serving(slow_model(tmp_path / "model.onnx")) as server:
        request = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (
            len(INFER_BODY),
            INFER_BODY,
        )
        crowd: list[socket.socket] = []
        while (answer := server.call("GET", "/metrics")).status == 200 and len(crowd) < 400:
            connection = server.socket()
            connection.sendall(request)
            crowd.append(connection)
            if len(crowd) % 20 == 0 and refused_of(answer.body.decode()):
                break
        told = metrics_of(server)
        assert refused_of(told) > 0
        assert server.call("GET", "/v2/health/ready").status == 200
        refused = server.infer(ROW)
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "overloaded" in refused.json["error"]
        queued = waiting(metrics_of(server))
        before = batches_of(metrics_of(server))
        for connection in crowd:
            connection.close()
        while server.infer(ROW).status != 200:
            pass
        assert batches_of(metrics_of(server)) - before < queued


def metrics_of(server: ServerProcess) -> str:
    """The server's metrics as text."""
    return server.call("GET", "/metrics").body.decode()


def sample(metrics: str, start_of_line: str, also: str = "") -> float:
    """The sum of the samples whose lines begin so."""
    lines = [line for line in metrics.splitlines() if line.startswith(start_of_line)]
    return sum(float(line.rpartition(" ")[2]) for line in lines if also in line)


def waiting(metrics: str) -> float:
    """Rows that wait."""
    return sample(metrics, "kohort_server_queue_rows{")


def batches_of(metrics: str) -> float:
    """Runs of the model."""
    return sample(metrics, "kohort_server_batch_rows_count{")


def refused_of(metrics: str) -> float:
    """Requests that were refused for overload."""
    return sample(metrics, "kohort_server_requests_total{", 'code="503"')


async def keep_calling(port: int, outcomes: Counter[str], busy: asyncio.Event) -> None:
    """Call over gRPC until once after the server has begun to drain."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, FEATURES]}
    message = protobuf.encode(
        "inference.ModelInferRequest",
        {"model_name": "m", "inputs": [tensor], "raw_input_contents": [bytes(4 * FEATURES)]},
    )
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        draining = False
        for _ in range(100_000):
            try:
                await call(message, timeout=30)
                outcomes["OK"] += 1
                told = protobuf.decode("inference.ServerReadyResponse", await ready(b""))
            except grpc.aio.AioRpcError as error:
                outcomes[f"{error.code().name}: {error.details()}"] += 1
                return
            if draining:
                return
            draining = not told.get("ready", False)
            if outcomes["OK"] > 200:
                busy.set()


async def test_a_shutdown_under_load_loses_no_call_of_grpc_either(model: Path) -> None:
    with serving(model, "--drain-delay", "3s") as server:
        outcomes: Counter[str] = Counter()
        busy = asyncio.Event()
        clients = [
            asyncio.ensure_future(keep_calling(server.port, outcomes, busy)) for _ in range(8)
        ]
        await busy.wait()
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        status, _ = await asyncio.to_thread(server.wait)
    assert status == 0
    assert set(outcomes) == {"OK"}
