"""What the server counts, in plain numbers, and how Prometheus gets them."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kohort_server.batch.batcher import Batcher
from kohort_server.batch.statistics import Statistics
from kohort_server.front.protobuf_metrics import bucket_of, encode, native

# Seconds. A third apart below a second, where inference is.
DURATION_BOUNDS = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    0.75,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
)
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# The header is the gateway's, but a server may be called without one: bound what a client can make.
MAX_COHORTS = 200
OTHER = b"other"


class Series(msgspec.Struct):
    """Durations of the requests of one cohort with one status, in seconds."""

    cohort: str
    code: int
    buckets: list[int]  # by DURATION_BOUNDS
    native: dict[int, int]  # by protobuf_metrics.bucket_of
    sum: float = 0.0


class Counts(msgspec.Struct):
    """All that a process has counted, or several processes together."""

    pids: list[int]
    series: list[Series]
    statistics: Statistics | None  # None while the model is being loaded
    waiting: tuple[int, int, int]  # requests, rows and bytes of inputs in the queue
    last: float  # time.time of the last answer, 0 before it


class ServerMetrics:
    """Counters of one model's requests; adding to them is cheap, reading them is not."""

    def __init__(self) -> None:
        self._series: dict[tuple[bytes, int], Series] = {}
        self._cohorts: set[bytes] = set()
        self._batcher: Batcher | None = None
        self._last = 0.0  # time.perf_counter of the last answer

    def watch(self, batcher: Batcher) -> None:
        """Tell of this batcher too."""
        self._batcher = batcher

    def observe(self, cohort: bytes, code: int, received: float) -> None:
        """Count an inference request as answered now; `cohort` is its header's value, or empty.

        `received` is the time.perf_counter of its last byte.
        """
        series = self._series.get((cohort, code))
        if series is None:
            series = self._new_series(cohort, code)
        self._last = now = time.perf_counter()
        seconds = now - received
        series.buckets[bisect_left(DURATION_BOUNDS, seconds)] += 1
        bucket = bucket_of(seconds)
        series.native[bucket] = series.native.get(bucket, 0) + 1
        series.sum += seconds

    def _new_series(self, cohort: bytes, code: int) -> Series:
        if cohort not in self._cohorts:
            if len(self._cohorts) >= MAX_COHORTS:
                cohort = OTHER
            else:
                self._cohorts.add(cohort)
        new = Series(cohort.decode("latin-1"), code, [0] * (len(DURATION_BOUNDS) + 1), {})
        return self._series.setdefault((cohort, code), new)

    def counts(self) -> Counts:
        """What was counted so far."""
        batcher = self._batcher
        return Counts(
            [os.getpid()],
            list(self._series.values()),
            None if batcher is None else batcher.statistics,
            (0, 0, 0)
            if batcher is None
            else (batcher.waiting_calls, batcher.waiting_rows, batcher.waiting_size),
            time.time() - (time.perf_counter() - self._last) if self._last else 0.0,
        )


def together(parts: Sequence[Counts]) -> Counts:
    """What several processes have counted, as if one had."""
    if len(parts) == 1:
        return parts[0]
    series: dict[tuple[str, int], Series] = {}
    for one in (one for part in parts for one in part.series):
        none = Series(one.cohort, one.code, [0] * len(one.buckets), {})
        total = series.setdefault((one.cohort, one.code), none)
        total.buckets = [sum(pair) for pair in zip(total.buckets, one.buckets, strict=True)]
        for bucket, count in one.native.items():
            total.native[bucket] = total.native.get(bucket, 0) + count
        total.sum += one.sum
    statistics = Statistics()
    for part in parts:
        if part.statistics is not None:
            statistics.add(part.statistics)
    calls, rows, size = (sum(part.waiting[index] for part in parts) for index in range(3))
    return Counts(
        [pid for part in parts for pid in part.pids],
        list(series.values()),
        statistics,
        (calls, rows, size),
        max(part.last for part in parts),
    )


class Exposition(Collector):
    """Counts as Prometheus's and Triton's clients know them."""

    def __init__(self, model: str, revision: str, counts: Counts) -> None:
        self._model = model
        self._revision = revision
        self._counts = counts

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def protobuf(self) -> bytes:
        """All metrics in Prometheus's protocol buffers, durations as native histograms too."""
        return encode(self.collect(with_native=True))

    def collect(self, with_native: bool = False) -> Iterable[Metric]:
        """The metric families, as prometheus_client asks for them: text has no native histograms."""
        labels = ["model", "revision", "cohort", "code"]
        requests = CounterMetricFamily(
            "kohort_server_requests", "Inference requests answered.", labels=labels
        )
        durations = HistogramMetricFamily(
            "kohort_server_request_duration_seconds",
            "From the last byte of an inference request to its answer.",
            labels=labels,
        )
        for series in self._counts.series:
            values = [self._model, self._revision, series.cohort, str(series.code)]
            requests.add_metric(values, sum(series.buckets))
            durations.add_metric(values, cumulative(DURATION_BOUNDS, series.buckets), series.sum)
            if with_native:
                durations.add_sample(
                    durations.name,
                    dict(zip(labels, values, strict=True)),
                    0.0,
                    native_histogram=native(series.native, series.sum),
                )
        yield requests
        yield durations
        if self._counts.statistics is not None:
            yield from self._queue(self._counts.statistics)
            yield from self._triton(self._counts.statistics)
        yield from process_metrics(self._counts.pids)

    def _queue(self, statistics: Statistics) -> Iterable[Metric]:
        for value, name, told in zip(
            self._counts.waiting,
            ("queue_requests", "queue_rows", "queue_bytes"),
            ("Requests", "Rows", "Bytes of inputs"),
            strict=True,
        ):
            told = f"{told} that wait for the model."
            gauge = GaugeMetricFamily(f"kohort_server_{name}", told, labels=["model", "revision"])
            gauge.add_metric([self._model, self._revision], value)
            yield gauge
        batches = HistogramMetricFamily(
            "kohort_server_batch_rows", "Rows per run of the model.", labels=["model", "revision"]
        )
        buckets = [0] * (len(BATCH_BOUNDS) + 1)
        for rows, size in statistics.sizes.items():
            buckets[bisect_left(BATCH_BOUNDS, rows)] += size.batches
        counts = cumulative(BATCH_BOUNDS, buckets)
        batches.add_metric([self._model, self._revision], counts, statistics.rows)
        yield batches

    def _triton(self, statistics: Statistics) -> Iterable[Metric]:
        """The same under the names, labels and units of Triton, for dashboards that exist."""
        success, seconds = self._answered(lambda code: code == 200)
        labels = {"model": self._model, "version": self._revision}
        for name, told, value in (
            ("request_success", "Requests answered with a result.", success),
            ("count", "Rows that ran.", statistics.rows),
            ("exec_count", "Batches that ran.", statistics.batches),
            ("request_duration_us", "Time of answered requests.", seconds * 1e6),
            ("queue_duration_us", "Time in the queue.", statistics.queue_time * 1e6),
            ("compute_input_duration_us", "Gathering inputs.", statistics.input_time * 1e6),
            ("compute_infer_duration_us", "Running the model.", statistics.infer_time * 1e6),
            ("compute_output_duration_us", "Writing answers.", statistics.output_time * 1e6),
        ):
            yield plain_counter(f"nv_inference_{name}", told, [(labels, value)])
        failures = {
            "REJECTED": self._answered(lambda code: code in (503, 504))[0],
            "CANCELED": statistics.cancelled,
            "BACKEND": self._answered(lambda code: code == 500)[0],
            "OTHER": self._answered(lambda code: code not in (200, 500, 503, 504))[0],
        }
        yield plain_counter(
            "nv_inference_request_failure",
            "Requests that failed.",
            [({**labels, "reason": reason}, count) for reason, count in failures.items()],
        )
        pending = Metric("nv_inference_pending_request_count", "Requests that wait.", "gauge")
        pending.add_sample("nv_inference_pending_request_count", labels, self._counts.waiting[0])
        yield pending

    def _answered(self, wanted: Callable[[int], bool]) -> tuple[int, float]:
        """How many requests were answered with such a code, and their time in seconds."""
        series = [series for series in self._counts.series if wanted(series.code)]
        return sum(sum(s.buckets) for s in series), sum(s.sum for s in series)

    def statistics(self) -> dict[str, Any]:
        """The same in the form of the protocol's statistics extension."""
        statistics = self._counts.statistics or Statistics()
        success, success_time = self._answered(lambda code: code == 200)
        failed, failed_time = self._answered(lambda code: code != 200)
        return {
            "last_inference": int(self._counts.last * 1000),
            "inference_count": statistics.rows,
            "execution_count": statistics.batches,
            "inference_stats": {
                "success": duration(success, success_time),
                "fail": duration(failed, failed_time),
                "queue": duration(statistics.requests, statistics.queue_time),
                "compute_input": duration(statistics.requests, statistics.input_time),
                "compute_infer": duration(statistics.requests, statistics.infer_time),
                "compute_output": duration(statistics.requests, statistics.output_time),
            },
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": duration(size.batches, size.input_time),
                    "compute_infer": duration(size.batches, size.infer_time),
                }
                for rows, size in sorted(statistics.sizes.items())
            ],
        }


def duration(count: int, seconds: float) -> dict[str, int]:
    """A StatisticDuration."""
    return {"count": count, "ns": int(seconds * 1e9)}


def plain_counter(name: str, told: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    """A counter without the `_total` that prometheus_client's own adds to its name."""
    metric = Metric(name, told, "counter")
    for labels, value in samples:
        metric.add_sample(name, labels, value)
    return metric


def cumulative(bounds: Iterable[float], buckets: Iterable[int]) -> list[tuple[str, float]]:
    """Prometheus's cumulative buckets, the last one without a bound."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(buckets)), strict=True))


def process_metrics(pids: Sequence[int]) -> Iterable[Metric]:
    """Memory, CPU time and the like of processes together; since when, and limits, of the first."""
    families = [
        {
            family.name: family
            for family in ProcessCollector(pid=partial(str, pid), registry=None).collect()
        }
        for pid in pids
    ]
    for name, first in families[0].items():
        if name not in ("process_start_time_seconds", "process_max_fds"):
            total = sum(told[name].samples[0].value for told in families if name in told)
            first.samples = [first.samples[0]._replace(value=total)]
        yield first
