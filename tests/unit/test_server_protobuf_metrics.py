"""Metrics in Prometheus's protocol buffers."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort_server.front.metrics import Exposition, ServerMetrics
from kohort_server.front.protobuf_metrics import SMALLEST, bucket_of, is_asked_for, native
from kohort_server.rpc import protobuf

PROTOBUF = (
    b"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)
seconds = st.floats(SMALLEST, 1e6)


@given(seconds)
def test_a_value_is_between_the_bounds_of_its_bucket(value: float) -> None:
    upper = 2.0 ** (bucket_of(value) / 8)
    assert upper / 2 ** (1 / 8) * (1 - 1e-12) <= value <= upper * (1 + 1e-12)


@pytest.mark.parametrize("value", [-1.0, 0.0, 1e-300])
def test_what_is_too_small_is_in_the_smallest_bucket(value: float) -> None:
    assert bucket_of(value) == bucket_of(SMALLEST)


@given(st.dictionaries(st.integers(-160, 300), st.integers(1, 1 << 40), max_size=30))
def test_a_native_histogram_says_how_many_are_in_which_bucket(buckets: dict[int, int]) -> None:
    told = native(buckets, 1.5)
    index = 0
    indices: list[int] = []
    for span in told.pos_spans or ():
        index += span.offset
        indices += range(index, index + span.length)
        index += span.length
    counts = accumulate(told.pos_deltas or ())
    assert dict(zip(indices, counts, strict=True)) == buckets
    assert told.count_value == sum(buckets.values())


@pytest.mark.parametrize(
    ("accept", "asked"),
    [
        (b"", False),
        (b"*/*", False),
        (b"text/plain;version=0.0.4", False),
        (PROTOBUF, True),
        (PROTOBUF + b";q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.2", True),
        (b"text/plain;q=0.9," + PROTOBUF + b";q=0.5", False),
        (PROTOBUF.replace(b"delimited", b"text"), False),
        (PROTOBUF.replace(b"MetricFamily", b"Other"), False),
        (PROTOBUF + b";q=nonsense", False),
    ],
)
def test_whoever_prefers_protocol_buffers_gets_them(accept: bytes, asked: bool) -> None:
    assert is_asked_for(accept) is asked


def test_all_that_is_in_the_text_is_in_the_messages_too() -> None:
    metrics = ServerMetrics()
    for code in (200, 200, 503):
        metrics.observe(b"staff", code, 0.0)
    counted = Exposition("digits", "r1", metrics.counts())
    families = {}
    data = counted.protobuf()
    while data:
        size, at = protobuf.read_varint(data, 0)
        told = protobuf.decode("io.prometheus.client.MetricFamily", data[at : at + size])
        families[told["name"]] = told
        data = data[at + size :]
    for line in counted.text().decode().splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            assert families[name]["type"] == kind.upper()
    durations = families["kohort_server_request_duration_seconds"]["metric"]
    by_code = {label_of(metric, "code"): metric["histogram"] for metric in durations}
    assert by_code["200"]["sample_count"] == 2
    assert by_code["503"]["sample_count"] == 1
    assert by_code["200"]["bucket"][-1] == {"cumulative_count": 2, "upper_bound": np.inf}
    assert sum(span["length"] for span in by_code["200"]["positive_span"]) in (1, 2)
    totals = families["kohort_server_requests_total"]["metric"]
    assert {label_of(m, "code"): m["counter"]["value"] for m in totals} == {"200": 2, "503": 1}


def label_of(metric: dict[str, list[dict[str, str]]], name: str) -> str:
    """A label's value."""
    (value,) = (label["value"] for label in metric["label"] if label["name"] == name)
    return value
