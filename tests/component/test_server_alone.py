"""The server without a cluster: on a laptop, and as a judge of others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.component.server_process import free_port, linear_model, save, serving, value

RUN = "from kohort_server.main import main; main()"


def command(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-c", RUN, *arguments]


@pytest.mark.parametrize("features", [64, 5000])
def test_a_model_is_served_by_its_path_and_the_printed_curl_works(
    tmp_path: Path, features: int
) -> None:
    from onnx import TensorProto, helper

    save(
        tmp_path / "model.onnx",
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        [value("x", TensorProto.FLOAT, ["batch", features])],
        [value("y", TensorProto.FLOAT, [])],
    )
    port = str(free_port())
    arguments = command("serve", str(tmp_path), "--host", "127.0.0.1", "--port", port)
    process = subprocess.Popen(
        [*arguments, "--drain-delay", "0s"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        lines = iter(process.stdout.readline, b"")
        curl = next(line.decode() for line in lines if b"curl " in line)
        run = subprocess.run(
            ["bash", "-c", curl.replace("curl ", "curl -sS ")],
            capture_output=True,
            timeout=30,
            check=True,
        )
        assert json.loads(run.stdout)["outputs"][0]["data"] == [0.0]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_the_server_passes_its_own_conformance_suite(tmp_path: Path) -> None:
    with serving(linear_model(tmp_path / "model.onnx", "batch")) as server:
        url = f"http://127.0.0.1:{server.port}"
        arguments = command("conformance", url, "--grpc", f"127.0.0.1:{server.port}")
        run = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout
    assert "gRPC extension: stream" in run.stdout
    assert "FAIL" not in run.stdout


def test_the_conformance_suite_finds_a_server_that_does_not_conform(tmp_path: Path) -> None:
    with serving(linear_model(tmp_path / "model.onnx", 1), "--max-body", "100") as server:
        url = f"http://127.0.0.1:{server.port}"
        run = subprocess.run(
            command("conformance", url), capture_output=True, text=True, timeout=60, check=False
        )
    assert run.returncode == 1
    assert "core: inference in JSON, id echoed               FAIL  status 413" in run.stdout


def test_a_models_batches_are_measured_on_the_command_line(tmp_path: Path) -> None:
    path = linear_model(tmp_path / "model.onnx", "batch")
    run = subprocess.run(
        command("bench", str(path)), capture_output=True, text=True, timeout=60, check=True
    )
    assert "rows per s" in run.stdout
    assert run.stdout.count("the largest that is useful") == 1
