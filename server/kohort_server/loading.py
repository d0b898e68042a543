"""From a URI to a warm model: fetch, verify, load, calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kohort.contract import FailureReason
from kohort_server.batch.calibration import Curve, WarmUpError, calibrate
from kohort_server.building import Request, load_exported, obtain
from kohort_server.engine.interface import BatchDimension, Engine
from kohort_server.engine.kinds import FULL_PRECISION
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from kohort_server.model.engine_cache import MANIFEST, Cache
from kohort_server.model.origin import Origin, origin_of
from kohort_server.model.source import fetch


@dataclass(frozen=True, slots=True)
class WarmModel:
    """A model that has run, and what running it showed."""

    engine: Engine
    batch: BatchDimension
    curve: Curve


def load(uri: str, digest: str | None, request: Request, cache: Path) -> WarmModel:
    """A model ready to serve; blocks for as long as it takes. Raises `StartFailure`."""
    loaded = engine_of(fetch(uri, digest, cache), request, cache)
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


def engine_of(path: Path, request: Request, cache: Path) -> Engine:
    """The engine for a model's file, or the one that `kohort-server build` wrote beside a manifest."""
    if path.name == MANIFEST:
        return load_exported(path.parent, request.threads)
    plain = (request.engine, request.precision) == ("ONNXRuntime", FULL_PRECISION)
    if plain and origin_of(path) is Origin.ONNX:
        # onnxruntime takes the model as it is: there is nothing to build, and nothing to prove.
        return OnnxRuntimeEngine(path, request.threads)
    return obtain(path, request, Cache(cache / "engines")).engine
