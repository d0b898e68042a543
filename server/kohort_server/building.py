"""From a model's file to its engine: build each candidate, prove it, measure it, take the fastest."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kohort.contract import FailureReason
from kohort_server.batch.calibration import WarmUpError, calibrate, workable_extent
from kohort_server.engine.interface import Engine
from kohort_server.engine.kinds import FULL_PRECISION, KINDS, Kind
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from kohort_server.gate.golden import Golden, digest_of_golden, drawn, read
from kohort_server.gate.parity import DEFAULTS, Comparison, Report, Thresholds
from kohort_server.model.check import CheckedModel, checked, one_line
from kohort_server.model.engine_cache import MANIFEST, Cache, Entry, Key, verified
from kohort_server.model.hardware import machine
from kohort_server.model.origin import Origin, origin_of
from kohort_server.model.source import digest_of
from kohort_server.model.torch_export import convert

SMALL_BATCHES = (1, 3, 8)
# Another engine than the first must be faster by this share: what is measured differs from run to run.
USEFUL_GAIN = 0.05
TABLE = "engines.json"

log = logging.getLogger(__name__)


class Candidate(msgspec.Struct, frozen=True, rename="camel"):
    """One engine that was tried: what it is, whether its answers are right, and how fast they come."""

    engine: str
    version: str
    precision: str  # asked for
    effective_precision: str = ""  # that it really works in
    build_seconds: float = 0.0  # 0.0 where it was found in the cache
    batch_seconds: dict[str, float] = msgspec.field(default_factory=dict)  # rows, seconds per run
    max_rows: int = 0  # the largest useful batch
    rows_per_second: float = 0.0  # at that batch
    parity: Report | None = None
    problem: str = ""  # why it cannot be taken

    @property
    def name(self) -> str:
        """The engine in words."""
        return f"{self.engine} {self.version} {self.effective_precision or self.precision}"


class Selection(msgspec.Struct, frozen=True, rename="camel"):
    """What was tried for a model on a machine, and which one is taken; None where none passed."""

    model: str  # digest of the ONNX model
    machine: str
    threads: int
    candidates: list[Candidate]
    chosen: int | None

    def taken(self) -> Candidate:
        """The candidate that is taken; raises `StartFailure` with why each cannot be."""
        if self.chosen is not None:
            return self.candidates[self.chosen]
        unequal = [one for one in self.candidates if one.parity and not one.parity.passed]
        told = "; ".join(f"{one.name}: {one.problem}" for one in unequal or self.candidates)
        if unequal:
            raise StartFailure(
                FailureReason.PARITY_FAILED,
                f"no engine gives the model's own answers: {told}; use --engine ONNXRuntime or a higher "
                "precision",
            )
        raise StartFailure(FailureReason.BUILD_FAILED, f"no engine can be built: {told}")


@dataclass(frozen=True, slots=True)
class Request:
    """What to build."""

    engine: str  # of KINDS, or Auto
    precision: str
    threads: int
    golden: Path | None = None
    thresholds: Thresholds | None = None  # without: those of the engine's precision


@dataclass(frozen=True, slots=True)
class Built:
    """An engine that is taken: where it lies, how it came to be, and itself."""

    entry: Entry
    selection: Selection
    engine: Engine


def obtain(path: Path, request: Request, cache: Cache) -> Built:
    """The engine for a model's file; found in the cache where it was built and proven before.

    Raises `StartFailure`: ModelInvalid, EngineUnavailable, BuildFailed, ParityFailed, WarmupFailed,
    CacheUnusable.
    """
    model = onnx_of(path, cache)
    wanted = candidates(request)
    # What was found is true of these engines, samples, thresholds and threads.
    asked = [
        [[kind.name, kind.version, precision] for kind, precision in wanted],
        digest_of_golden(request.golden) if request.golden else "",
        request.thresholds,
        request.threads,
    ]
    recipe = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
    key = Key(model.digest, "selection", "1", request.precision, machine(), recipe)

    def select(target: Path) -> Sequence[str]:
        found = choose(model, wanted, request, cache)
        found.taken()
        (target / TABLE).write_bytes(msgspec.json.format(msgspec.json.encode(found)))
        return (TABLE,)

    table = cache.obtain(key, select).main
    selection = msgspec.json.decode(table.read_bytes(), type=Selection)
    taken = selection.taken()
    kind = KINDS[taken.engine]
    entry = build(model, kind, taken.precision, cache)
    return Built(entry, selection, kind.load(entry.main, taken.precision, request.threads))


def onnx_of(path: Path, cache: Cache) -> CheckedModel:
    """The checked ONNX model of an origin."""
    if origin_of(path) is Origin.ONNX:
        return checked(path)

    def written(target: Path) -> Sequence[str]:
        convert(path, target / "model.onnx")
        made = checked(target / "model.onnx")
        return tuple(
            str(file.relative_to(target.resolve())) for file in map(Path.resolve, made.files)
        )

    key = Key(digest_of(path), "torch.export", "1", "", "")
    return checked(cache.obtain(key, written).main)


def candidates(request: Request) -> list[tuple[Kind, str]]:
    """The engines and precisions to try, the one that changes least first."""
    if request.engine == "Auto":
        precisions = dict.fromkeys((FULL_PRECISION, request.precision))
        return [
            (kind, precision)
            for precision in precisions
            for kind in KINDS.values()
            if precision in kind.precisions()
        ]
    kind = KINDS[request.engine]
    if kind.version is not None and request.precision not in kind.precisions():
        raise StartFailure(
            FailureReason.ENGINE_UNAVAILABLE,
            f"{kind.name} does not compute in {request.precision} on this machine; use one of "
            f"{', '.join(kind.precisions())}",
        )
    return [(kind, request.precision)]


def build(model: CheckedModel, kind: Kind, precision: str, cache: Cache) -> Entry:
    """The entry of a candidate."""
    key = Key(model.digest, kind.name, kind.version or "", precision, machine())
    return cache.obtain(key, lambda target: kind.build(model, precision, target))


@dataclass(frozen=True, slots=True)
class Proof:
    """What every candidate's answers are compared with: the model as it is, with nothing optimised."""

    reference: OnnxRuntimeEngine
    golden: Golden
    sizes: tuple[int, ...]  # of batches
    thresholds: Thresholds | None


def proof_of(model: CheckedModel, request: Request) -> Proof:
    """The reference, the golden samples, and the batches in which they run.

    Raises `StartFailure` with ModelInvalid or WarmupFailed.
    """
    reference = OnnxRuntimeEngine(model.path, request.threads, optimise=False)
    signature = reference.signature
    try:
        calibration = calibrate(reference.run, signature, reference.batch)
        kind = calibration.batch.kind
        sizes = {
            "dynamic": tuple(sorted({*SMALL_BATCHES, max(calibration.curve.seconds)})),
            "fixed": (calibration.batch.size,),
            "none": (1,),
        }[kind]
        if request.golden:
            golden = read(request.golden, signature, kind == "none")
        else:
            extent = workable_extent(reference.run, signature, sizes[0])
            golden = drawn(signature, extent, calibration.batch)
    except WarmUpError as error:
        raise StartFailure(
            FailureReason.WARMUP_FAILED,
            f"{model.path.name} does not run on inputs of its own shapes: {error}; run it once with "
            "onnxruntime to see why",
        ) from error
    return Proof(reference, golden, sizes, request.thresholds)


def choose(
    model: CheckedModel, wanted: Sequence[tuple[Kind, str]], request: Request, cache: Cache
) -> Selection:
    """Build, prove and measure every candidate, and take the fastest that passes."""
    proof = proof_of(model, request)
    tried = []
    for kind, precision in wanted:
        try:
            tried.append(attempt(model, kind, precision, proof, request.threads, cache))
        except StartFailure as failed:
            if len(wanted) == 1 or failed.failure.reason is FailureReason.CACHE_UNUSABLE:
                raise
            problem = Candidate(kind.name, kind.version or "", precision, problem=str(failed))
            tried.append(problem)
    return Selection(model.digest, machine(), request.threads, tried, fastest(tried))


def attempt(
    model: CheckedModel, kind: Kind, precision: str, proof: Proof, threads: int, cache: Cache
) -> Candidate:
    """One candidate, built, measured and compared; raises `StartFailure` where it cannot be."""
    told = Candidate(kind.name, kind.version or "", precision)
    log.info("building %s", told.name)
    started = time.perf_counter()
    entry = build(model, kind, precision, cache)
    seconds = time.perf_counter() - started if entry.fresh else 0.0
    engine = kind.load(entry.main, precision, threads)
    try:
        curve = calibrate(engine.run, engine.signature, engine.batch).curve
        report = prove(engine, precision, proof, told.name)
    except Exception as error:  # whatever an engine raises
        raise StartFailure(
            FailureReason.BUILD_FAILED, f"{told.name} builds but does not run: {one_line(error)}"
        ) from error
    return msgspec.structs.replace(
        told,
        effective_precision=engine.precision,
        build_seconds=seconds,
        batch_seconds={str(rows): taken for rows, taken in curve.seconds.items()},
        max_rows=curve.max_rows,
        rows_per_second=1 / curve.seconds_per_row,
        parity=report,
        problem=str(report.failures[0]) if report.failures else "",
    )


def prove(engine: Engine, precision: str, proof: Proof, name: str) -> Report:
    """Whether an engine that was asked for in a precision gives the reference's answers."""
    # What was asked for counts, not what the engine does: it may be lower. A model may be lower itself.
    halves = any(spec.datatype == "FP16" for spec in proof.reference.signature.outputs)
    usual = DEFAULTS["FP16" if halves and precision == FULL_PRECISION else precision]
    comparison = Comparison(proof.thresholds or usual)
    for samples, inputs in proof.golden.batches(proof.sizes):
        comparison.add(proof.reference.run(inputs), engine.run(inputs), samples)
    comparison.finish()
    return Report(
        passed=not comparison.failures,
        reference="ONNXRuntime without optimisation",
        engine=name,
        golden=proof.golden.source,
        samples=proof.golden.samples,
        batches=list(proof.sizes),
        thresholds=proof.thresholds or usual,
        outputs=comparison.outputs,
        failures=comparison.failures,
    )


def fastest(tried: Sequence[Candidate]) -> int | None:
    """The number of the candidate to take: the first that is right, or one that is faster by enough."""
    chosen: int | None = None
    for number, one in enumerate(tried):
        if one.parity is None or not one.parity.passed:
            continue
        if chosen is None or one.rows_per_second > tried[chosen].rows_per_second * (
            1 + USEFUL_GAIN
        ):
            chosen = number
    return chosen


def export(built: Built, target: Path) -> None:
    """Write an engine that was built, with its table, where `load_exported` finds it.

    Raises `StartFailure` with CacheUnusable for a directory that cannot be written.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in (*built.entry.manifest.files, MANIFEST):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(built.entry.path / name, target / name)
        (target / TABLE).write_bytes(msgspec.json.format(msgspec.json.encode(built.selection)))
    except OSError as error:
        raise StartFailure(
            FailureReason.CACHE_UNUSABLE,
            f"cannot write to {target}: {error.strerror or error}; give --output a writable directory "
            "with room for the engine",
        ) from error


def load_exported(directory: Path, threads: int) -> Engine:
    """The engine in a directory that `export` wrote, here and with the version that it was built for.

    Raises `StartFailure` with ModelInvalid, EngineUnavailable or BuildFailed.
    """
    manifest = verified(directory)
    if manifest is None:
        raise StartFailure(
            FailureReason.MODEL_INVALID,
            f"the engine in {directory} is not whole, or not as it was built; build it again",
        )
    key = manifest.key
    kind = KINDS.get(key.engine)
    if kind is None or kind.version != key.version or key.machine != machine():
        here = f"{kind.version if kind else 'none'} on {machine()}"
        raise StartFailure(
            FailureReason.ENGINE_UNAVAILABLE,
            f"the engine in {directory} is for {key.engine} {key.version} on {key.machine}; here is {here}: "
            "build it here",
        )
    return kind.load(Entry(directory, manifest).main, key.precision, threads)
