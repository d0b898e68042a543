"""What is taken of what a pod tells of its start: bounded, on one line, and never an error."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.api.status import ParityResult
from kohort.contract import Start, TriedEngine
from kohort.observe.starts import MAX_ANSWER_BYTES, doing, read_start, slowest, table

TEXTS = st.text(max_size=600)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
ENGINES = st.builds(
    TriedEngine,
    *(TEXTS,) * 4,
    st.floats(),
    *(NUMBERS,) * 5,
    problem=TEXTS,
    chosen=st.booleans(),
)
STARTS = st.builds(
    Start,
    stage=st.sampled_from(["Compiling", "Downloading", "Dancing", ""]),
    detail=TEXTS,
    percent=NUMBERS,
    seconds_left=st.none() | st.floats(),
    engines=st.lists(ENGINES, max_size=12).map(tuple),
    choice=TEXTS,
    machine=TEXTS,
)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (Start("Compiling", "building A", 62, 185.0), "Compiling 62 %, 3 min left: building A"),
        (Start("Compiling", "building A", 62, 4.0), "Compiling 62 %, a few s left: building A"),
        (Start("Compiling", "building A", 5, 44.0), "Compiling 5 %, 40 s left: building A"),
        (Start("Compiling", "building A", 5, 9000.0), "Compiling 5 %, 2 h left: building A"),
        (Start("Compiling", "building A", 5), "Compiling 5 %: building A"),
        (Start("Compiling", "", 0, 1e9), "Compiling"),
        (Start("Downloading", "12 MiB"), "Downloading: 12 MiB"),
    ],
)
def test_a_stage_is_told_in_a_line(start: Start, told: str) -> None:
    problem = doing(start)
    assert (problem.reason, problem.message) == (start.stage, told)


def test_of_several_pods_the_one_that_is_furthest_from_its_end_is_told() -> None:
    late, early = Start("Compiling", "b", 10), Start("Compiling", "a", 60)
    fetching = Start("Downloading", "c", 90)
    assert slowest([early, late, Start()]) == late
    assert slowest([early, fetching]) == fetching
    assert slowest([Start(), Start("Dancing", "d", 1)]) is None


@given(start=STARTS)
def test_whatever_a_pod_tells_fits_into_status_on_lines_of_their_own(start: Start) -> None:
    problem = doing(start)
    assert len(problem.message) <= 256
    assert problem.message.isprintable()
    made = table(start)
    assert (made is None) == (not start.engines)
    if made is None:
        return
    assert len(made.tried) <= 8
    assert (len(made.choice) <= 256, len(made.machine) <= 128) == (True, True)
    for engine in made.tried:
        text = engine.engine + engine.version + engine.precision + engine.problem
        assert text.isprintable()
        assert len(engine.problem) <= 512
        assert len(engine.max_error) <= 16
        assert engine.parity in (None, *ParityResult)
        assert 0 <= engine.rows_per_second < 2**53
    # The very bytes of status can be read again.
    assert msgspec.json.decode(msgspec.json.encode(made), type=type(made)) == made


@given(content=st.binary(max_size=400) | STARTS.map(msgspec.json.encode))
def test_any_answer_is_one_or_none(content: bytes) -> None:
    start = read_start(content)
    assert start is None or isinstance(start, Start)


def test_an_answer_that_is_too_long_is_none() -> None:
    assert read_start(b"{}" + b" " * MAX_ANSWER_BYTES) is None
    assert read_start(b"{}") == Start()
    assert read_start(b"[" * 50_000) is None
