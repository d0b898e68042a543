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

from kohort.contract import FailureReason, Stage
from kohort_server.batch.calibration import WarmUpError, calibrate, workable_extent
from kohort_server.digest import digest_of
from kohort_server.engine.interface import Engine
from kohort_server.engine.kinds import FULL_PRECISION, KINDS, Kind
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from kohort_server.gates.golden import Golden, drawn, read
from kohort_server.gates.parity import DEFAULTS, Comparison, Limits, Report
from kohort_server.model.check import CheckedModel, checked, one_line
from kohort_server.model.engine_cache import MANIFEST, Cache, Entry, Key, verified
from kohort_server.model.hardware import machine
from kohort_server.model.origin import Origin, origin_of
from kohort_server.model.torch_export import convert
from kohort_server.progress import Progress
from kohort_server.selection import Candidate, Selection, fastest, why_chosen
from kohort_server.source.fetch import Wanted, fetch

SMALL_BATCHES = (1, 3, 8)
TABLE = "engines.json"

log = logging.getLogger(__name__)


# What says that an engine cannot be had, and not that it is wrong.
UNSUPPORTED = frozenset({FailureReason.ENGINE_UNAVAILABLE, FailureReason.BUILD_FAILED})

AS_USUAL = Limits()


@dataclass(frozen=True, slots=True)
class GoldenFile:
    """Where the samples are that engines are compared with."""

    uri: str
    digest: str | None = None

    def fetched(self, cache: Path) -> Path:
        """The file; raises `StartFailure` as `fetch` does."""
        try:
            return fetch(Wanted(self.uri, self.digest), cache).path
        except StartFailure as failed:
            failure = failed.failure
            raise StartFailure(failure.reason, f"the golden inputs: {failure.message}") from failed


@dataclass(frozen=True, slots=True)
class Request:
    """What to build."""

    engine: str  # of KINDS, or Auto
    precision: str
    threads: int
    golden: GoldenFile | None = None  # without: drawn from the model's signature
    limits: Limits = AS_USUAL
    fallback: bool = False  # to onnxruntime, where the engine cannot be had
    room: int = 20 << 30  # bytes that engines may take in the cache, beside those that are in use


@dataclass(frozen=True, slots=True)
class Built:
    """An engine that is taken: where it lies, how it came to be, and itself."""

    entry: Entry
    selection: Selection
    engine: Engine


def obtain(path: Path, request: Request, cache: Cache, progress: Progress | None = None) -> Built:
    """The engine for a model's file; found in the cache where it was built and proven before.

    `progress` hears how far it is.

    Raises `StartFailure`: ModelInvalid, EngineUnavailable, BuildFailed, ParityFailed, WarmupFailed,
    CacheUnusable.
    """
    wanted = candidates(request)
    work = Work(progress or Progress(), 2 + len(wanted) * len(Work.OF_EACH))
    work.begins(f"reading {path.name}")
    model = onnx_of(path, cache)
    # What was found is true of these engines, samples, thresholds and threads.
    golden = request.golden.fetched(cache.root.parent) if request.golden else None
    asked = [
        [[kind.name, kind.version, precision] for kind, precision in wanted],
        digest_of(golden) if golden else "",
        request.limits,
        request.threads,
        request.fallback,
    ]
    recipe = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
    key = Key(model.digest, "selection", "2", request.precision, machine(), recipe)

    def select(target: Path) -> Sequence[str]:
        found = choose(model, wanted, request, golden, cache, work)
        found.taken()
        (target / TABLE).write_bytes(msgspec.json.format(msgspec.json.encode(found)))
        return (TABLE,)

    table = cache.obtain(key, select)
    selection = msgspec.json.decode(table.main.read_bytes(), type=Selection)
    taken = selection.taken()
    kind = KINDS[taken.engine]
    entry = build(model, kind, taken.precision, cache)
    if table.fresh or entry.fresh:
        cache.trim(request.room)
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
    return [(KINDS[request.engine], request.precision)]


def build(model: CheckedModel, kind: Kind, precision: str, cache: Cache) -> Entry:
    """The entry of a candidate; raises `StartFailure` with EngineUnavailable or BuildFailed."""
    if kind.version is not None and precision not in kind.precisions():
        raise StartFailure(
            FailureReason.ENGINE_UNAVAILABLE,
            f"{kind.name} does not compute in {precision} on this machine; use one of "
            f"{', '.join(kind.precisions())}",
        )
    key = Key(model.digest, kind.name, kind.version or "", precision, machine())
    return cache.obtain(key, lambda target: kind.build(model, precision, target))


@dataclass(frozen=True, slots=True)
class Proof:
    """What every candidate's answers are compared with: the model as it is, with nothing optimised."""

    reference: OnnxRuntimeEngine
    golden: Golden
    sizes: tuple[int, ...]  # of batches
    limits: Limits


def proof_of(model: CheckedModel, request: Request, given: Path | None) -> Proof:
    """The reference, the golden samples, given in a file or not, and the batches in which they run.

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
        if given:
            golden = read(given, signature, kind == "none")
        else:
            extent = workable_extent(reference.run, signature, sizes[0])
            golden = drawn(signature, extent, calibration.batch)
    except WarmUpError as error:
        raise StartFailure(
            FailureReason.WARMUP_FAILED,
            f"{model.path.name} does not run on inputs of its own shapes: {error}; run it once with "
            "onnxruntime to see why",
        ) from error
    return Proof(reference, golden, sizes, request.limits)


class Work:
    """Tells of the steps that an engine takes, one after the other; each counts alike."""

    OF_EACH = ("building {}", "measuring {}", "comparing the answers of {}")  # candidate

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress = progress
        self._steps = steps
        self._begun = 0

    def begins(self, detail: str) -> None:
        """The next step begins, and the former one is over."""
        self._begun = min(self._begun + 1, self._steps)
        self._progress.at(Stage.COMPILING, (self._begun - 1) / self._steps, detail)

    def skips_to(self, steps: int) -> None:
        """So many steps are over, whether they were taken or not."""
        self._begun = steps

    def within(self, share: float, detail: str) -> None:
        """This share of the step that has begun is done."""
        self._progress.at(Stage.COMPILING, (self._begun - 1 + share) / self._steps, detail)


def choose(
    model: CheckedModel,
    wanted: Sequence[tuple[Kind, str]],
    request: Request,
    golden: Path | None,
    cache: Cache,
    work: Work,
) -> Selection:
    """Build, prove and measure every candidate, and take the fastest that passes."""
    work.begins("running the model as it is")
    proof = proof_of(model, request, golden)
    tried = []
    for number, (kind, precision) in enumerate(wanted):
        work.skips_to(2 + number * len(Work.OF_EACH))
        try:
            tried.append(attempt(model, kind, precision, proof, request.threads, cache, work))
        except StartFailure as failed:
            reason = failed.failure.reason
            replaced = request.fallback and reason in UNSUPPORTED
            if reason is FailureReason.CACHE_UNUSABLE or (len(wanted) == 1 and not replaced):
                raise
            problem = Candidate(kind.name, kind.version or "", precision, problem=str(failed))
            tried.append(problem)
    if request.fallback and all(one.parity is None for one in tried):
        plain = KINDS["ONNXRuntime"]
        found = attempt(model, plain, FULL_PRECISION, proof, request.threads, cache, work)
        tried.append(msgspec.structs.replace(found, fallback=True))
    chosen = fastest(tried)
    why = "" if chosen is None else why_chosen(tried, chosen)
    return Selection(model.digest, machine(), request.threads, tried, chosen, why)


def attempt(
    model: CheckedModel,
    kind: Kind,
    precision: str,
    proof: Proof,
    threads: int,
    cache: Cache,
    work: Work,
) -> Candidate:
    """One candidate, built, measured and compared; raises `StartFailure` where it cannot be."""
    told = Candidate(kind.name, kind.version or "", precision)
    building, measuring, comparing = (step.format(told.name) for step in Work.OF_EACH)
    log.info("%s", building)
    work.begins(building)
    started = time.perf_counter()
    entry = build(model, kind, precision, cache)
    seconds = time.perf_counter() - started if entry.fresh else 0.0
    engine = kind.load(entry.main, precision, threads)
    try:
        work.begins(measuring)
        curve = calibrate(engine.run, engine.signature, engine.batch).curve
        work.begins(comparing)
        report = prove(engine, precision, proof, told.name, work)
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
        size=entry.size,
        parity=report,
        problem=str(report.failures[0]) if report.failures else "",
    )


def prove(engine: Engine, precision: str, proof: Proof, name: str, work: Work) -> Report:
    """Whether an engine that was asked for in a precision gives the reference's answers."""
    # What was asked for counts, not what the engine does: it may be lower. A model may be lower itself.
    halves = any(spec.datatype == "FP16" for spec in proof.reference.signature.outputs)
    usual = DEFAULTS["FP16" if halves and precision == FULL_PRECISION else precision]
    thresholds = proof.limits.over(usual)
    comparison = Comparison(thresholds)
    batches = proof.golden.count(proof.sizes)
    for number, (samples, inputs) in enumerate(proof.golden.batches(proof.sizes)):
        work.within(number / batches, Work.OF_EACH[-1].format(name))
        comparison.add(proof.reference.run(inputs), engine.run(inputs), samples)
    comparison.finish()
    return Report(
        passed=not comparison.failures,
        reference="ONNXRuntime without optimisation",
        engine=name,
        golden=proof.golden.source,
        samples=proof.golden.samples,
        batches=list(proof.sizes),
        thresholds=thresholds,
        outputs=comparison.outputs,
        failures=comparison.failures,
    )


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


def exported_selection(directory: Path) -> Selection | None:
    """The table in a directory that `export` wrote; None where it is not there, or of another version."""
    try:
        return msgspec.json.decode((directory / TABLE).read_bytes(), type=Selection)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return None


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
