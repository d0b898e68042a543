"""The program with engines: what it builds on demand, and what it serves with, tells and refuses."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kohort.contract import START_PATH, FailureReason, Start, parse_failure
from kohort_server.building import load_exported
from kohort_server.engine import kinds
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from kohort_server.model.engine_cache import MANIFEST
from kohort_server.selection import Selection
from tests.component.engine_models import (
    convolutional,
)
from tests.component.server_process import (
    ServerProcess,
    linear_model,
    save,
    serving,
    start,
    value,
    wait_until_ready,
)


def command(*arguments: object, **how: Any) -> subprocess.CompletedProcess[str]:
    run = "from kohort_server.main import main; main()"
    line = [sys.executable, "-c", run, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **how)


def test_thresholds_and_samples_are_given_on_the_command_line(tmp_path: Path) -> None:
    path = linear_model(tmp_path / "model.onnx", "batch")
    np.savez(tmp_path / "golden.npz", x=np.ones((4, 64), np.float32))
    options = ("--engine", "OpenVINO", "--cache-dir", tmp_path / "cache", "--tolerance", "0.5%")
    golden = ("--golden", tmp_path / "golden.npz", "--agreement", "75%", "--fallback")
    made = command("build", path, *options, *golden, "--output", tmp_path / "engine")
    assert made.returncode == 0, made.stderr
    table = msgspec.json.decode((tmp_path / "engine/engines.json").read_bytes(), type=Selection)
    report = table.taken().parity
    assert report is not None
    assert (report.golden, report.samples) == ("golden.npz", 4)
    assert (report.thresholds.tolerance, report.thresholds.agreement) == (0.005, 0.75)
    wrong = command("build", path, "--output", tmp_path, "--cosine", "120%")
    assert (wrong.returncode, "write one like 99.5%" in wrong.stderr) == (2, True)


def test_two_builders_of_one_model_build_it_once_and_both_have_it(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "model.onnx")
    line = [sys.executable, "-c", "from kohort_server.main import main; main()", "build", str(path)]
    line += ["--engine", "OpenVINO", "--cache-dir", str(tmp_path / "cache"), "--output"]
    running = [
        subprocess.Popen(
            [*line, str(tmp_path / name)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    ended = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert sum(log.count("building OpenVINO") for _, log in ended) == 1
    assert all((tmp_path / name / "engine.blob").is_file() for name in "ab")


def test_an_engine_in_a_directory_is_served_and_only_as_it_was_built(tmp_path: Path) -> None:
    path, output = linear_model(tmp_path / "model.onnx", "batch"), tmp_path / "engine"
    cache = ("--cache-dir", tmp_path / "cache")
    made = command("build", path, "--engine", "OpenVINO", "--output", output, *cache)
    assert made.returncode == 0, made.stderr
    assert "← chosen" in made.stdout
    table = msgspec.json.decode((output / "engines.json").read_bytes(), type=Selection)
    assert table.taken().engine == "OpenVINO"
    rows = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    expected = OnnxRuntimeEngine(path, 1).run({"x": rows})["y"]
    with serving(output / MANIFEST) as server:
        answer = json.loads(server.infer(rows).body)
        metadata = json.loads(server.call("GET", "/v2/models/m").body)
    assert metadata["platform"] == "openvino_onnx"
    told = np.array(answer["outputs"][0]["data"]).reshape(3, 10)
    np.testing.assert_allclose(told, expected, rtol=1e-4, atol=1e-6)
    manifest = (output / MANIFEST).read_text()
    (output / MANIFEST).write_text(manifest.replace('"version": "20', '"version": "19'))
    with pytest.raises(StartFailure, match="build it here"):
        load_exported(output, 1)
    (output / MANIFEST).write_text(manifest)
    (output / "engine.blob").write_bytes(b"")
    with pytest.raises(StartFailure, match="build it again"):
        load_exported(output, 1)


def test_a_server_builds_proves_and_keeps_the_engine_that_it_is_started_with(
    tmp_path: Path,
) -> None:
    path = linear_model(tmp_path / "model.onnx", "batch")
    rows = np.zeros((1, 64), np.float32)
    options = (
        "--engine",
        "OpenVINO",
        "--cache-dir",
        str(tmp_path / "cache"),
        "--drain-delay",
        "0s",
    )
    for times in (1, 0):
        with serving(path, *options) as server:
            assert server.infer(rows).status == 200
            server.process.terminate()
            _, log = server.wait()
        assert log.count("building OpenVINO") == times
        assert "ready: openvino_onnx in FP32" in log


SLOW_BUILD = """
import time
from kohort_server.engine import open_vino
build = open_vino.build
def slowly(*arguments):
    time.sleep(4)
    return build(*arguments)
open_vino.build = slowly
"""


def test_a_server_tells_those_inside_how_far_it_is_and_then_which_engines_it_tried(
    tmp_path: Path,
) -> None:
    path = linear_model(tmp_path / "model.onnx", "batch")
    options = ("--engine", "Auto", "--cache-dir", str(tmp_path / "cache"))
    seen: dict[str, int] = {}
    server = start(path.as_uri(), *options, before=SLOW_BUILD)
    try:
        while not (told := ask(server)).engines:
            if told.stage:
                seen.setdefault(told.detail, told.percent)
            time.sleep(0.05)
        wait_until_ready(server)
        through_gateway = server.call("GET", START_PATH, headers={"x-kohort-revision": "r1"})
    finally:
        server.process.kill()
        server.process.communicate()
    building = f"building OpenVINO {kinds.KINDS['OpenVINO'].version} FP32"
    assert 0 < seen[building] < 100
    assert list(seen.values()) == sorted(seen.values())
    assert [one.engine for one in told.engines] == ["ONNXRuntime", "OpenVINO"]
    assert [one.parity for one in told.engines] == ["Same", "Same"]
    assert all(one.micros and one.rows_per_second and one.size for one in told.engines)
    assert told.engines[1].build_millis >= 4000
    assert sum(one.chosen for one in told.engines) == 1
    assert told.choice
    assert through_gateway.status == 404


def ask(server: ServerProcess) -> Start:
    """What a server tells of its start; nothing while it does not listen yet."""
    try:
        answer = server.call("GET", START_PATH)
    except OSError:
        assert server.process.poll() is None
        return Start()
    return msgspec.json.decode(answer.body, type=Start)


def failure_of(ended: subprocess.CompletedProcess[str]) -> tuple[FailureReason, str]:
    assert ended.returncode == 1
    failure = parse_failure(ended.stderr.splitlines()[-1])
    assert failure is not None
    return failure.reason, failure.message


def test_a_cache_that_is_full_is_told_and_keeps_no_half_engine(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((1024, 1024), np.float32), "w")
    path = save(
        tmp_path / "model.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", TensorProto.FLOAT, ["batch", 1024])],
        [value("y", TensorProto.FLOAT, ["batch", 1024])],
        weight,
    )

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    cache = tmp_path / "cache"
    options = ("--engine", "OpenVINO", "--cache-dir", cache, "--output", tmp_path / "engine")
    reason, message = failure_of(command("build", path, *options, preexec_fn=little_room))
    assert reason == FailureReason.CACHE_UNUSABLE
    assert f"cannot write to {cache}" in message
    assert {entry.suffix for entry in (cache / "engines").iterdir()} == {".lock", ".used"}
    assert not (tmp_path / "engine").exists()


def test_a_program_of_torch_export_without_torch_is_told_what_to_install(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("m/models/model.json", b"{}")
    options = ("--cache-dir", tmp_path / "cache", "--output", tmp_path / "engine")
    without = {"PYTHONPATH": str(tmp_path / "blocked")}
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/torch.py").write_text("raise ImportError('No module named torch')")
    ended = command("build", tmp_path / "model.pt2", *options, env={**os.environ, **without})
    reason, message = failure_of(ended)
    assert reason == FailureReason.ENGINE_UNAVAILABLE
    assert "kohort[server,torch]" in message
