"""Which engine is taken of those that were tried, and what is said of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.gates.parity import DEFAULTS, OutputReport, Report
from kohort_server.selection import (
    USEFUL_GAIN,
    Candidate,
    Selection,
    fastest,
    selection_table,
    told,
    why_chosen,
)


def report(*, passed: bool) -> Report:
    outputs = {"y": OutputReport("float32", max_error=1e-6), "z": OutputReport("float32")}
    return Report(passed, "reference", "engine", "drawn", 64, [1], DEFAULTS["FP32"], outputs, [])


def candidate(engine: str, rate: float, *, right: bool | None = True) -> Candidate:
    one = Candidate(engine, "1.2", "FP32", "FP32", rows_per_second=rate, problem="")
    if right is None:
        return msgspec.structs.replace(one, rows_per_second=0.0, problem="it lacks TopK")
    return msgspec.structs.replace(
        one,
        parity=report(passed=right),
        batch_seconds={"1": 0.0012, "8": 0.004},
        max_rows=8,
        size=1 << 20,
        build_seconds=0.25,
        problem="" if right else 'output "y"[3] of sample 7',
    )


def selection(*candidates: Candidate) -> Selection:
    chosen = fastest(candidates)
    why = "" if chosen is None else why_chosen(candidates, chosen)
    return Selection("sha256:a", "a machine", 1, list(candidates), chosen, why)


RATES = st.lists(
    st.tuples(st.floats(1, 1e6), st.sampled_from([True, False, None])), min_size=1, max_size=6
)


@given(rates=RATES)
def test_only_what_gives_the_right_answers_is_taken_and_never_a_much_slower_one(
    rates: list[tuple[float, bool | None]],
) -> None:
    found = selection(*(candidate(f"E{n}", rate, right=r) for n, (rate, r) in enumerate(rates)))
    right = [rate for rate, is_right in rates if is_right]
    if not right:
        with pytest.raises(StartFailure) as raised:
            found.taken()
        wrong = any(is_right is False for _, is_right in rates)
        reason = FailureReason.PARITY_FAILED if wrong else FailureReason.BUILD_FAILED
        assert raised.value.failure.reason == reason
        assert found.choice == ""
        return
    rate = found.taken().rows_per_second
    assert found.taken().problem == ""
    assert rate * (1 + USEFUL_GAIN) ** len(right) >= max(right)
    assert found.choice
    assert sum(one.chosen for one in told(found).engines) == 1


def test_it_is_said_why_an_engine_is_taken() -> None:
    ours, other = candidate("ONNXRuntime", 1000), candidate("OpenVINO", 1500)
    assert selection(ours, other).choice == (
        "the fastest with the model's own answers: 50% faster than ONNXRuntime 1.2 FP32"
    )
    much = candidate("OpenVINO", 3100)
    assert selection(ours, much).choice.endswith("3.1 times as fast as ONNXRuntime 1.2 FP32")
    near = candidate("OpenVINO", 1030)
    assert selection(ours, near).choice == (
        "OpenVINO 1.2 FP32 is only 3.0% faster: less than 5% is not worth a change"
    )
    wrong = candidate("OpenVINO", 9000, right=False)
    assert selection(ours, wrong).choice.startswith("the only one that runs and gives")
    assert selection(ours).choice.startswith("it was asked for")


def test_the_operator_is_told_each_engine_in_round_figures() -> None:
    made = told(selection(candidate("ONNXRuntime", 1000.4), candidate("OpenVINO", 0, right=None)))
    first, second = made.engines
    assert (first.parity, first.micros, first.best_rows, first.rows_per_second) == (
        "Same",
        1200,
        8,
        1000,
    )
    assert (first.max_error, first.size, first.build_millis, first.chosen) == (
        1e-6,
        1 << 20,
        250,
        True,
    )
    assert (second.parity, second.problem, second.chosen) == ("", "it lacks TopK", False)
    assert made.machine == "a machine"


def test_a_person_is_shown_the_table_with_what_is_chosen_and_what_is_wrong() -> None:
    table = selection_table(
        selection(candidate("ONNXRuntime", 1000), candidate("OpenVINO", 9000, right=False))
    )
    lines = table.splitlines()
    assert "← chosen" in lines[1]
    assert "differs" in lines[2]
    assert 'output "y"[3] of sample 7' in lines[3]
    assert lines[-1].startswith("chosen: the only one")
