"""What a model, a disk and a clock can do to a server."""

from __future__ import annotations

import http.client
import json
import resource
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from kohort.contract import FailureReason
from tests.component.server_process import (
    ServerProcess,
    encode,
    json_tensor,
    linear_model,
    save,
    serving,
    start,
    value,
)
from tests.component.test_server_lifecycle import failure_of, http_files

ROW = np.zeros((1, 64), np.float32)
AT_ONCE = ("--drain-delay", "0s")
INFER = "/v2/models/m/infer"


def infer(server: ServerProcess, array: Any, binary: bool = False) -> Any:
    """One inference."""
    request = {"inputs": [json_tensor("x", array)], "parameters": {"binary_data_output": binary}}
    return server.call("POST", INFER, encode(request))


def test_what_json_cannot_say_is_null_in_it_and_itself_in_binary(tmp_path: Path) -> None:
    model = save(
        tmp_path / "model.onnx",
        [helper.make_node("Log", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, ["batch", 1])],
        [value("y", TensorProto.FLOAT, ["batch", 1])],
    )
    rows = np.array([[-1.0], [0.0], [1.0]], np.float32)
    with serving(model, *AT_ONCE) as server:
        told = infer(server, rows)
        assert told.json["outputs"][0]["data"] == [None, None, 0.0]
        binary = infer(server, rows, binary=True)
        length = int(binary.headers["inference-header-content-length"])
        got = struct.unpack("<3f", binary.body[length:])
    np.testing.assert_array_equal(got, [np.nan, -np.inf, 0.0])


def table_model(path: Path) -> Path:
    """A model that raises for an index beyond its table of ten."""
    return save(
        path,
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [value("x", TensorProto.INT64, ["batch"])],
        [value("y", TensorProto.FLOAT, ["batch"])],
        numpy_helper.from_array(np.arange(10, dtype=np.float32), "table"),
    )


def test_a_model_that_raises_fails_the_request_alone(tmp_path: Path) -> None:
    model = table_model(tmp_path / "model.onnx")
    with serving(model, *AT_ONCE) as server, ThreadPoolExecutor(8) as clients:
        wanted = [index % 10 if index % 4 else 1000 for index in range(400)]
        arrays = [np.array([index], np.int64) for index in wanted]
        for index, told in zip(wanted, clients.map(infer, [server] * 400, arrays), strict=True):
            if index == 1000:
                assert told.status == 500
                assert told.json["error"].startswith("the model failed: ")
            else:
                assert (told.status, told.json["outputs"][0]["data"]) == (200, [index])
        metrics = server.call("GET", "/metrics").body.decode()
        server.process.terminate()
        status, errors = server.wait()
    assert 'nv_inference_request_failure{model="m",reason="BACKEND",version="r1"} 100.0' in metrics
    assert status == 0
    assert "Traceback" not in errors


def looping_model(path: Path, size: int = 64) -> Path:
    """A model that multiplies matrices as many times as it is told."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "matrix"], ["after"]),
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go_on", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [size, size]),
        ],
        [value("goes_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [size, size])],
    )
    return save(
        path,
        [
            helper.make_node("Loop", ["x", "", "matrix"], ["last"], body=body),
            helper.make_node("ReduceMax", ["last"], ["y"], keepdims=0),
        ],
        [value("x", TensorProto.INT64, [1])],
        [value("y", TensorProto.FLOAT, [])],
        numpy_helper.from_array(np.eye(size, dtype=np.float32), "matrix"),
    )


def seconds_of(server: ServerProcess, turns: int) -> float:
    """How long a request of so many turns takes."""
    begun = time.monotonic()
    assert infer(server, np.array([turns])).json["outputs"][0]["data"] == [1.0]
    return time.monotonic() - begun


def test_a_model_that_takes_seconds_for_some_inputs_silences_the_server_once_at_most(
    tmp_path: Path,
) -> None:
    with (
        serving(looping_model(tmp_path / "model.onnx"), *AT_ONCE) as server,
        ThreadPoolExecutor(1) as clients,
    ):
        turns = 50
        while min(seconds_of(server, turns), seconds_of(server, turns)) < 0.5:
            turns *= 2
        slow = clients.submit(infer, server, np.array([turns * 2]))
        time.sleep(0.2)
        answered = 0
        while not slow.done():
            assert server.call("GET", "/v2/health/ready").status == 200
            answered += 1
        assert answered > 5, "the server was silent"
        server.process.terminate()
        assert slow.result().status == 200  # what is accepted is answered
        assert server.wait()[0] == 0


def test_a_server_whose_log_and_output_cannot_be_written_serves(tmp_path: Path) -> None:
    model = linear_model(tmp_path / "model.onnx", "batch")
    with Path("/dev/full").open("w") as full:
        before = "import sys; sys.argv.remove('--revision'); sys.argv.remove('r1')"
        with serving(model, *AT_ONCE, before=before, stdout=full, stderr=full) as server:
            assert server.infer_ok()
            server.process.terminate()
            assert server.process.wait(60) == 0


def test_a_model_that_does_not_fit_the_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    cache = tmp_path / "cache"
    with http_files({"/model.onnx": (200, bytes(2 << 20), {})}) as url:
        server = start(f"{url}/model.onnx", "--cache-dir", str(cache), preexec_fn=little_room)
        reason, message = failure_of(server)
    assert reason == FailureReason.CACHE_UNUSABLE
    assert f"cannot write to {cache}" in message
    assert not list(cache.glob("models/*/files/*"))


def test_a_clock_that_steps_back_changes_no_answer_deadline_or_duration(tmp_path: Path) -> None:
    steps = (
        "import itertools, time\n"
        "real, count = time.time, itertools.count()\n"
        "time.time = lambda: real() - 3600 * next(count)"
    )
    model = linear_model(tmp_path / "model.onnx", "batch")
    with serving(model, *AT_ONCE, before=steps) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for _ in range(50):
            tensor = json_tensor("x", ROW)
            body = encode({"inputs": [tensor], "parameters": {"timeout": 20_000_000}})
            connection.request("POST", INFER, body)
            with connection.getresponse() as response:
                assert response.status == 200, response.read()
                json.loads(response.read())
        statistics = server.call("GET", "/v2/models/m/stats").json["model_stats"][0]
        assert 0 < statistics["inference_stats"]["success"]["ns"] < 60e9
        server.process.terminate()
        assert server.wait()[0] == 0


def test_the_log_is_json_where_asked_and_names_the_trace_of_a_request_that_failed(
    tmp_path: Path,
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    body = encode({"inputs": [json_tensor("x", np.array([1000]))]})
    with serving(table_model(tmp_path / "model.onnx"), *AT_ONCE, "--log-format", "json") as server:
        headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        assert server.call("POST", INFER, body, headers).status == 500
        server.process.terminate()
        status, errors = server.wait()
    assert status == 0
    told = [json.loads(line) for line in errors.splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, told))
    (failed,) = [line for line in told if line["level"] == "error"]
    assert failed["message"].startswith("the model failed: ")
    assert (failed["trace_id"], failed["span_id"]) == (trace, "00f067aa0ba902b7")
