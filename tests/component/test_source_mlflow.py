"""Models from a real MLflow server that asks who one is, registered by the real client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.model.check import checked
from kohort_server.source.credentials import Credentials
from kohort_server.source.fetch import Fetched, Wanted, fetch
from tests.component.server_process import linear_model
from tests.component.source_servers import HASTY, WebServer, send, told
from tests.component.test_source_http import left, secret
from tests.component.tool_environments import MLFLOW, environment, listening, python, unused_port

USER, PASSWORD = "admin", "of-these-tests-7"  # of MLflow's own first user

REGISTER = """
import json, sys
import mlflow, onnx
uri, path = sys.argv[1:]
mlflow.set_tracking_uri(uri)
client = mlflow.MlflowClient()
model = onnx.load(path)
with mlflow.start_run() as run:
    info = mlflow.onnx.log_model(model, name="model", registered_model_name="burger")
    mlflow.log_artifact(path, "plain")
first = client.create_model_version("burger", f"runs:/{run.info.run_id}/plain", run_id=run.info.run_id)
client.set_registered_model_alias("burger", "champion", "1")
client.create_registered_model("empty")
print(json.dumps({"id": info.model_id, "versions": [v.version for v in
                                                    client.search_model_versions("name='burger'")]}))
"""
MOVE = """
import sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.MlflowClient().set_registered_model_alias("burger", "champion", sys.argv[2])
"""


@dataclass(frozen=True)
class Mlflow:
    """A server, and how to be somebody there."""

    url: str
    programs: Path
    model: bytes

    def run(self, code: str, *arguments: str) -> str:
        """What the client prints that runs this code as the first user."""
        return python(
            self.programs,
            code,
            self.url,
            *arguments,
            MLFLOW_TRACKING_USERNAME=USER,
            MLFLOW_TRACKING_PASSWORD=PASSWORD,
        )

    def fetched(self, uri: str, directory: Path, password: str = PASSWORD) -> Fetched:
        """A model of it."""
        keys = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": password}
        credentials = secret(directory / "secret", **keys)
        wanted = Wanted(uri, None, credentials, self.url)
        return fetch(wanted, directory / "cache", bounds=HASTY)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mlflow]:
    """One with users, that serves files itself; version 1 is a logged model, version 2 a run's files."""
    directory = tmp_path_factory.mktemp("mlflow")
    programs, port = environment(*MLFLOW), unused_port()
    (directory / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{directory}/auth.db\n"
        f"admin_username = {USER}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command = [str(programs / "python"), "-m", "mlflow", "server", "--app-name", "basic-auth"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    command += ["--artifacts-destination", str(directory / "artifacts"), "--serve-artifacts"]
    environ = {
        "MLFLOW_AUTH_CONFIG_PATH": str(directory / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of the tests",
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(directory),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    path = linear_model(directory / "model.onnx", "batch")
    with listening(command, port, environ, directory / "log"):
        made = Mlflow(f"http://127.0.0.1:{port}", programs, path.read_bytes())
        # Its client tells of runs before that.
        registered = json.loads(made.run(REGISTER, str(path)).splitlines()[-1])
        assert sorted(registered["versions"]) == ["1", "2"]
        yield made


def test_an_alias_stands_for_a_version_until_it_is_moved(mlflow: Mlflow, tmp_path: Path) -> None:
    first = mlflow.fetched("mlflow://burger@champion", tmp_path)
    assert first.pinned == "mlflow://burger/1"
    assert first.path.name == "model.onnx"
    # MLflow writes the weights into a file beside the model.
    assert [path.suffix for path in checked(first.path).files] == [".onnx", ".data"]
    assert (first.path.parent / "MLmodel").exists()
    mlflow.run(MOVE, "2")
    second = mlflow.fetched("mlflow://burger@champion", tmp_path)
    assert (second.pinned, second.path.read_bytes()) == ("mlflow://burger/2", mlflow.model)
    assert mlflow.fetched("mlflow://burger/1", tmp_path) == first
    mlflow.run(MOVE, "1")


def test_a_name_alone_is_the_newest_version(mlflow: Mlflow, tmp_path: Path) -> None:
    assert mlflow.fetched("mlflow://burger", tmp_path).pinned == "mlflow://burger/2"


def test_what_is_not_there_is_told(mlflow: Mlflow, tmp_path: Path) -> None:
    cases = {
        "mlflow://pizza": "404",
        "mlflow://burger@challenger": "",
        "mlflow://burger/9": "404",
        "mlflow://empty": "has no version yet",
        "mlflow://burger/latest": "is not of the form",
        "mlflow://burger@a/1": "is not of the form",
    }
    for uri, message in cases.items():
        with pytest.raises(StartFailure) as raised:
            mlflow.fetched(uri, tmp_path)
        reason = told(raised.value)[0]
        expected = {FailureReason.MODEL_NOT_FOUND, FailureReason.DOWNLOAD_FAILED}
        assert reason in expected if not message else reason == FailureReason.MODEL_NOT_FOUND
        assert message in told(raised.value)[1]
    with pytest.raises(StartFailure) as raised:
        fetch(Wanted("mlflow://burger", None, secret(tmp_path / "x", token="x")), tmp_path)
    assert "set model.endpoint" in told(raised.value)[1]


def test_a_wrong_password_is_told_and_not_shown(mlflow: Mlflow, tmp_path: Path) -> None:
    for password in ("hidden-password", ""):
        with pytest.raises(StartFailure) as raised:
            mlflow.fetched("mlflow://burger@champion", tmp_path, password)
        assert told(raised.value)[0] == FailureReason.ACCESS_DENIED
        assert "hidden" not in told(raised.value)[1]


@dataclass
class Pretended:
    """A server that answers like MLflow, with files that it should not have."""

    place: str = "mlflow-artifacts:/m"
    files: tuple[dict[str, object], ...] = ()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """By what is asked for."""
        if "get-download-uri" in handler.path:
            body: dict[str, object] = {"artifact_uri": self.place}
        elif "artifacts?path=" in handler.path:
            body = {"files": list(self.files)}
        else:
            body = {}
        send(handler, 200, json.dumps(body).encode())


def test_a_server_that_answers_otherwise_is_told(tmp_path: Path) -> None:
    def html(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, b"<!doctype html><title>Sign in</title>", Content_Type="text/html")

    cases = {
        "begins with '<!doctype html>": html,
        "cannot be read from here": Pretended("dbfs:/models/1").answer,
        "a path of its server": Pretended("/srv/mlruns/1").answer,
        "more files or directories": Pretended(files=({"path": "d", "is_dir": True},)).answer,
        "not MLflow's": Pretended(files=({"path": 7},)).answer,
        "has no files": Pretended().answer,
        "twice": Pretended(files=({"path": "a/m.onnx"}, {"path": "b/m.onnx"})).answer,
        "not a plain path": Pretended(files=({"path": ".."},)).answer,
    }
    for message, answer in cases.items():
        with WebServer(answer).running() as web:
            wanted = Wanted("mlflow://burger/1", None, Credentials(), web.url)
            with pytest.raises(StartFailure) as raised:
                fetch(wanted, tmp_path, bounds=HASTY)
        assert message in told(raised.value)[1], told(raised.value)
    assert left(tmp_path) == []
