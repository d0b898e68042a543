"""Metrics as Prometheus's protocol buffers: the one format that holds native histograms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import ceil, log2
from typing import Any

from prometheus_client.core import Metric, Sample
from prometheus_client.samples import BucketSpan, NativeHistogram

from kohort_server.rpc import protobuf

PACKAGE = "io.prometheus.client"
CONTENT_TYPE = (
    f"application/vnd.google.protobuf; proto={PACKAGE}.MetricFamily; encoding=delimited".encode()
)
# A bucket's bounds are 2**(1/8) apart, so that a quantile is told within 4.5 %.
SCHEMA = 3
SMALLEST = 2.0**-20  # what is less counts as much: no answer comes within a microsecond
TYPES = {"counter": "COUNTER", "gauge": "GAUGE", "histogram": "HISTOGRAM"}


def bucket_of(value: float) -> int:
    """The number of the native bucket that a value is in: up to 2**(number / 8), and above the one before."""
    return ceil(log2(value if value > SMALLEST else SMALLEST) * (1 << SCHEMA))


def is_asked_for(accept: bytes) -> bool:
    """Whether the header Accept of whoever scrapes prefers this format to text."""
    quality = {"protobuf": 0.0, "text": 0.0}
    for item in accept.decode("latin-1").lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        told = dict(p.split("=", 1) for p in parameters if "=" in p)
        delimited = told.get("encoding") == "delimited"
        if kind == "application/vnd.google.protobuf":
            name = (
                "protobuf" if delimited and told.get("proto") == f"{PACKAGE}.metricfamily" else ""
            )
        else:
            name = "text" if kind in ("text/plain", "application/openmetrics-text") else ""
        if name:
            quality[name] = max(quality[name], number(told.get("q", "1")))
    return quality["protobuf"] > quality["text"]


def number(text: str) -> float:
    """A quality; 0 for what is none."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def native(buckets: Mapping[int, int], total: float) -> NativeHistogram:
    """A histogram from counts by `bucket_of` and the sum of all values."""
    numbers = sorted(buckets)
    spans: list[BucketSpan] = []
    end = 0
    for index in numbers:
        if spans and index == end:
            spans[-1] = spans[-1]._replace(length=spans[-1].length + 1)
        else:
            spans.append(BucketSpan(index - end, 1))
        end = index + 1
    counts = [0, *(buckets[index] for index in numbers)]
    return NativeHistogram(
        sum(counts),
        total,
        SCHEMA,
        zero_threshold=0.0,
        zero_count=0.0,
        pos_spans=spans,
        pos_deltas=[after - before for before, after in pairwise(counts)],
    )


def encode(families: Iterable[Metric]) -> bytes:
    """All families, each with its length before it."""
    messages = (
        protobuf.encode(f"{PACKAGE}.MetricFamily", family(metric))
        for metric in families
        if metric.samples
    )
    return b"".join(protobuf.varint(len(message)) + message for message in messages)


def family(metric: Metric) -> dict[str, Any]:
    """A MetricFamily; its name is that of its samples, a counter's `_total` included."""
    if metric.type == "histogram":
        name, metrics = metric.name, histograms(metric.samples)
    else:
        name, kind = metric.samples[0].name, "counter" if metric.type == "counter" else "gauge"
        metrics = [
            {"label": labels(sample.labels), kind: {"value": sample.value}}
            for sample in metric.samples
        ]
    kind = TYPES.get(metric.type, "GAUGE")
    return {"name": name, "help": metric.documentation, "type": kind, "metric": metrics}


def histograms(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Metrics of one family by their labels: classic buckets, and native ones where a sample has them."""
    found: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for sample in samples:
        names = {name: value for name, value in sample.labels.items() if name != "le"}
        histogram = found.setdefault(tuple(names.items()), {"bucket": []})
        if sample.native_histogram is not None:
            histogram |= native_fields(sample.native_histogram)
        elif sample.name.endswith("_bucket"):
            count, bound = int(sample.value), float(sample.labels["le"])
            histogram["bucket"].append({"cumulative_count": count, "upper_bound": bound})
            histogram["sample_count"] = count
        elif sample.name.endswith("_sum"):
            histogram["sample_sum"] = sample.value
    return [{"label": labels(dict(key)), "histogram": told} for key, told in found.items()]


def native_fields(histogram: NativeHistogram) -> dict[str, Any]:
    """Those of a Histogram message that make it native."""
    return {
        "schema": zigzag(histogram.schema),
        "zero_threshold": histogram.zero_threshold,
        "zero_count": int(histogram.zero_count),
        "positive_span": [
            {"offset": zigzag(span.offset), "length": span.length}
            for span in histogram.pos_spans or ()
        ],
        "positive_delta": [zigzag(int(delta)) for delta in histogram.pos_deltas or ()],
    }


def labels(named: Mapping[str, str]) -> list[dict[str, str]]:
    """LabelPairs."""
    return [{"name": name, "value": value} for name, value in named.items()]


def zigzag(value: int) -> int:
    """A signed integer as the wire has it where the type is sint."""
    return value << 1 if value >= 0 else (-value << 1) - 1
