"""When two answers to one request count as alike."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.contract import Outcome
from kohort.gateway.answers import Answer, compared


def answer(*outputs: dict[str, Any], status: int = 200, **more: Any) -> Answer:
    return Answer(status, json.dumps({"outputs": outputs, **more}).encode())


def output(data: Any, datatype: str = "FP32", shape: tuple[int, ...] = (1, 1)) -> dict[str, Any]:
    return {"name": "y", "datatype": datatype, "shape": shape, "data": data}


def binary(values: list[float], letter: str, datatype: str, shape: tuple[int, ...]) -> Answer:
    """Two outputs behind the JSON; the values are the second one's."""
    content = struct.pack(f"<{len(values)}{letter}", *values)
    sized = {"parameters": {"binary_data_size": len(content)}}
    first = {"name": "n", "datatype": "INT8", "shape": [1], "parameters": {"binary_data_size": 1}}
    second = {"name": "y", "datatype": datatype, "shape": shape, **sized}
    head = json.dumps({"outputs": [first, second]}).encode()
    return Answer(200, head + b"\x07" + content, len(head))


OK, BAD, ABSENT = Answer(200, b"{}"), Answer(500), Answer(0)


@pytest.mark.parametrize(
    ("stable", "canary", "outcome"),
    [
        (OK, OK, Outcome.SAME),
        (OK, BAD, Outcome.CANARY_FAILED),
        (OK, ABSENT, Outcome.CANARY_FAILED),
        (BAD, OK, Outcome.STABLE_FAILED),
        (BAD, ABSENT, Outcome.BOTH_FAILED),
        (Answer(404), OK, Outcome.DIFFERENT),
        (OK, Answer(200, b"no json"), Outcome.DIFFERENT),
        (OK, Answer(200, b"[]"), Outcome.DIFFERENT),
        (answer(output([1.0])), answer(output([1.0]), id="x"), Outcome.SAME),
        (answer(output([1.0])), answer(output([[1.0]])), Outcome.SAME),
        (answer(output([1.0])), answer(output([1.0], shape=(1,))), Outcome.DIFFERENT),
        (answer(output([1.0])), answer(output([1.0], "FP64")), Outcome.DIFFERENT),
        (answer(output([1.0])), answer(output([1.005])), Outcome.CLOSE),
        (answer(output([1.0])), answer(output([1.1])), Outcome.DIFFERENT),
        (answer(output([1.0])), answer(output([None])), Outcome.DIFFERENT),
        (answer(output([1.0])), answer(output(["a"])), Outcome.DIFFERENT),
        (answer(output([1.0])), answer(output([])), Outcome.DIFFERENT),
        (answer(output([1], "INT64")), answer(output([2], "INT64")), Outcome.DIFFERENT),
        (answer(output(["a"], "BYTES")), answer(output(["b"], "BYTES")), Outcome.DIFFERENT),
        (answer(output([1.0])), answer(), Outcome.DIFFERENT),
        (
            answer(output([0.1, 0.9, 0.8, 0.2], shape=(2, 2))),
            answer(output([0.3, 0.7, 0.6, 0.4], shape=(2, 2))),
            Outcome.CLOSE,
        ),
        (
            answer(output([0.1, 0.9, 0.8, 0.2], shape=(2, 2))),
            answer(output([0.3, 0.7, 0.4, 0.6], shape=(2, 2))),
            Outcome.DIFFERENT,
        ),
    ],
)
def test_answers_compare(stable: Answer, canary: Answer, outcome: Outcome) -> None:
    assert compared(stable, canary) is outcome


@pytest.mark.parametrize(("letter", "datatype"), [("e", "FP16"), ("f", "FP32"), ("d", "FP64")])
def test_binary_outputs_are_numbers_too(letter: str, datatype: str) -> None:
    def told(*values: float) -> Answer:
        return binary(list(values), letter, datatype, (1, len(values)))

    assert compared(told(0.25), told(0.2505)) is Outcome.CLOSE
    assert compared(told(0.25), told(0.5)) is Outcome.DIFFERENT
    assert compared(told(0.25, 0.75), told(0.0, 1.0)) is Outcome.CLOSE
    assert compared(told(0.25, 0.75), told(1.0, 0.0)) is Outcome.DIFFERENT


answers = st.one_of(
    st.builds(Answer, st.sampled_from((0, 200, 400, 500)), st.binary(max_size=20)),
    st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from("xy"), "datatype": st.sampled_from(("FP32", "INT8"))},
            optional={
                "shape": st.lists(st.integers(-1, 3), max_size=2),
                "data": st.sampled_from((None, 1.0, "a", [], [1.0, 2.0], [[None], "b"], [{}])),
                "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-3, 9)}),
            },
        ),
        max_size=2,
    ).map(lambda outputs: answer(*outputs)),
)


@given(answers, answers)
def test_any_answers_can_be_compared_and_equal_ones_are_the_same_or_failed(
    one: Answer, other: Answer
) -> None:
    assert compared(one, other) in Outcome
    assert compared(one, one) in (Outcome.SAME, Outcome.BOTH_FAILED)
