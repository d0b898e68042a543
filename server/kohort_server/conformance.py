"""A conformance suite for the Open Inference Protocol, for any server's URL.

Each check is one sentence and a function that raises where the server does otherwise. The model may
be any whose inputs are numeric: it is called with zeros of its own shapes.
"""

from __future__ import annotations

import gzip
import http.client
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from kohort_server.datatypes import FIXED_SIZE, element_count

TIMEOUT = 30.0  # seconds
LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON, without binary tensors after it."""
        length = self.headers.get(LENGTH.lower())
        return json.loads(self.body[: int(length)] if length else self.body)

    def tail(self) -> bytes:
        """The binary tensors."""
        assert LENGTH.lower() in self.headers, f"no {LENGTH} in the response"
        return self.body[int(self.headers[LENGTH.lower()]) :]


def call(
    address: tuple[str, int],
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own; raises what http.client does."""
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, told, response.read())
    finally:
        connection.close()


class Subject:
    """The server, and the model that it is asked for."""

    def __init__(self, url: str, model: str | None) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        self.address = (parts.hostname or "localhost", parts.port or 80)
        self.model = model or self._first_model()
        self.base = f"/v2/models/{quote(self.model)}"
        self.metadata: dict[str, Any] = self.call("GET", self.base).json

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request."""
        return call(self.address, method, path, body, headers)

    def _first_model(self) -> str:
        answer = self.call("POST", "/v2/repository/index", b"{}")
        if answer.status != 200 or not answer.json:
            raise SystemExit("the server does not list its models; name one with --model")
        return str(answer.json[0]["name"])

    def arrays(self) -> dict[str, Any]:
        """Zeros for every input, unknown extents being 1."""
        arrays = {}
        for given in self.metadata["inputs"]:
            if given["datatype"] not in FIXED_SIZE:
                raise SystemExit(
                    f'the input "{given["name"]}" is not numeric; choose another model'
                )
            shape = [1 if int(extent) < 0 else int(extent) for extent in given["shape"]]
            arrays[given["name"]] = np.zeros(shape, FIXED_SIZE[given["datatype"]].dtype)
        return arrays

    def tensors(self, data: bool = True) -> list[dict[str, Any]]:
        """The inputs as JSON, with their data or with the size of it."""
        told = []
        datatypes = {given["name"]: given["datatype"] for given in self.metadata["inputs"]}
        for name, array in self.arrays().items():
            tensor = {"name": name, "shape": list(array.shape), "datatype": datatypes[name]}
            if data:
                tensor["data"] = array.reshape(-1).tolist()
            else:
                tensor["parameters"] = {"binary_data_size": array.nbytes}
            told.append(tensor)
        return told

    def infer(self, request: dict[str, Any], **headers: str) -> Answer:
        """An inference in JSON."""
        told = {"Content-Type": "application/json", **headers}
        return self.call("POST", f"{self.base}/infer", json.dumps(request).encode(), told)

    def infer_binary(self, **more: Any) -> Answer:
        """An inference whose inputs are binary."""
        header = json.dumps({"inputs": self.tensors(data=False), **more}).encode()
        body = header + b"".join(array.tobytes() for array in self.arrays().values())
        told = {"Content-Type": "application/octet-stream", LENGTH: str(len(header))}
        return self.call("POST", f"{self.base}/infer", body, told)


def expect(answer: Answer, status: int) -> Any:
    """The JSON of an answer that must have this status."""
    assert answer.status == status, (
        f"status {answer.status} instead of {status}: {answer.body[:200]!r}"
    )
    return answer.json


def expect_refusal(answer: Answer, *statuses: int) -> None:
    """An error of the protocol's shape with one of these statuses."""
    assert answer.status in statuses, f"status {answer.status} instead of {statuses}"
    told = answer.json
    assert isinstance(told, dict), f"the body is no object: {answer.body[:200]!r}"
    assert isinstance(told.get("error"), str), f'no "error" in the body: {answer.body[:200]!r}'


def live(subject: Subject) -> None:
    answer = subject.call("GET", "/v2/health/live")
    assert answer.status == 200, f"status {answer.status}"


def ready(subject: Subject) -> None:
    answer = subject.call("GET", "/v2/health/ready")
    assert answer.status == 200, f"status {answer.status}"


def model_ready(subject: Subject) -> None:
    answer = subject.call("GET", f"{subject.base}/ready")
    assert answer.status == 200, f"status {answer.status}"


def server_metadata(subject: Subject) -> None:
    told = expect(subject.call("GET", "/v2"), 200)
    assert {"name", "version", "extensions"} <= set(told), f"only {sorted(told)}"


def model_metadata(subject: Subject) -> None:
    told = expect(subject.call("GET", subject.base), 200)
    assert {"name", "platform", "inputs", "outputs"} <= set(told), f"only {sorted(told)}"
    for tensor in (*told["inputs"], *told["outputs"]):
        assert {"name", "datatype", "shape"} <= set(tensor), f"a tensor has only {sorted(tensor)}"


def json_inference(subject: Subject) -> None:
    told = expect(subject.infer({"id": "seven", "inputs": subject.tensors()}), 200)
    assert told.get("model_name") == subject.model, f"model_name is {told.get('model_name')!r}"
    assert told.get("id") == "seven", f"id is {told.get('id')!r}"
    for output in told["outputs"]:
        count = element_count(output["shape"])
        assert len(np.ravel(output["data"])) == count, "data and shape differ"


def nested_data(subject: Subject) -> None:
    inputs = subject.tensors()
    for tensor in inputs:
        tensor["data"] = subject.arrays()[tensor["name"]].tolist()
    expect(subject.infer({"inputs": inputs}), 200)


def requested_outputs(subject: Subject) -> None:
    name = subject.metadata["outputs"][-1]["name"]
    told = expect(subject.infer({"inputs": subject.tensors(), "outputs": [{"name": name}]}), 200)
    assert [output["name"] for output in told["outputs"]] == [name], "other outputs came too"


def binary_inputs(subject: Subject) -> None:
    expect(subject.infer_binary(), 200)


def binary_outputs(subject: Subject) -> None:
    answer = subject.infer_binary(parameters={"binary_data_output": True})
    told = expect(answer, 200)
    sizes = [output["parameters"]["binary_data_size"] for output in told["outputs"]]
    assert len(answer.tail()) == sum(sizes), "the sizes told are not those that came"


def one_binary_output(subject: Subject) -> None:
    name = subject.metadata["outputs"][0]["name"]
    wanted = [{"name": name, "parameters": {"binary_data": True}}]
    answer = subject.infer({"inputs": subject.tensors(), "outputs": wanted})
    expect(answer, 200)
    assert answer.tail(), "the output is not binary"


def compressed_body(subject: Subject) -> None:
    body = gzip.compress(json.dumps({"inputs": subject.tensors()}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    expect(subject.call("POST", f"{subject.base}/infer", body, headers), 200)


def unknown_model(subject: Subject) -> None:
    expect_refusal(subject.call("GET", "/v2/models/there-is-no-such-model"), 400, 404)


def no_json(subject: Subject) -> None:
    headers = {"Content-Type": "application/json"}
    expect_refusal(subject.call("POST", f"{subject.base}/infer", b"{]", headers), 400)


def unknown_input(subject: Subject) -> None:
    inputs = subject.tensors()
    inputs[0]["name"] = "there-is-no-such-input"
    expect_refusal(subject.infer({"inputs": inputs}), 400)


def wrong_datatype(subject: Subject) -> None:
    inputs = subject.tensors()
    inputs[0]["datatype"] = "BOOL" if inputs[0]["datatype"] != "BOOL" else "FP64"
    expect_refusal(subject.infer({"inputs": inputs}), 400)


def too_little_data(subject: Subject) -> None:
    inputs = subject.tensors()
    inputs[0]["data"] = inputs[0]["data"][:-1]
    expect_refusal(subject.infer({"inputs": inputs}), 400)


def unknown_output(subject: Subject) -> None:
    outputs = [{"name": "there-is-no-such-output"}]
    expect_refusal(subject.infer({"inputs": subject.tensors(), "outputs": outputs}), 400)


def configuration(subject: Subject) -> None:
    told = expect(subject.call("GET", f"{subject.base}/config"), 200)
    assert {"name", "max_batch_size", "input", "output"} <= set(told), f"only {sorted(told)}"


def statistics(subject: Subject) -> None:
    told = expect(subject.call("GET", f"{subject.base}/stats"), 200)
    assert told["model_stats"][0]["name"] == subject.model, "another model's"


def index(subject: Subject) -> None:
    told = expect(subject.call("POST", "/v2/repository/index", b"{}"), 200)
    assert subject.model in [model["name"] for model in told], "the model is not in it"


Check = Callable[[Subject], None]
CHECKS: dict[str, Check] = {
    "core: the server is live": live,
    "core: the server is ready": ready,
    "core: the model is ready": model_ready,
    "core: server metadata": server_metadata,
    "core: model metadata": model_metadata,
    "core: inference in JSON, id echoed": json_inference,
    "core: nested data": nested_data,
    "core: only requested outputs": requested_outputs,
    "core: an unknown model is refused": unknown_model,
    "core: a body that is no JSON is refused": no_json,
    "core: an unknown input is refused": unknown_input,
    "core: a wrong datatype is refused": wrong_datatype,
    "core: too little data is refused": too_little_data,
    "core: an unknown output is refused": unknown_output,
    "binary: inputs": binary_inputs,
    "binary: all outputs": binary_outputs,
    "binary: one output": one_binary_output,
    "extension: a compressed body": compressed_body,
    "extension: model configuration": configuration,
    "extension: statistics": statistics,
    "extension: repository index": index,
}


def run(url: str, model: str | None, grpc_address: str | None = None) -> int:
    """Run and print every check, those of gRPC where an address is given; 0 when all pass, else 1."""
    subject = Subject(url, model)
    outcomes = [passes(name, partial(check, subject)) for name, check in CHECKS.items()]
    if grpc_address is not None:
        from kohort_server import conformance_grpc  # a server starts without grpcio

        called = conformance_grpc.GrpcSubject(grpc_address, subject.model)
        for name, called_check in conformance_grpc.CHECKS.items():
            outcomes.append(passes(name, partial(called_check, called)))
    sys.stdout.write(f"{sum(outcomes)} of {len(outcomes)} pass\n")
    return 0 if all(outcomes) else 1


def passes(name: str, check: Callable[[], None]) -> bool:
    """Run and print one check."""
    try:
        check()
    except Exception as error:  # whatever a server answers, the other checks go on
        told = " ".join(str(error).split()) or type(error).__name__
        sys.stdout.write(f"{name:48} FAIL  {told[:200]}\n")
        return False
    sys.stdout.write(f"{name:48} pass\n")
    return True
