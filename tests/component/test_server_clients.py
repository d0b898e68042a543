"""The clients that people have, unchanged, against a real server process."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from kohort_server.rpc import protobuf
from tests.component.clients import clients_told
from tests.component.server_process import ServerProcess, linear_model, serving

SERVICE = "/inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_model(tmp_path_factory.mktemp("model") / "model.onnx", "batch")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[ServerProcess]:
    with serving(model) as running:
        yield running


@pytest.fixture(scope="module")
def told(server: ServerProcess) -> dict[str, Any]:
    """What tritonclient and KServe's clients got."""
    return clients_told("m", f"127.0.0.1:{server.port}")


def wanted(model: Path, seed: int, count: int) -> list[float]:
    """The checksum of the bare model's answer."""
    rows = np.random.default_rng(seed).standard_normal((count, 64)).astype(np.float32)
    answer = onnxruntime.InferenceSession(model).run(None, {"x": rows})[0]
    return [float(value) for value in answer.sum(axis=0)]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient_is_told_of_server_and_model(told: dict[str, Any], protocol: str) -> None:
    answers = told[protocol]
    assert answers["live"]
    assert answers["ready"]
    assert [answers[what] for what in ("metadata", "config", "statistics")] == ["m", "m", "m"]
    assert answers["index"] == "READY"


@pytest.mark.parametrize(
    ("protocol", "form"),
    [
        *(("http", form) for form in ("binary", "json", "default", "gzip", "deflate")),
        *(("grpc", form) for form in ("binary", "gzip")),
        *(("kserve rest", form) for form in ("json", "binary", "binary out")),
        *(("kserve grpc", form) for form in ("raw", "typed")),
    ],
)
def test_clients_get_the_models_answers_in_every_form(
    told: dict[str, Any], model: Path, protocol: str, form: str
) -> None:
    np.testing.assert_allclose(told[protocol][form], wanted(model, 0, 3), rtol=1e-4)


@pytest.mark.parametrize("protocol", ["kserve rest", "kserve grpc"])
def test_kserves_clients_are_told_that_server_and_model_are_ready(
    told: dict[str, Any], protocol: str
) -> None:
    assert [told[protocol][what] for what in ("live", "ready", "model ready")] == [True] * 3


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient_gets_its_id_back(told: dict[str, Any], protocol: str) -> None:
    assert told[protocol]["id"] == "seven"


def test_a_large_message_of_grpc_arrives_whole(told: dict[str, Any], model: Path) -> None:
    np.testing.assert_allclose(told["grpc"]["large"], wanted(model, 1, 3000), rtol=1e-4)


@pytest.mark.parametrize(
    ("protocol", "what", "status", "message"),
    [
        ("http", "load", "501", "the operator decides"),
        ("http", "wrong shape", "400", "shape [-1, 64] wanted, got [1, 3]"),
        ("http", "unknown model", "404", 'serves the model "m"'),
        ("grpc", "load", "StatusCode.UNIMPLEMENTED", "the operator decides"),
        ("grpc", "wrong shape", "StatusCode.INVALID_ARGUMENT", "[-1, 64] wanted, got [1, 3]"),
        ("grpc", "unknown model", "StatusCode.NOT_FOUND", 'serves "m"'),
        ("kserve rest", "wrong shape", "400", "shape [-1, 64] wanted, got [1, 3]"),
        ("kserve grpc", "wrong shape", "StatusCode.INVALID_ARGUMENT", "[-1, 64] wanted"),
    ],
)
def test_a_client_is_refused_with_a_status_and_the_reason(
    told: dict[str, Any], protocol: str, what: str, status: str, message: str
) -> None:
    assert told[protocol][what][0] == status
    assert message in told[protocol][what][1]


def test_a_stream_is_answered_in_order_and_survives_a_bad_request(told: dict[str, Any]) -> None:
    answers = told["grpc"]["stream"]
    assert answers[:10] == [str(index) for index in range(10)]
    assert "[-1, 64] wanted, got [1, 3]" in answers[10]


def test_many_calls_on_one_connection_get_the_same_answer_also_after_a_cancelled_one(
    told: dict[str, Any], model: Path
) -> None:
    assert told["aio"]["same"] == 1
    np.testing.assert_allclose(told["aio"]["after a cancelled one"], wanted(model, 0, 3), rtol=1e-4)


# grpcio, without generated code.


def call(server: ServerProcess, path: str, message: bytes, **how: Any) -> bytes:
    """One unary call."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        answer: bytes = channel.unary_unary(path)(message, timeout=30, **how)
        return answer


def typed_request(datatype: str, shape: list[int], contents: dict[str, Any]) -> bytes:
    """A ModelInfer whose only input has typed contents."""
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "contents": contents}
    return protobuf.encode(
        "inference.ModelInferRequest", {"model_name": "m", "id": "typed", "inputs": [tensor]}
    )


def test_typed_contents_are_answered_in_typed_contents(server: ServerProcess, model: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    message = typed_request("FP32", [3, 64], {"fp32_contents": rows.reshape(-1)})
    answer = call(server, f"{SERVICE}/ModelInfer", message)
    told = protobuf.decode("inference.ModelInferResponse", answer)
    output = told["outputs"][0]
    assert (told["id"], output["name"], output["datatype"]) == ("typed", "y", "FP32")
    assert output["shape"].tolist() == [3, 10]
    got = np.reshape(output["contents"]["fp32_contents"], (3, 10)).sum(axis=0)
    np.testing.assert_allclose(got, wanted(model, 0, 3), rtol=1e-4)


@pytest.mark.parametrize(
    ("path", "message", "status", "told"),
    [
        ("/none.Such/Method", b"", grpc.StatusCode.UNIMPLEMENTED, "/none.Such/Method is not"),
        (f"{SERVICE}/ModelInfer", b"\xff", grpc.StatusCode.INVALID_ARGUMENT, "ModelInferRequest"),
        (
            f"{SERVICE}/ModelInfer",
            typed_request("FP32", [1, 64], {"fp32_contents": [1.0]}),
            grpc.StatusCode.INVALID_ARGUMENT,
            "wants 64 elements, fp32_contents has 1",
        ),
        (
            f"{SERVICE}/ModelInfer",
            typed_request("FP64", [1, 64], {"fp64_contents": [1.0] * 64}),
            grpc.StatusCode.INVALID_ARGUMENT,
            "datatype FP32 wanted, got FP64",
        ),
        (
            "/grpc.health.v1.Health/Check",
            protobuf.encode("grpc.health.v1.HealthCheckRequest", {"service": "none"}),
            grpc.StatusCode.NOT_FOUND,
            '"none" does not exist',
        ),
    ],
)
def test_a_call_that_cannot_be_answered_ends_with_a_status_and_the_reason(
    server: ServerProcess, path: str, message: bytes, status: grpc.StatusCode, told: str
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(server, path, message)
    assert raised.value.code() == status
    assert told in raised.value.details()


def test_the_standard_health_service_says_that_the_server_serves(server: ServerProcess) -> None:
    answer = call(server, "/grpc.health.v1.Health/Check", b"")
    assert protobuf.decode("grpc.health.v1.HealthCheckResponse", answer) == {"status": "SERVING"}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_tells_files_that_protobuf_itself_accepts(
    server: ServerProcess, version: str
) -> None:
    package = f"grpc.reflection.{version}"

    def ask(question: dict[str, str]) -> dict[str, Any]:
        message = protobuf.encode(f"{package}.ServerReflectionRequest", question)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            method = channel.stream_stream(f"/{package}.ServerReflection/ServerReflectionInfo")
            (answer,) = method(iter([message]), timeout=30)
            return protobuf.decode(f"{package}.ServerReflectionResponse", answer)

    listed = ask({"list_services": "*"})["list_services_response"]["service"]
    names = [service["name"] for service in listed]
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(names)
    pool = descriptor_pool.DescriptorPool()
    for name in names:
        files = ask({"file_containing_symbol": name})["file_descriptor_response"]
        for file in files["file_descriptor_proto"]:
            pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file))
        assert pool.FindServiceByName(name).methods
    request = pool.FindMessageTypeByName("inference.ModelInferRequest")
    made = message_factory.GetMessageClass(request)(model_name="m", id="7")
    told = protobuf.decode("inference.ModelInferRequest", made.SerializeToString())
    assert told == {"model_name": "m", "id": "7"}
    assert "error_response" in ask({"file_containing_symbol": "no.such.thing"})


def test_curl_is_answered_over_http_2_on_the_same_port(server: ServerProcess) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}
    url = f"http://127.0.0.1:{server.port}/v2/models/m/infer"
    for version in ("--http1.1", "--http2-prior-knowledge"):
        command = [curl, "-sS", version, "-w", "\n%{http_code}", url, "-d", "@-"]
        body = json.dumps({"inputs": [tensor]})
        run = subprocess.run(
            command, input=body, capture_output=True, text=True, timeout=30, check=True
        )
        answer, status = run.stdout.rsplit("\n", 1)
        assert status == "200"
        assert json.loads(answer)["outputs"][0]["shape"] == [1, 10]
