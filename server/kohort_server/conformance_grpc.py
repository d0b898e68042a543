"""The conformance suite over gRPC: the protocol's own calls, the extensions', and health."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np

from kohort_server.datatypes import FIXED_SIZE, element_count
from kohort_server.front.grpc_codec import CONTENTS
from kohort_server.rpc import protobuf

TIMEOUT = 30.0  # seconds
SERVICE = "inference.GRPCInferenceService"

Values = dict[str, Any]


class GrpcSubject:
    """The server, and the model that it is asked for."""

    def __init__(self, address: str, model: str) -> None:
        self.model = model
        self._channel = grpc.insecure_channel(address)
        self.metadata = self.call("ModelMetadata", {"name": model})

    def call(self, method: str, values: Values, message: str = "") -> Values:
        """One call; `message` where its messages are not named as it is. Raises `grpc.RpcError`."""
        name = f"inference.{message or method}"
        path = f"/{SERVICE}/{method}"
        answer = self._channel.unary_unary(path)(
            protobuf.encode(f"{name}Request", values), timeout=TIMEOUT
        )
        return protobuf.decode(f"{name}Response", answer)

    def call_standard(self, path: str) -> bytes:
        """A call of another service with an empty message."""
        answer: bytes = self._channel.unary_unary(path)(b"", timeout=TIMEOUT)
        return answer

    def request(self, raw: bool, **more: Any) -> Values:
        """An inference of zeros."""
        inputs = []
        contents = []
        for given in self.metadata["inputs"]:
            shape = [1 if extent < 0 else int(extent) for extent in given["shape"]]
            datatype = given["datatype"]
            tensor: Values = {"name": given["name"], "shape": shape, "datatype": datatype}
            zeros = np.zeros(element_count(shape), FIXED_SIZE[datatype].dtype)
            if raw:
                contents.append(zeros.tobytes())
            else:
                tensor["contents"] = {CONTENTS[datatype]: zeros}
            inputs.append(tensor)
        told: Values = {"model_name": self.model, "inputs": inputs, **more}
        return told | {"raw_input_contents": contents} if raw else told

    def infer(self, request: Values) -> Values:
        """A ModelInfer."""
        return self.call("ModelInfer", request)

    def stream(self, requests: list[Values]) -> list[Values]:
        """The answers to requests on one stream."""
        encoded = [protobuf.encode("inference.ModelInferRequest", told) for told in requests]
        method = self._channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        answers = method(iter(encoded), timeout=TIMEOUT)
        return [protobuf.decode("inference.ModelStreamInferResponse", told) for told in answers]


def expect_status(call: Callable[[], Any], *wanted: grpc.StatusCode) -> None:
    """A call that must be refused with one of these statuses."""
    refusal = None
    try:
        call()
    except grpc.RpcError as error:
        refusal = error
    assert refusal is not None, "it is not refused"
    told = ", ".join(status.name for status in wanted)
    assert refusal.code() in wanted, f"{refusal.code().name} instead of {told}"
    assert refusal.details(), "no reason is told"


def expect_outputs(answer: Values) -> None:
    """Outputs whose data have the sizes of their shapes."""
    raw = answer.get("raw_output_contents", [])
    for index, output in enumerate(answer["outputs"]):
        count = element_count(output["shape"].tolist())
        if raw:
            size = count * FIXED_SIZE[output["datatype"]].size
            assert len(raw[index]) == size, f"{len(raw[index])} bytes instead of {size}"
        else:
            (values,) = output["contents"].values()
            assert len(values) == count, f"{len(values)} elements instead of {count}"


def live_and_ready(subject: GrpcSubject) -> None:
    assert subject.call("ServerLive", {}).get("live"), "not live"
    assert subject.call("ServerReady", {}).get("ready"), "not ready"
    assert subject.call("ModelReady", {"name": subject.model}).get("ready"), (
        "the model is not ready"
    )


def metadata(subject: GrpcSubject) -> None:
    told = subject.call("ServerMetadata", {})
    assert {"name", "version"} <= set(told), f"only {sorted(told)}"
    told = subject.metadata
    # An empty platform looks like none.
    assert {"name", "inputs", "outputs"} <= set(told), f"only {sorted(told)}"


def raw_inference(subject: GrpcSubject) -> None:
    answer = subject.infer(subject.request(raw=True, id="seven"))
    assert answer.get("model_name") == subject.model, f"model_name is {answer.get('model_name')!r}"
    assert answer.get("id") == "seven", f"id is {answer.get('id')!r}"
    expect_outputs(answer)


def typed_inference(subject: GrpcSubject) -> None:
    expect_outputs(subject.infer(subject.request(raw=False)))


def requested_outputs(subject: GrpcSubject) -> None:
    name = subject.metadata["outputs"][-1]["name"]
    answer = subject.infer(subject.request(raw=True, outputs=[{"name": name}]))
    assert [output["name"] for output in answer["outputs"]] == [name], "other outputs came too"


def unknown_model(subject: GrpcSubject) -> None:
    wanted = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
    name = {"name": "there-is-no-such-model"}
    expect_status(lambda: subject.call("ModelMetadata", name), *wanted)


def unknown_input(subject: GrpcSubject) -> None:
    request = subject.request(raw=True)
    request["inputs"][0]["name"] = "there-is-no-such-input"
    expect_status(lambda: subject.infer(request), grpc.StatusCode.INVALID_ARGUMENT)


def wrong_datatype(subject: GrpcSubject) -> None:
    request = subject.request(raw=True)
    one = request["inputs"][0]
    one["datatype"] = "BOOL" if one["datatype"] != "BOOL" else "FP64"
    expect_status(lambda: subject.infer(request), grpc.StatusCode.INVALID_ARGUMENT)


def too_little_data(subject: GrpcSubject) -> None:
    request = subject.request(raw=True)
    request["raw_input_contents"][0] = request["raw_input_contents"][0][:-1]
    expect_status(lambda: subject.infer(request), grpc.StatusCode.INVALID_ARGUMENT)


def stream(subject: GrpcSubject) -> None:
    requests = [subject.request(raw=True, id=str(number)) for number in range(3)]
    answers = subject.stream(requests)
    told = [answer.get("infer_response", {}).get("id") for answer in answers]
    assert told == ["0", "1", "2"], f"answers to {told}"


def bad_request_in_a_stream(subject: GrpcSubject) -> None:
    good = subject.request(raw=True, id="good")
    answers = subject.stream([good, {"model_name": "there-is-no-such-model"}, good])
    told = [bool(answer.get("error_message")) for answer in answers]
    assert told == [False, True, False], f"error_message: {told}"


def configuration(subject: GrpcSubject) -> None:
    told = subject.call("ModelConfig", {"name": subject.model})
    assert told["config"]["name"] == subject.model, "another model's"


def statistics(subject: GrpcSubject) -> None:
    told = subject.call("ModelStatistics", {"name": subject.model})
    assert told["model_stats"][0]["name"] == subject.model, "another model's"


def index(subject: GrpcSubject) -> None:
    told = subject.call("RepositoryIndex", {})
    assert subject.model in [model["name"] for model in told["models"]], "the model is not in it"


def health(subject: GrpcSubject) -> None:
    answer = subject.call_standard("/grpc.health.v1.Health/Check")
    told = protobuf.decode("grpc.health.v1.HealthCheckResponse", answer)
    assert told == {"status": "SERVING"}, f"it tells {told}"


CHECKS: dict[str, Callable[[GrpcSubject], None]] = {
    "gRPC core: server and model are live and ready": live_and_ready,
    "gRPC core: metadata": metadata,
    "gRPC core: raw inference, id echoed": raw_inference,
    "gRPC core: typed inference": typed_inference,
    "gRPC core: only requested outputs": requested_outputs,
    "gRPC core: an unknown model is refused": unknown_model,
    "gRPC core: an unknown input is refused": unknown_input,
    "gRPC core: a wrong datatype is refused": wrong_datatype,
    "gRPC core: too little data is refused": too_little_data,
    "gRPC extension: stream": stream,
    "gRPC extension: a bad request in a stream": bad_request_in_a_stream,
    "gRPC extension: model configuration": configuration,
    "gRPC extension: statistics": statistics,
    "gRPC extension: repository index": index,
    "gRPC standard: health": health,
}
