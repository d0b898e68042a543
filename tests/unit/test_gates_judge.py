"""What passes, what fails, and what cannot be known yet."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohort_server.gates.answers import answers_of
from kohort_server.gates.bounds import Interval
from kohort_server.gates.judge import Demand, Parts, good_enough, not_worse, share_of, vacuous
from kohort_server.gates.metrics import MetricName, measure_of
from kohort_server.gates.report import html, markdown, table, write
from kohort_server.gates.results import (
    MAX_SUMMARY_BYTES,
    FailingSample,
    Finding,
    GateResult,
    GatesReport,
    MutantResult,
    Outcome,
    Summary,
    summary,
)

WILSON = Demand(0.95, 0.95, Interval.WILSON)


def judged(hits: int, count: int, demand: Demand = WILSON) -> Finding:
    measure = share_of(np.arange(count) < hits)
    return good_enough(measure, demand, {"": np.arange(count)})[0]


@pytest.mark.parametrize(
    ("hits", "count", "outcome"),
    [
        (96, 100, Outcome.INSUFFICIENT),
        (1235, 1286, Outcome.PASSED),
        (1234, 1286, Outcome.INSUFFICIENT),
        (950, 1000, Outcome.FAILED),
        (10, 10, Outcome.INSUFFICIENT),
    ],
)
def test_a_share_passes_only_when_it_is_sure(hits: int, count: int, outcome: Outcome) -> None:
    assert judged(hits, count).outcome is outcome


def test_too_few_samples_are_told_with_the_number_that_is_needed() -> None:
    assert "about 1,286 samples are needed; there are 100" in judged(96, 100).message
    exact = judged(10, 10, Demand(0.95, 0.95, Interval.EXACT))
    assert "about 59 samples are needed; there are 10" in exact.message


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(0.5, 0.99), st.sampled_from(Interval))
def test_a_finding_agrees_with_its_own_numbers(
    count: int, share: float, threshold: float, interval: Interval
) -> None:
    finding = judged(round(count * share), count, Demand(threshold, 0.95, interval))
    assert finding.value is not None
    assert finding.bound is not None
    assert (finding.outcome is Outcome.PASSED) == (finding.bound >= threshold)
    if finding.outcome is Outcome.FAILED:
        assert finding.value <= threshold


def test_one_bad_slice_fails_a_gate_that_all_samples_together_pass() -> None:
    hits = np.ones(2000, bool)
    hits[:10] = False
    parts: Parts = {"": np.arange(2000), "night": np.arange(20), "day": np.arange(20, 2000)}
    found = {one.slice: one.outcome for one in good_enough(share_of(hits), WILSON, parts)}
    assert found == {"": Outcome.PASSED, "night": Outcome.FAILED, "day": Outcome.PASSED}


def test_f1_of_a_class_tells_how_many_of_those_that_count_are_needed() -> None:
    labels = np.array([1] * 20 + [0] * 980)
    measure = measure_of(MetricName.F1, answers_of({"y": labels.copy()}), labels, positive=1)
    demand = Demand(0.95, 0.95, Interval.EXACT)
    finding = good_enough(measure, demand, {"": np.arange(1000)})[0]
    assert finding.outcome is Outcome.INSUFFICIENT
    assert "samples that count for it are needed; there are 20" in finding.message


def test_rmse_must_be_below_and_its_bound_is_above() -> None:
    random = np.random.default_rng(0)
    labels = random.normal(size=400)
    values = labels + random.normal(0, 0.5, 400)
    measure = measure_of(MetricName.RMSE, answers_of({"y": values}), labels)
    rows: Parts = {"": np.arange(400)}
    outcomes = [
        good_enough(measure, Demand(limit, 0.95, Interval.EXACT), rows)[0].outcome
        for limit in (0.6, 0.51, 0.4)
    ]
    assert outcomes == [Outcome.PASSED, Outcome.INSUFFICIENT, Outcome.FAILED]


def compared(
    better: int, worse: int, count: int, margin: float | None, parts: Parts | None = None
) -> list[Finding]:
    labels = np.arange(count) % 2
    mine, its = labels.copy(), labels.copy()
    mine[:worse] = 1 - mine[:worse]
    its[worse : worse + better] = 1 - its[worse : worse + better]
    new, stable = (
        measure_of(MetricName.ACCURACY, answers_of({"y": one}), labels) for one in (mine, its)
    )
    return not_worse(new, stable, margin, 0.95, parts or {"": np.arange(count)})


@pytest.mark.parametrize(
    ("better", "worse", "margin", "outcome"),
    [
        (5, 5, None, Outcome.PASSED),
        (5, 16, None, Outcome.FAILED),
        (5, 5, 0.03, Outcome.PASSED),
        (5, 9, 0.01, Outcome.INSUFFICIENT),
        (0, 4, None, Outcome.PASSED),
        (0, 5, None, Outcome.FAILED),
        (40, 55, 0.01, Outcome.FAILED),
    ],
)
def test_a_model_is_worse_when_more_samples_became_wrong_than_chance_allows(
    better: int, worse: int, margin: float | None, outcome: Outcome
) -> None:
    finding = compared(better, worse, 1000, margin)[0]
    assert finding.outcome is outcome
    assert finding.value == pytest.approx((better - worse) / 1000)
    assert f"{better} samples became right, {worse} wrong" in finding.message


def test_a_slice_that_became_worse_is_found_and_many_slices_accuse_nobody_by_chance() -> None:
    parts: Parts = {"": np.arange(1000), "first": np.arange(8), "rest": np.arange(8, 1000)}
    found = {one.slice: one.outcome for one in compared(8, 8, 1000, None, parts)}
    assert found == {"": Outcome.PASSED, "first": Outcome.FAILED, "rest": Outcome.PASSED}
    many: Parts = {str(at): np.arange(at * 5, at * 5 + 5) for at in range(30)}
    outcomes = {one.outcome for one in compared(0, 5, 1000, None, many)}
    assert outcomes == {Outcome.PASSED}  # alone these five would be worse with a chance of 3 %


@settings(max_examples=5)
@given(st.sampled_from([MetricName.AUC, MetricName.F1, MetricName.RMSE]))
def test_a_model_is_never_worse_than_itself(name: MetricName) -> None:
    random = np.random.default_rng(4)
    labels = random.integers(0, 2, 200)
    answers = answers_of({"y": np.clip(labels * 0.3 + random.random(200) * 0.7, 0, 1)})
    measure = measure_of(name, answers, labels)
    finding = not_worse(measure, measure, None, 0.95, {"": np.arange(200)})[0]
    assert (finding.outcome, finding.value) == (Outcome.PASSED, 0.0)


def test_a_slice_of_one_class_has_no_auc_and_says_so() -> None:
    labels = np.array([0, 0, 1, 1])
    measure = measure_of(MetricName.AUC, answers_of({"y": np.array([0.1, 0.2, 0.8, 0.9])}), labels)
    finding = good_enough(measure, WILSON, {"": np.array([0, 1])})[0]
    assert finding.outcome is Outcome.INVALID


def test_a_model_that_always_says_the_same_proves_nothing() -> None:
    assert vacuous(np.array([3, 3, 3]), 2, "samples") is not None
    assert vacuous(np.array([3, 3, 1]), 2, "samples") is None


def report_of(gates: int, message: str = "fine", outcome: Outcome = Outcome.FAILED) -> GatesReport:
    return GatesReport(
        "file:///m.onnx",
        "sha256:0",
        "onnxruntime",
        [
            GateResult(
                f"gate-{number}",
                "contract",
                [Finding(outcome, message, "", 10, 0.5, 0.4, 0.95)],
                "what",
                "sha256:1",
                [FailingSample(3, "class 1", "class 2", "1", "<night>", b"\x89PNG", b"\x89PNG")],
                1,
            )
            for number in range(gates)
        ],
        mutants=[MutantResult("weights", ["gate-0"]), MutantResult("input", [])],
    )


@settings(max_examples=30)
@given(st.integers(1, 32), st.text(max_size=400), st.sampled_from(Outcome))
def test_a_summary_always_fits_a_termination_message(
    gates: int, message: str, outcome: Outcome
) -> None:
    told = summary(report_of(gates, message, outcome))
    assert len(told) <= MAX_SUMMARY_BYTES
    read = msgspec.json.decode(told, type=Summary)
    assert len(read.gates) + read.left_out == gates
    assert read.passed == (outcome is Outcome.PASSED)


def test_what_did_not_pass_comes_first_in_a_summary() -> None:
    report = report_of(3, outcome=Outcome.PASSED)
    failing = msgspec.structs.replace(
        report.gates[2], findings=[Finding(Outcome.INVALID, "no labels")]
    )
    mixed = msgspec.structs.replace(report, gates=[*report.gates[:2], failing])
    read = msgspec.json.decode(summary(mixed), type=Summary)
    assert [one.name for one in read.gates] == ["gate-2", "gate-0", "gate-1"]


EVIL = "<script>alert('x')</script> | `rm` \x00\ud800]]>"


def test_reports_show_what_is_in_data_as_text_and_nothing_else(tmp_path: Path) -> None:
    report = report_of(2, EVIL.replace("\ud800", ""))
    write(report, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page.replace("http-equiv", "")
    text = (tmp_path / "report.md").read_text()
    assert "<script" not in text.replace("\\<script", "")
    assert (tmp_path / "pictures/gate-0-3-after.png").read_bytes() == b"\x89PNG"
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "2", "0")
    read = msgspec.json.decode((tmp_path / "results.json").read_bytes(), type=GatesReport)
    assert read.gates[0].failing[0].picture == b""
    assert read.mutation_score == 0.5


def test_a_report_says_which_broken_models_nobody_noticed() -> None:
    for told in (
        table(report_of(1)),
        html(report_of(1)),
        markdown(report_of(1), lambda name, picture: name),
    ):
        assert "survived" in told
        assert "mutation score 0.50" in told
