"""The program with gates: the document's own example, and golden data, specs and models that are no good."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kohort.contract import parse_failure
from kohort_server.gates.results import MAX_SUMMARY_BYTES
from tests.component.server_process import linear_model, save, value

DOCUMENT = Path(__file__).parents[2] / "docs/gates.md"
GATE_LINE = re.compile(r"^([✓✗?!]) ([a-z-]+): (\w+)", re.MULTILINE)


def gates(folder: Path, *options: object, spec: str = "gates.yaml") -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    run = "from kohort_server.main import main; main()"
    line = [sys.executable, "-c", run, "gates", spec, "--cache-dir", "cache", "--threads", "1"]
    ended = subprocess.run(
        [*line, *map(str, options)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
    )
    return ended.returncode, ended.stdout, ended.stderr


def blocks(language: str) -> list[str]:
    """The document's blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models, golden data and spec of the document."""
    folder = tmp_path_factory.mktemp("example")
    program = "import warnings\nwarnings.simplefilter('ignore')\n" + blocks("python")[0]
    # Several threads of several tests on few cores would wait for each other most of the time.
    single = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=folder, check=True, timeout=300, env=single)
    (spec,) = [block for block in blocks("yaml") if block.startswith("# gates.yaml\n")]
    (folder / "gates.yaml").write_text(spec)
    return folder


def test_the_documents_model_passes_plain_accuracy_and_fails_what_is_inverted(
    example: Path,
) -> None:
    status, out, err = gates(example, "--report", "out", "--summary", "summary.json")
    assert status == 1, err
    (shown,) = [block for block in blocks("") if block.startswith("$ kohort-server gates")]
    assert GATE_LINE.findall(out) == GATE_LINE.findall(shown)
    outcomes = {name: outcome for _, name, outcome in GATE_LINE.findall(out)}
    assert outcomes["accuracy"] == "Passed"
    assert outcomes["inverted"] == "Failed"
    page = (example / "out/report.html").read_text()
    assert page.count("<img") == page.count("data:image/png;base64,") >= 24
    pictures = sorted((example / "out/pictures").glob("inverted-*.png"))
    assert len(pictures) == 24  # twelve samples, before and after
    assert all(
        f"pictures/{one.name}" in (example / "out/report.md").read_text() for one in pictures
    )
    suite = ET.parse(example / "out/junit.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    summary = (example / "summary.json").read_bytes()
    assert len(summary) <= MAX_SUMMARY_BYTES
    told = json.loads(summary)
    assert (told["passed"], told["gates"][0]["name"]) == (False, "inverted")
    assert sum(file.stat().st_size for file in (example / "out").rglob("*.*")) < 1 << 20


def test_the_documents_next_model_passes_all_of_it(example: Path) -> None:
    spec = (example / "gates.yaml").read_text().replace("v4.onnx", "v5.onnx")
    (example / "next.yaml").write_text(spec)
    status, out, err = gates(example, spec="next.yaml")
    assert status == 0, out + err
    assert out.endswith("every gate passed\n")


def test_broken_models_are_listed_on_request(example: Path) -> None:
    spec = (example / "gates.yaml").read_text().split("- name: mutants")[0]
    (example / "plain.yaml").write_text(spec)
    _, plain, _ = gates(example, spec="plain.yaml")
    _, listed, _ = gates(example, "--mutants", spec="plain.yaml")
    assert "mutation score" not in plain
    assert re.search(r"^  noticed  classes 0 and 1 swapped: accuracy, not-worse$", listed, re.M)
    assert re.search(r"^  survived weights with 10% noise", listed, re.M)


SPEC = """
model: {uri: model.onnx}
gates:
- name: good
  dataset: {uri: golden.npz}
  %s
"""
CONTRACT = "contract: {metric: Accuracy, atLeast: 90%}"
ROWS = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)


def tried(folder: Path, kind: str, **arrays: Any) -> tuple[int, str]:
    """A gate over a linear model of ten classes, with golden data of these arrays."""
    linear_model(folder / "model.onnx", "batch")
    np.savez(folder / "golden.npz", **arrays)
    (folder / "gates.yaml").write_text(SPEC % kind)
    status, out, err = gates(folder)
    return status, out + err


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": ROWS * np.nan, "labels": np.arange(40) % 10}, "NaN or infinity"),
        ({"x": ROWS[:, :9], "labels": np.arange(40) % 10}, "[40, 9]"),
        ({"x": ROWS, "labels": np.ones(40, int)}, "all labels are class 1"),
        ({"x": ROWS[:0], "labels": np.arange(0)}, "0 samples"),
        ({"x": ROWS, "labels": np.array(["cat"] * 40)}, "text as labels"),
        ({"x": ROWS, "labels": np.array([{}] * 40, object)}, "not a plain array"),
        ({"x": ROWS}, 'no array "labels"'),
    ],
)
def test_golden_data_that_is_no_good_is_a_gate_that_says_why(
    tmp_path: Path, arrays: dict[str, Any], told: str
) -> None:
    status, out = tried(tmp_path, CONTRACT, **arrays)
    assert status == 1
    assert out.startswith("! good: Invalid: ")
    assert told in out


def test_golden_data_that_is_not_there_or_another_is_a_gate_that_says_so(tmp_path: Path) -> None:
    _, out = tried(tmp_path, CONTRACT, x=ROWS, labels=np.arange(40) % 10)
    assert "✗ good: Failed" in out
    spec = (tmp_path / "gates.yaml").read_text()
    digest = f"sha256:{'0' * 64}"
    other = spec.replace("golden.npz", f"golden.npz, digest: '{digest}'")
    (tmp_path / "gates.yaml").write_text(other)
    assert f"wanted {digest}" in gates(tmp_path)[1]
    (tmp_path / "gates.yaml").write_text(spec.replace("golden.npz", "elsewhere.npz"))
    assert "there is no file" in gates(tmp_path)[1]


def test_what_cannot_be_tried_at_all_ends_with_another_status_and_a_line_that_says_why(
    tmp_path: Path,
) -> None:
    linear_model(tmp_path / "model.onnx", "batch")
    for spec, told in (
        (
            "model: {uri: other.onnx}\ngates: [{name: a, dataset: {uri: g.npz}, data: {}}]",
            "no file",
        ),
        (SPEC % "contract: {metric: Acuracy, atLeast: 90%}", "Acuracy"),
        (SPEC % CONTRACT + "engine: {type: Abacus}\n", "Abacus"),
        ("no: spec", "the spec"),
    ):
        (tmp_path / "gates.yaml").write_text(spec)
        status, out, err = gates(tmp_path)
        assert (status, out) == (2, "")
        failure = parse_failure(err)
        assert failure is not None
        assert told in failure.message
    assert gates(tmp_path, spec="missing.yaml")[0] == 2


def test_a_model_that_always_says_the_same_passes_no_relation(tmp_path: Path) -> None:
    save(
        tmp_path / "model.onnx",
        [helper.make_node("Mul", ["x", "zero"], ["y"])],
        [value("x", TensorProto.FLOAT, ["batch", 4])],
        [value("y", TensorProto.FLOAT, ["batch", 4])],
        numpy_helper.from_array(np.zeros(4, np.float32), "zero"),
    )
    np.savez(tmp_path / "golden.npz", x=ROWS[:, :4])
    relation = "metamorphic: {transform: Scale, amount: 2, relation: SameTop1, atLeast: 50%}"
    (tmp_path / "gates.yaml").write_text(SPEC % relation)
    status, out, _ = gates(tmp_path)
    assert status == 1
    assert "the model says 1 class only to 40 samples" in out


def test_the_engine_that_will_serve_is_the_one_that_is_tried(tmp_path: Path) -> None:
    linear_model(tmp_path / "model.onnx", "batch")
    np.savez(tmp_path / "golden.npz", x=ROWS, labels=np.arange(40) % 10)
    (tmp_path / "gates.yaml").write_text(SPEC % CONTRACT + "engine: {type: OpenVINO}\n")
    assert gates(tmp_path, "--report", "out")[0] == 1
    told = json.loads((tmp_path / "out/results.json").read_text())
    assert told["engine"] == "openvino_onnx in FP32"


def test_models_of_a_fixed_batch_and_of_none_are_asked_about_every_sample(tmp_path: Path) -> None:
    labels = {}
    for batch in (1, 8):
        folder = tmp_path / str(batch)
        folder.mkdir()
        linear_model(folder / "model.onnx", batch)
        np.savez(folder / "golden.npz", x=ROWS, labels=np.arange(40) % 10)
        (folder / "gates.yaml").write_text(SPEC % CONTRACT)
        _, out, _ = gates(folder, "--report", "out")
        labels[batch] = json.loads((folder / "out/results.json").read_text())["gates"][0]
        assert "n 40" in out
    assert labels[1]["findings"] == labels[8]["findings"]


def test_a_model_of_texts_goes_through_gates_too(tmp_path: Path) -> None:
    encoder = helper.make_node("LabelEncoder", ["text"], ["y"], domain="ai.onnx.ml", **CODES)
    save(
        tmp_path / "model.onnx",
        [encoder],
        [value("text", TensorProto.STRING, ["n"])],
        [value("y", TensorProto.INT64, ["n"])],
        opsets={"": 17, "ai.onnx.ml": 2},
    )
    np.savez(tmp_path / "golden.npz", text=np.array(["yes", "no", "yes"] * 40))
    gate = "metamorphic: {transform: %s, relation: SameTop1, atLeast: 90%%}"
    (tmp_path / "gates.yaml").write_text(SPEC % (gate % "UpperCase"))
    assert gates(tmp_path)[0] == 0
    (tmp_path / "gates.yaml").write_text(SPEC % (gate % "Typos"))
    status, out, _ = gates(tmp_path, "--report", "out")
    assert status == 1, out
    assert "text: yes" in (tmp_path / "out/report.md").read_text()


CODES: dict[str, Any] = {
    "keys_strings": ["yes", "no", "YES", "NO"],
    "values_int64s": [1, 0, 1, 0],
    "default_int64": 2,
}
