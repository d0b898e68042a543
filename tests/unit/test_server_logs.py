"""The trace of a request as its header tells it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort_server.logs import trace_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("header", [f"00-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-comes"])
def test_the_trace_and_the_span_are_read(header: str) -> None:
    told = trace_of({b"traceparent": header.encode()})
    assert told == {"trace_id": TRACE, "span_id": SPAN}


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_what_the_specification_calls_invalid_is_no_trace(header: str) -> None:
    assert trace_of({b"traceparent": header.encode()}) == {}


@given(st.binary())
def test_any_header_is_read_or_passed_over(header: bytes) -> None:
    assert set(trace_of({b"traceparent": header})) in (set(), {"trace_id", "span_id"})
