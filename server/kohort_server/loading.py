"""From a URI to a warm model: fetch, verify, load, calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kohort.contract import FailureReason
from kohort_server.batch.calibration import Curve, WarmUpError, calibrate
from kohort_server.engine.interface import BatchDimension, Engine
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from kohort_server.model.source import fetch

ENGINES = {"Auto": OnnxRuntimeEngine, "ONNXRuntime": OnnxRuntimeEngine}


@dataclass(frozen=True, slots=True)
class WarmModel:
    """A model that has run, and what running it showed."""

    engine: Engine
    batch: BatchDimension
    curve: Curve


def load(uri: str, digest: str | None, engine: str, cache: Path, threads: int) -> WarmModel:
    """A model ready to serve; blocks for as long as it takes. Raises `StartFailure`."""
    path = fetch(uri, digest, cache)
    loaded = ENGINES[engine](path, threads)
    try:
        calibration = calibrate(loaded.run, loaded.signature, loaded.batch)
    except WarmUpError as error:
        raise StartFailure(
            FailureReason.WARMUP_FAILED,
            f"{uri} loads but does not run on inputs of its own shapes: {error}; run it once "
            "with onnxruntime to see why",
        ) from error
    loaded.batch = calibration.batch
    return WarmModel(loaded, calibration.batch, calibration.curve)
