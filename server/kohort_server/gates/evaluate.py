"""A model through its gates, one after the other; and broken models, to see whether the gates notice."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kohort_server.engine.interface import Engine
from kohort_server.errors import StartFailure
from kohort_server.gates.answers import Answers
from kohort_server.gates.data import check
from kohort_server.gates.errors import GateError
from kohort_server.gates.exhibits import Exhibits
from kohort_server.gates.judge import (
    Demand,
    Parts,
    good_enough,
    not_worse,
    share_of,
    vacuous,
)
from kohort_server.gates.layout import transformed
from kohort_server.gates.metrics import Measure, measure_of
from kohort_server.gates.relations import holds
from kohort_server.gates.results import Finding, GateResult, MutantResult, Outcome
from kohort_server.gates.samples import Samples
from kohort_server.gates.spec import (
    Compare,
    Contract,
    Dataset,
    Gate,
    Metamorphic,
    RelationName,
    Slices,
)
from kohort_server.gates.subject import Subject
from kohort_server.gates.words import described

# What a broken model is asked; data and mutation ask no model.
ASKING = frozenset({"contract", "compare", "metamorphic"})


@dataclass(frozen=True, slots=True)
class Case:
    """One gate before a model. ``parts``: rows by slice; ``shown``: for samples that it stumbles over."""

    gate: Gate
    dataset: Dataset
    subject: Subject
    samples: Samples
    parts: Parts
    shown: Exhibits | None


def evaluate(gate: Gate, subject: Subject, exhibit: bool = True) -> GateResult:
    """What a gate finds of a model; golden data that does not fit is a finding too.

    ``exhibit``: show samples that it stumbled over.
    """
    started = time.perf_counter()
    shown, golden = Exhibits(), ""
    try:
        assert gate.dataset is not None
        golden = subject.golden(gate.dataset).digest
        findings = _findings(gate, subject, shown if exhibit else None)
    except (GateError, StartFailure) as error:
        findings = [Finding(Outcome.INVALID, str(error))]
    return GateResult(
        gate.name,
        gate.kind,
        findings,
        described(gate),
        golden,
        shown.samples,
        shown.count,
        time.perf_counter() - started,
    )


def _findings(gate: Gate, subject: Subject, shown: Exhibits | None) -> list[Finding]:
    assert gate.dataset is not None
    samples = subject.golden(gate.dataset)
    parts: Parts = {"": np.arange(len(samples))}
    if gate.slices is Slices.EACH:
        parts = {**parts, **samples.rows_by_slice()}
    if gate.data is not None:
        return check(gate.data, samples, subject.samples)
    case = Case(gate, gate.dataset, subject, samples, parts, shown)
    if gate.contract is not None:
        return _contract(case, gate.contract)
    if gate.compare is not None:
        return _compare(case, gate.compare)
    assert gate.metamorphic is not None
    return _metamorphic(case, gate.metamorphic)


def _contract(case: Case, wanted: Contract) -> list[Finding]:
    subject, samples, dataset, shown = case.subject, case.samples, case.dataset, case.shown
    answers = subject.answers(dataset, wanted.output)
    measure = measure_of(wanted.metric, answers, samples.labelled(), wanted.positive)
    threshold = wanted.at_least if wanted.at_least is not None else wanted.at_most
    assert threshold is not None
    demand = Demand(float(threshold), wanted.confidence, wanted.interval)
    findings = _unless_vacuous(case.gate, answers, good_enough(measure, demand, case.parts))
    if shown is not None and measure.counts is not None and measure.per_sample is not None:
        wrong = np.flatnonzero(measure.per_sample == 0)
        shown.add(wrong, subject.signature, dataset.picture, samples, answers)
    return findings


def _compare(case: Case, wanted: Compare) -> list[Finding]:
    subject, samples, dataset, shown = case.subject, case.samples, case.dataset, case.shown
    labels = samples.labelled()
    new = subject.answers(dataset, wanted.output)
    stable = subject.stable_answers(dataset, wanted.output)
    mine, its = (measure_of(wanted.metric, one, labels, wanted.positive) for one in (new, stable))
    margin = None if wanted.margin is None else float(wanted.margin)
    findings = not_worse(mine, its, margin, wanted.confidence, case.parts)
    if shown is not None and mine.per_sample is not None and its.per_sample is not None:
        became_wrong = np.flatnonzero(mine.per_sample < its.per_sample)
        # Those that became worst first.
        away = mine.per_sample[became_wrong] - its.per_sample[became_wrong]
        order = became_wrong[np.argsort(away, kind="stable")]
        shown.add(order, subject.signature, dataset.picture, samples, stable, after=(samples, new))
    return _unless_vacuous(case.gate, new, findings)


def _metamorphic(case: Case, wanted: Metamorphic) -> list[Finding]:
    subject, samples, dataset, shown = case.subject, case.samples, case.dataset, case.shown
    before = subject.answers(dataset, wanted.output)
    changed, after = subject.after(wanted, dataset, transformed)
    held: NDArray[np.bool_] = holds(wanted, before, after)
    if wanted.relation is RelationName.ABSTAINS and all_alike(changed):
        findings = [_one_answer(bool(held.all()), after, wanted)]
    else:
        measure: Measure = share_of(held)
        demand = Demand(float(wanted.at_least), wanted.confidence, wanted.interval)
        findings = good_enough(measure, demand, case.parts)
    findings = _unless_vacuous(case.gate, before, findings)
    if shown is not None:
        shown.add(
            np.flatnonzero(~held),
            subject.signature,
            dataset.picture,
            samples,
            before,
            after=(changed, after),
        )
    return findings


def all_alike(samples: Samples) -> bool:
    """Whether all samples are one and the same."""
    return all(
        bool((array == array[:1]).all()) and len(array) > 1
        for array in samples.golden.inputs.values()
    )


def _one_answer(held: bool, after: Answers, wanted: Metamorphic) -> Finding:
    """What a single question shows: how often it is asked proves nothing more."""
    outcome = Outcome.PASSED if held else Outcome.FAILED
    told = (
        f"all samples are the same after {wanted.transform}: one question, answered {after.told(0)}"
    )
    return Finding(outcome, told, n=1, value=float(held), threshold=float(wanted.at_least))


def _unless_vacuous(gate: Gate, answers: Answers, findings: list[Finding]) -> list[Finding]:
    """The findings, with one more where the answers prove nothing."""
    if answers.classes is None:  # numbers: of these too, one and the same is no answer
        assert answers.values is not None
        distinct = np.unique(answers.values, return_inverse=True)[1].astype(np.int64)
        why = vacuous(distinct, min(gate.distinct_classes, 2), "samples")
    else:
        why = vacuous(answers.classes, gate.distinct_classes, "samples")
    if why is None:
        return findings
    return [Finding(Outcome.FAILED, why, n=len(answers)), *findings]


def killed_by(gates: Sequence[Gate], passed: set[str], subject: Subject) -> list[str]:
    """The gates that a broken model does not pass, of those that the good one passes."""
    return [
        gate.name
        for gate in gates
        if gate.kind in ASKING
        and gate.name in passed
        and not evaluate(gate, subject, exhibit=False).passed
    ]


def try_mutants(
    gates: Sequence[Gate],
    passed: set[str],
    subject: Subject,
    broken: Iterable[tuple[str, Engine]],
) -> list[MutantResult]:
    """Each broken model through the gates that the good one passes."""
    results = []
    for name, engine in broken:
        instead = subject.instead(engine)
        killers = killed_by(gates, passed, instead)
        same = not killers and _same_answers(gates, subject, instead)
        results.append(MutantResult(name, killers, same))
    return results


def _same_answers(gates: Sequence[Gate], subject: Subject, other: Subject) -> bool:
    """Whether both say the same of every sample: there was nothing to notice."""
    for gate in gates:
        part = gate.contract or gate.compare or gate.metamorphic
        if part is None or gate.dataset is None:
            continue
        one, two = (each.answers(gate.dataset, part.output) for each in (subject, other))
        for left, right in (
            (one.scores, two.scores),
            (one.values, two.values),
            (one.classes, two.classes),
        ):
            if left is not None and (right is None or not np.array_equal(left, right)):
                return False
    return True


def mutation_finding(results: Sequence[MutantResult], at_least: float, judging: int) -> Finding:
    """Whether the gates notice enough broken models."""
    if not judging:
        what = "no gate that asks the model passes, so that none can notice a broken one"
        return Finding(Outcome.INVALID, what, threshold=at_least)
    if not results:
        return Finding(
            Outcome.INVALID, "nothing could be broken about this model", threshold=at_least
        )
    survivors = [result.name for result in results if result.survived]
    score = 1 - len(survivors) / len(results)
    told = f"{len(results) - len(survivors)} of {len(results)} broken models were noticed"
    if survivors:
        told += f"; not: {', '.join(survivors)}"
    outcome = Outcome.PASSED if score >= at_least else Outcome.FAILED
    return Finding(outcome, told, n=len(results), value=score, threshold=at_least)
