"""From a URI to a warm model: fetch, verify, load, calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kohort.contract import FailureReason
from kohort_server.batch.calibration import Curve, WarmUpError, calibrate
from kohort_server.building import Request, exported_selection, load_exported, obtain
from kohort_server.engine.interface import BatchDimension, Engine
from kohort_server.engine.kinds import FULL_PRECISION
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from kohort_server.model.engine_cache import MANIFEST, Cache
from kohort_server.model.origin import Origin, origin_of
from kohort_server.progress import Progress
from kohort_server.selection import Selection
from kohort_server.source.fetch import Wanted, fetch


@dataclass(frozen=True, slots=True)
class WarmModel:
    """A model that has run, and what running it showed; `selection` where its engine was built."""

    engine: Engine
    batch: BatchDimension
    curve: Curve
    selection: Selection | None = None


def load(
    wanted: Wanted, request: Request, cache: Path, progress: Progress | None = None
) -> WarmModel:
    """A model ready to serve; blocks for as long as it takes. Raises `StartFailure`."""
    told = progress or Progress()
    path = fetch(wanted, cache, request.room, told.received).path
    told.done()
    loaded, selection = engine_of(path, request, cache, told)
    told.done()
    try:
        calibration = calibrate(loaded.run, loaded.signature, loaded.batch)
    except WarmUpError as error:
        raise StartFailure(
            FailureReason.WARMUP_FAILED,
            f"{wanted.uri} loads but does not run on inputs of its own shapes: {error}; run it once "
            "with onnxruntime to see why",
        ) from error
    loaded.batch = calibration.batch
    return WarmModel(loaded, calibration.batch, calibration.curve, selection)


def engine_of(
    path: Path, request: Request, cache: Path, progress: Progress
) -> tuple[Engine, Selection | None]:
    """The engine for a model's file, or the one that `kohort-server build` wrote beside a manifest."""
    if path.name == MANIFEST:
        return load_exported(path.parent, request.threads), exported_selection(path.parent)
    plain = (request.engine, request.precision) == ("ONNXRuntime", FULL_PRECISION)
    if plain and origin_of(path) is Origin.ONNX:
        # onnxruntime takes the model as it is: there is nothing to build, and nothing to prove.
        return OnnxRuntimeEngine(path, request.threads), None
    built = obtain(path, request, Cache(cache / "engines"), progress)
    return built.engine, built.selection
