"""The Open Inference Protocol against a real server process and real ONNX models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from kohort_server.datatypes import BFLOAT16
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from tests.component.server_process import (
    FEATURES,
    ServerProcess,
    encode,
    json_tensor,
    linear_model,
    save,
    serving,
    value,
)

INFER = "/v2/models/m/infer"


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Random inputs."""
    return np.random.default_rng(seed).standard_normal((count, FEATURES)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_model(tmp_path_factory.mktemp("model") / "model.onnx", "batch")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[ServerProcess]:
    with serving(model) as running:
        yield running


@pytest.fixture(scope="module")
def bare(model: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/m/ready", {"name": "m", "ready": True}),
        ("/v2/models/m/versions/r1/ready", {"name": "m", "ready": True}),
        ("/v2/models/m/versions/1/ready?verbose", {"name": "m", "ready": True}),
        (
            "/v2/models/m",
            {
                "name": "m",
                "versions": ["r1"],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
            },
        ),
    ],
)
def test_health_and_metadata_are_as_the_protocol_says(
    server: ServerProcess, path: str, body: object
) -> None:
    answer = server.call("GET", path)
    assert (answer.status, answer.json) == (200, body)
    assert answer.headers["content-type"] == "application/json"


def test_the_server_tells_its_extensions(server: ServerProcess) -> None:
    assert server.call("GET", "/v2").json["extensions"][0] == "binary_tensor_data"


@pytest.mark.parametrize("count", [1, 16, 100])
def test_json_is_answered_with_what_the_bare_model_says(
    server: ServerProcess, bare: onnxruntime.InferenceSession, count: int
) -> None:
    answer = server.infer(rows(count))
    output = answer.json["outputs"][0]
    assert answer.status == 200
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [count, 10])
    wanted = bare.run(None, {"x": rows(count)})[0]
    np.testing.assert_allclose(np.reshape(output["data"], (count, 10)), wanted, atol=1e-6)


@pytest.mark.parametrize("count", [1, 16, 3000])
def test_binary_is_answered_in_binary(
    server: ServerProcess, bare: onnxruntime.InferenceSession, count: int
) -> None:
    sent = rows(count)
    tensor = {"name": "x", "shape": list(sent.shape), "datatype": "FP32"}
    size = {"parameters": {"binary_data_size": sent.nbytes}}
    asked = {"parameters": {"binary_data_output": True}}
    header = encode({"id": "seven", "inputs": [tensor | size], **asked})
    length = {"Inference-Header-Content-Length": str(len(header))}
    answer = server.call("POST", INFER, header + sent.tobytes(), length)
    told = answer.json
    assert (answer.status, told["id"], told["model_version"]) == (200, "seven", "r1")
    assert told["outputs"][0]["parameters"] == {"binary_data_size": count * 40}
    got = answer.body[int(answer.headers["inference-header-content-length"]) :]
    wanted = bare.run(None, {"x": sent})[0]
    np.testing.assert_allclose(np.frombuffer(got, np.float32).reshape(-1, 10), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("GET", "/nothing", None, 404, "/nothing does not exist"),
        ("GET", "/v2/models/other", None, 404, 'serves the model "m"'),
        ("POST", "/v2/models/other/infer", b"{}", 404, 'serves the model "m"'),
        ("POST", "/v2/models/m/versions/7/infer", b"{}", 404, 'the version "r1"'),
        ("GET", INFER, None, 405, "use POST"),
        ("POST", INFER, b"", 400, "not valid"),
        ("POST", "/v2/repository/index", b'{"x":' + b"[" * 9999, 400, "not valid"),
        ("POST", INFER, b"{]", 400, "not valid"),
        ("POST", INFER, b'{"inputs":[]}', 400, 'input "x" is missing'),
    ],
)
def test_an_error_is_always_json_with_an_error_in_it(
    server: ServerProcess, method: str, path: str, body: bytes | None, status: int, told: str
) -> None:
    answer = server.call(method, path, body)
    assert answer.status == status
    assert list(answer.json) == ["error"]
    assert told in answer.json["error"]


def test_a_wrong_header_length_is_refused(server: ServerProcess) -> None:
    for length in ("x", "-1", "99999"):
        headers = {"Inference-Header-Content-Length": length}
        assert server.call("POST", INFER, b"{}", headers).status == 400


def test_a_model_exported_for_one_row_serves_one_and_refuses_sixteen(tmp_path: Path) -> None:
    with serving(linear_model(tmp_path / "model.onnx", 1)) as server:
        assert server.infer(rows(1)).status == 200
        refused = server.infer(rows(16))
        assert refused.status == 400
        assert refused.json == {"error": 'input "x": shape [1, 64] wanted, got [16, 64]'}
        assert server.infer(rows(1)).status == 200


def test_a_classifier_from_scikit_learn_answers_labels_and_probabilities(tmp_path: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32) / 16
    classifier = LogisticRegression(max_iter=200).fit(images, labels)
    converted = to_onnx(classifier, images[:1], options={"zipmap": False})
    path = tmp_path / "model.onnx"
    path.write_bytes(converted.SerializeToString())
    with serving(path) as server:
        answer = server.infer(images[:50], name="X")
    label, probabilities = answer.json["outputs"]
    assert label["data"] == classifier.predict(images[:50]).tolist()
    assert label["datatype"] == "INT64"
    assert probabilities["shape"] == [50, 10]


def test_strings_and_booleans_go_through_a_real_model(tmp_path: Path) -> None:
    path = save(
        tmp_path / "model.onnx",
        [
            helper.make_node("Identity", ["text"], ["same"]),
            helper.make_node("Not", ["flag"], ["flipped"]),
        ],
        [value("text", TensorProto.STRING, ["n"]), value("flag", TensorProto.BOOL, ["n"])],
        [value("same", TensorProto.STRING, ["n"]), value("flipped", TensorProto.BOOL, ["n"])],
    )
    inputs = [
        {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["añ", ""]},
        json_tensor("flag", np.array([True, False])),
    ]
    with serving(path) as server:
        plain = server.call("POST", INFER, encode({"inputs": inputs}))
        wanted = {"inputs": inputs, "parameters": {"binary_data_output": True}}
        binary = server.call("POST", INFER, encode(wanted))
    assert [output["data"] for output in plain.json["outputs"]] == [["añ", ""], [False, True]]
    tail = binary.body[int(binary.headers["inference-header-content-length"]) :]
    assert tail == b"\x03\0\0\0" + "añ".encode() + b"\0\0\0\0" + b"\x00\x01"


def test_bfloat16_goes_in_and_out_in_json_and_in_binary(tmp_path: Path) -> None:
    path = save(
        tmp_path / "model.onnx",
        [
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["wide", "wide"], ["square"]),
            helper.make_node("Cast", ["square"], ["y"], to=TensorProto.BFLOAT16),
            helper.make_node("Identity", ["n"], ["same"]),
        ],
        [value("x", TensorProto.BFLOAT16, ["b", 2]), value("n", TensorProto.INT64, ["b"])],
        [value("y", TensorProto.BFLOAT16, ["b", 2]), value("same", TensorProto.INT64, ["b"])],
    )
    numbers = json_tensor("n", np.array([7, 8]))
    plain = {"name": "x", "shape": [2, 2], "datatype": "BF16", "data": [1.5, -2.0, 0.0, 3.0]}
    sent = np.array(plain["data"], BFLOAT16).tobytes()
    short = {"name": "x", "shape": [2, 2], "datatype": "BF16"}
    header = encode(
        {
            "inputs": [{**short, "parameters": {"binary_data_size": len(sent)}}, numbers],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}, {"name": "same"}],
        }
    )
    with serving(path) as server:
        told = server.call("POST", INFER, encode({"inputs": [plain, numbers]})).json["outputs"]
        length = {"Inference-Header-Content-Length": str(len(header))}
        binary = server.call("POST", INFER, header + sent, length)
        empty = [{**plain, "shape": [0, 2], "data": []}, json_tensor("n", np.array([], np.int64))]
        nothing = server.call("POST", INFER, encode({"inputs": empty})).json["outputs"]
    assert [output["data"] for output in told] == [[2.25, 4.0, 0.0, 9.0], [7, 8]]
    assert told[0]["datatype"] == "BF16"
    tail = binary.body[int(binary.headers["inference-header-content-length"]) :]
    assert np.frombuffer(tail, BFLOAT16).tolist() == [2.25, 4.0, 0.0, 9.0]
    assert nothing[0] == {"name": "y", "datatype": "BF16", "shape": [0, 2], "data": []}


def test_bfloat16_beside_text_goes_in_and_is_refused_where_it_would_come_out(
    tmp_path: Path,
) -> None:
    def model(kind: int) -> Path:
        return save(
            tmp_path / "model.onnx",
            [
                helper.make_node("Cast", ["x"], ["y"], to=kind),
                helper.make_node("Identity", ["text"], ["same"]),
            ],
            [value("x", TensorProto.BFLOAT16, ["b"]), value("text", TensorProto.STRING, ["b"])],
            [value("y", kind, ["b"]), value("same", TensorProto.STRING, ["b"])],
        )

    inputs = [
        {"name": "x", "shape": [1], "datatype": "BF16", "data": [1.5]},
        {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["añ"]},
    ]
    with serving(model(TensorProto.FLOAT)) as server:
        told = server.call("POST", INFER, encode({"inputs": inputs})).json["outputs"]
    assert [output["data"] for output in told] == [[1.5], ["añ"]]
    with pytest.raises(StartFailure, match='text input "text" and outputs of BF16'):
        OnnxRuntimeEngine(model(TensorProto.BFLOAT16), 1)


async def test_requests_in_a_crowd_get_the_answers_they_would_get_alone(
    server: ServerProcess, bare: onnxruntime.InferenceSession
) -> None:
    async def one(session: aiohttp.ClientSession, seed: int) -> None:
        sent = rows(1 + seed % 5, seed)
        body = encode({"id": str(seed), "inputs": [json_tensor("x", sent)]})
        headers = {"x-kohort-cohort": f"c{seed % 2}"}
        url = f"http://127.0.0.1:{server.port}{INFER}"
        async with session.post(url, data=body, headers=headers) as response:
            told = await response.json()
        wanted = bare.run(None, {"x": sent})[0]
        assert told["id"] == str(seed)
        got = np.reshape(told["outputs"][0]["data"], (-1, 10))
        np.testing.assert_allclose(got, wanted, atol=1e-6)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session, seed) for seed in range(300)))
    metrics = server.call("GET", "/metrics").body.decode()
    samples = {
        (sample.name, sample.labels.get("cohort"), sample.labels.get("code")): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.labels.get("revision") == "r1"
    }
    assert samples["kohort_server_requests_total", "c0", "200"] == 150
    assert samples["kohort_server_request_duration_seconds_count", "c1", "200"] == 150
    assert samples["kohort_server_queue_rows", None, None] == 0
    batches = samples["kohort_server_batch_rows_count", None, None]
    assert batches < samples["kohort_server_batch_rows_sum", None, None]


def test_no_metric_is_lost_when_cohorts_are_made_up(server: ServerProcess) -> None:
    body = json.dumps({"inputs": []}).encode()
    for number in range(250):
        server.call("POST", INFER, body, {"x-kohort-cohort": f"made-up-{number}"})
    metrics = server.call("GET", "/metrics").body.decode()
    totals = [
        sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "kohort_server_requests_total"
        and sample.labels["cohort"].startswith(("made-up", "other"))
    ]
    assert sum(totals) == 250
    assert len(totals) <= 201


def test_what_the_process_is_doing_is_told_only_where_that_was_asked_for(
    server: ServerProcess, model: Path
) -> None:
    assert server.call("GET", "/debug/stacks").status == 404
    with serving(model, "--debug") as debugged:
        assert "MainThread:" in debugged.call("GET", "/debug/stacks").body.decode()
        state = debugged.call("GET", "/debug/state").json
        assert (state["connections"], state["unanswered"], state["body_bytes"]) == (1, 1, 0)
        through_gateway = {"x-kohort-revision": "r1"}
        assert debugged.call("GET", "/debug/state", headers=through_gateway).status == 404


def test_clients_of_a_gateway_see_no_metrics(server: ServerProcess) -> None:
    through_gateway = server.call("GET", "/metrics", headers={"x-kohort-revision": "r1"})
    assert through_gateway.status == 404
    assert server.call("GET", "/metrics").status == 200
