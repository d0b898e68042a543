"""Programs of torch.export as engines, and what is in a file of torch's that is never run."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kohort.contract import FailureReason
from kohort_server.building import Request, obtain
from kohort_server.errors import StartFailure
from kohort_server.model.engine_cache import Cache
from kohort_server.model.origin import origin_of

BATCH = torch.export.Dim("batch", min=1, max=1024)


class Block(torch.nn.Module):  # type: ignore[misc]
    """A layer of a transformer and five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.head = torch.nn.Linear(32, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.layer(x).mean(1))


def network() -> Any:
    """A small network for images."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 10),
    )


def program(path: Path, module: Any, *shape: int) -> Path:
    """The module's program for any number of rows, of at least two when it is traced."""
    torch.manual_seed(0)
    exported = torch.export.export(
        module.eval(), (torch.randn(2, *shape),), dynamic_shapes=({0: BATCH},)
    )
    torch.export.save(exported, path)
    return path


@pytest.mark.parametrize(("make", "shape"), [(Block, (7, 32)), (network, (3, 32, 32))])
@pytest.mark.parametrize("engine", ["ONNXRuntime", "OpenVINO"])
def test_a_program_gives_torchs_own_answers_with_every_engine(
    tmp_path: Path, make: Any, shape: tuple[int, ...], engine: str
) -> None:
    module = make()
    path = program(tmp_path / "model.pt2", module, *shape)
    made = obtain(path, Request(engine, "FP32", 1), Cache(tmp_path / "cache"))
    report = made.selection.taken().parity
    assert report is not None
    assert report.passed
    assert report.batches == [1, 3, 8, 64]
    name = made.engine.signature.inputs[0].name
    for rows in (1, 3, 8):
        given = torch.randn(rows, *shape)
        with torch.no_grad():
            expected = module(given).numpy()
        (answer,) = made.engine.run({name: given.numpy()}).values()
        np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-5)


def test_a_program_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = program(tmp_path / "model.pt2", network(), 3, 8, 8), Cache(tmp_path / "cache")
    obtain(path, Request("ONNXRuntime", "FP32", 1), cache)

    def never(*_: object) -> None:
        raise AssertionError("it was converted already")

    monkeypatch.setattr("kohort_server.building.convert", never)
    assert obtain(path, Request("OpenVINO", "FP32", 1), cache).engine.precision == "FP32"


class Harmful:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_inside_a_program_is_never_run(tmp_path: Path) -> None:
    path, mark = program(tmp_path / "model.pt2", network(), 3, 8, 8), tmp_path / "mark"
    torch.save(Harmful(mark), tmp_path / "harmful.pt")
    legacy = pickle.dumps(Harmful(mark))
    changed = 0
    for content in ((tmp_path / "harmful.pt").read_bytes(), legacy):
        other = tmp_path / "other.pt2"
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
            for entry in source.infolist():
                harmful = entry.filename.endswith(".pt")
                changed += harmful
                target.writestr(entry.filename, content if harmful else source.read(entry))
        with pytest.raises(StartFailure) as raised:
            obtain(other, Request("ONNXRuntime", "FP32", 1), Cache(tmp_path / "cache"))
        assert raised.value.failure.reason == FailureReason.MODEL_INVALID
        assert "could not be converted" in raised.value.failure.message
        assert not mark.exists()
    assert changed == 2


@pytest.mark.parametrize("kind", ["module", "weights", "script", "old"])
def test_other_files_of_torch_are_refused_with_the_way_to_export_them(
    tmp_path: Path, kind: str
) -> None:
    path, module = tmp_path / "model.pt", torch.nn.Linear(3, 2)
    if kind == "module":
        torch.save(module, path)
    elif kind == "weights":
        torch.save(module.state_dict(), path)
    elif kind == "old":
        torch.save(module, path, _use_new_zipfile_serialization=False)
    else:
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3)), path)
    shutil.copy(path, tmp_path / "model.onnx")
    for one in (path, tmp_path / "model.onnx"):
        with pytest.raises(StartFailure, match=r"torch\.onnx\.export"):
            origin_of(one)
