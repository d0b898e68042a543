"""The kinds of engine: how each is built from a checked model, and loaded from what was built."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

import msgspec

from kohort_server.engine import open_vino
from kohort_server.engine.interface import Engine
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from kohort_server.model.check import CheckedModel

FULL_PRECISION = "FP32"
PRECISIONS = ("FP32", "BF16", "FP16")
MODEL = "model"  # a directory: the model's weights may be called anything
NAMES = "names.json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of engine."""

    name: str  # as --engine and engine.type say it
    package: str
    # From a model in a precision into an empty directory; the first of the files is the one to load.
    build: Callable[[CheckedModel, str, Path], tuple[str, ...]]
    load: Callable[[Path, str, int], Engine]  # that file, the precision, threads
    precisions: Callable[[], tuple[str, ...]]

    @property
    def version(self) -> str | None:
        """The version of its package; None where that is not installed."""
        try:
            return package_version(self.package)
        except PackageNotFoundError:
            return None


def link_model(model: CheckedModel, precision: str, target: Path) -> tuple[str, ...]:
    """onnxruntime runs the model itself, and optimises it whenever it loads it."""
    folder = model.path.parent.resolve()
    names = [model.path.name, *(str(file.relative_to(folder)) for file in model.files[1:])]
    for name, file in zip(names, model.files, strict=True):
        here = target / MODEL / name
        here.parent.mkdir(parents=True, exist_ok=True)
        try:
            here.hardlink_to(file.resolve())
        except OSError:  # another file system
            shutil.copyfile(file, here)
    return tuple(f"{MODEL}/{name}" for name in names)


def build_openvino(model: CheckedModel, precision: str, target: Path) -> tuple[str, ...]:
    """OpenVINO's compiled model, and what ONNX calls its inputs and outputs."""
    built = open_vino.build(model.path, precision, model.inputs, model.outputs)
    (target / "engine.blob").write_bytes(built)
    (target / NAMES).write_bytes(msgspec.json.encode([model.inputs, model.outputs]))
    return "engine.blob", NAMES


def load_openvino(file: Path, precision: str, threads: int) -> Engine:
    """What `build_openvino` wrote."""
    names = msgspec.json.decode(
        file.with_name(NAMES).read_bytes(), type=tuple[tuple[str, ...], tuple[str, ...]]
    )
    return open_vino.load(file.read_bytes(), precision, *names, threads)


@cache
def openvino_precisions() -> tuple[str, ...]:
    """Those of this CPU; none without the package."""
    try:
        return open_vino.precisions(open_vino.imported().Core())
    except StartFailure:
        return ()


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "ONNXRuntime",
            "onnxruntime",
            link_model,
            lambda file, precision, threads: OnnxRuntimeEngine(file, threads),
            lambda: (FULL_PRECISION,),
        ),
        Kind("OpenVINO", "openvino", build_openvino, load_openvino, openvino_precisions),
    )
}
