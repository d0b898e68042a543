"""The worlds in which gates are tried are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from kohort_server.gates.answers import Answers
from kohort_server.gates.metrics import MetricName, measure_of
from kohort_server.gates.results import Finding, GateResult, GatesReport, MutantResult, Outcome
from tests.bench.gate_errors import fails, passes, two_classes, two_models
from tests.bench.gate_mutants import table


def test_models_differ_by_as_many_samples_as_was_said() -> None:
    (finding,) = two_models(200_000, 0.02, 0.05, None, 0)(np.random.default_rng(1))
    assert finding.value == pytest.approx(-0.03, abs=0.002)
    assert fails([finding])
    parts = two_models(1000, 0.02, 0.02, None, 10)(np.random.default_rng(1))
    assert [part.n for part in parts] == [1000, *[100] * 10]


def test_scores_of_two_classes_are_as_far_apart_as_was_said() -> None:
    answers, labels = two_classes(np.random.default_rng(1), 100_000, 1.8124)  # AUC 90 %
    area = measure_of(MetricName.AUC, answers, labels).of(np.arange(len(labels)))
    assert area == pytest.approx(0.9, abs=0.005)
    assert isinstance(answers, Answers)


def test_a_table_of_mutants_says_which_gate_noticed_which() -> None:
    good, bad = ([Finding(one)] for one in (Outcome.PASSED, Outcome.FAILED))
    report = GatesReport(
        "m",
        "",
        "",
        [
            GateResult("accuracy", "contract", good),
            GateResult("noise", "metamorphic", good),
            GateResult("inverted", "metamorphic", bad),
        ],
        mutants=[MutantResult("input", ["accuracy"]), MutantResult("weights", [])],
    )
    assert passes(good)
    assert table(report).splitlines() == [
        "| | accuracy | noise |",
        "|---|---|---|",
        "| input | ✗ |  |",
        "| weights |  |  |",
        "| mutation score 0.50 | 0.50 | 0.00 |",
        "does not pass: inverted: ",
    ]
