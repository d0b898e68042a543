"""`kohort-server gates SPEC.yaml`: gates without a cluster, as CI runs them."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from kohort.contract import FailureReason
from kohort_server.building import Request, onnx_of
from kohort_server.digest import digest_of
from kohort_server.engine.interface import Engine
from kohort_server.engine.kinds import KINDS, PRECISIONS
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.errors import StartFailure
from kohort_server.gates import report as reports
from kohort_server.gates.errors import GateError
from kohort_server.gates.evaluate import ASKING, evaluate, mutation_finding, try_mutants
from kohort_server.gates.layout import Layout, layout_of
from kohort_server.gates.mutants import Ground, mutants
from kohort_server.gates.results import GateResult, GatesReport, MutantResult, summary
from kohort_server.gates.spec import MAX_SPEC_BYTES, File, Gate, Spec, parse
from kohort_server.gates.subject import Shared, Subject
from kohort_server.gates.words import described
from kohort_server.loading import load
from kohort_server.model.engine_cache import Cache
from kohort_server.source.fetch import Wanted, fetch

PASSED, NOT_PASSED, CANNOT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are: relative paths of a spec are beside it."""

    folder: Path
    cache: Path
    threads: int

    def fetched(self, file: File) -> Path:
        """A verified file; raises `StartFailure` as `fetch` does."""
        uri = file.uri
        if "://" not in uri:
            uri = (self.folder / uri).resolve().as_uri()
        return fetch(Wanted(uri, file.digest or None), self.cache).path


def run(
    spec_path: Path,
    report: Path | None,
    with_mutants: bool,
    summary_path: Path | None,
    cache: Path,
    threads: int,
) -> int:
    """The exit status: 0 every gate passed, 1 not every one did, 2 they could not be tried.

    Raises `StartFailure` for a spec or a model that cannot be used.
    """
    try:
        with spec_path.open("rb") as file:
            spec = parse(file.read(MAX_SPEC_BYTES + 1))
    except OSError as error:
        raise StartFailure(
            FailureReason.MODEL_INVALID, f"cannot read {spec_path}: {error.strerror}"
        ) from error
    except GateError as error:
        raise StartFailure(FailureReason.MODEL_INVALID, f"{spec_path.name}: {error}") from error
    place = Place(spec_path.resolve().parent, cache, threads)
    found = go(spec, place, with_mutants)
    sys.stdout.write(reports.table(found))
    if report is not None:
        reports.write(found, report)
    if summary_path is not None:
        summary_path.write_bytes(summary(found))
    return PASSED if found.passed else NOT_PASSED


def go(spec: Spec, place: Place, with_mutants: bool) -> GatesReport:
    """Every gate of a spec; raises `StartFailure` where the models cannot be loaded."""
    started = time.perf_counter()
    request = request_of(spec, place.threads)
    path = place.fetched(spec.model)
    engine = load(Wanted(path.as_uri()), request, place.cache).engine
    stable = None
    if spec.stable is not None and any(gate.compare for gate in spec.gates):
        stable = load(Wanted(place.fetched(spec.stable).as_uri()), request, place.cache).engine
    subject = Subject(engine, Shared(place.fetched), stable)
    results = [evaluate(gate, subject) for gate in spec.gates if gate.mutation is None]
    tried: list[MutantResult] = []
    mutation = next((gate for gate in spec.gates if gate.mutation is not None), None)
    if with_mutants or mutation is not None:
        passed = {one.name for one in results if one.passed and one.kind in ASKING}
        begun = time.perf_counter()
        old = mutation.mutation.models if mutation and mutation.mutation else ()
        if passed:
            broken = broken_engines(spec, path, old, subject, place)
            tried = try_mutants(spec.gates, passed, subject, broken)
        if mutation is not None and mutation.mutation is not None:
            at_least = float(mutation.mutation.at_least)
            finding = mutation_finding(tried, at_least, len(passed))
            results.append(
                GateResult(
                    mutation.name,
                    mutation.kind,
                    [finding],
                    described(mutation),
                    seconds=time.perf_counter() - begun,
                )
            )
    return GatesReport(
        spec.model.uri,
        digest_of(path),
        f"{engine.name} in {engine.precision}",
        results,
        spec.stable.uri if spec.stable and stable else "",
        tried,
        time.perf_counter() - started,
    )


def request_of(spec: Spec, threads: int) -> Request:
    """What engine is wanted; raises `StartFailure` for one that there is not."""
    kinds, precisions = (*KINDS, "Auto"), PRECISIONS
    for told, known in ((spec.engine.type, kinds), (spec.engine.precision, precisions)):
        if told not in known:
            raise StartFailure(
                FailureReason.ENGINE_UNAVAILABLE,
                f"the spec's engine has {told!r}; use one of {', '.join(known)}",
            )
    return Request(spec.engine.type, spec.engine.precision, threads)


def broken_engines(
    spec: Spec, path: Path, old: tuple[File, ...], subject: Subject, place: Place
) -> Iterator[tuple[str, Engine]]:
    """The model's mutants and old versions, one loaded at a time.

    They run with onnxruntime, which the graph is edited for. Raises `StartFailure` for a model that cannot
    be edited, or an old one that cannot be loaded.
    """
    checked = onnx_of(path, Cache(place.cache / "engines"))
    model = onnx.load(str(checked.path))
    ground = ground_of(spec.gates, subject)
    with tempfile.TemporaryDirectory(prefix="kohort-mutants-") as made:
        for number, (name, broken) in enumerate(mutants(model, ground)):
            target = Path(made) / f"{number}.onnx"
            try:
                target.write_bytes(broken.SerializeToString())
                engine = OnnxRuntimeEngine(target, place.threads)
            except (StartFailure, ValueError):
                continue  # this mistake cannot be made with this model
            engine.batch = subject.engine.batch
            yield name, engine
            target.unlink()
    for one in old:
        engine = OnnxRuntimeEngine(place.fetched(one), place.threads)
        engine.batch = subject.engine.batch
        yield f"the model {one.uri}", engine


def ground_of(gates: tuple[Gate, ...], subject: Subject) -> Ground:
    """What of the model can be broken, by what the gates read of it."""
    outputs: dict[str, int] = {}
    labels: set[str] = set()
    layout: Layout | None = None
    for gate in gates:
        part = gate.contract or gate.compare or gate.metamorphic
        if part is None or gate.dataset is None:
            continue
        try:
            answers = subject.answers(gate.dataset, part.output)
            samples = subject.golden(gate.dataset)
            if gate.dataset.picture is not None:
                layout = layout_of(gate.dataset.picture, subject.signature, samples)
        except (GateError, StartFailure):
            continue  # the gate itself says so
        if answers.scores is not None:
            outputs[answers.output] = answers.scores.shape[1]
        elif answers.classes is not None:
            labels.add(answers.output)
            known = [int(answers.classes.max())]
            if samples.labels is not None and samples.labels.dtype.kind in "iu":
                known.append(int(samples.labels.max()))
            outputs[answers.output] = max(known) + 1 if int(answers.classes.min()) >= 0 else 0
        else:
            outputs[answers.output] = 0
    floats = tuple(
        spec.name for spec in subject.signature.inputs if spec.datatype in ("FP32", "FP64", "FP16")
    )
    return Ground(outputs, frozenset(labels), floats, layout)
