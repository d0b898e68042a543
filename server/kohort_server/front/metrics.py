"""What the server counts, in plain numbers, and how Prometheus gets them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kohort_server.batch.batcher import Batcher

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
OTHER = "other"


class Series:
    """Durations of the requests of one cohort with one status."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATION_BOUNDS) + 1)
        self.sum = 0.0


class ServerMetrics(Collector):
    """Counters of one model's requests; adding to them is cheap, reading them is not."""

    def __init__(self, model: str, revision: str) -> None:
        self._model = model
        self._revision = revision
        self._series: dict[tuple[bytes, int], Series] = {}
        self._cohorts: set[bytes] = set()
        self._batcher: Batcher | None = None
        self._last = 0.0  # time.perf_counter of the last answer
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

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
        series.sum += seconds

    def _new_series(self, cohort: bytes, code: int) -> Series:
        if cohort not in self._cohorts:
            if len(self._cohorts) >= MAX_COHORTS:
                return self._series.setdefault((OTHER.encode(), code), Series())
            self._cohorts.add(cohort)
        return self._series.setdefault((cohort, code), Series())

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """The metric families, as prometheus_client asks for them."""
        labels = ["model", "revision", "cohort", "code"]
        requests = CounterMetricFamily(
            "kohort_server_requests", "Inference requests answered.", labels=labels
        )
        durations = HistogramMetricFamily(
            "kohort_server_request_duration_seconds",
            "From the last byte of an inference request to its answer.",
            labels=labels,
        )
        for (cohort, code), series in self._series.items():
            values = [self._model, self._revision, cohort.decode("latin-1"), str(code)]
            requests.add_metric(values, sum(series.buckets))
            durations.add_metric(values, cumulative(DURATION_BOUNDS, series.buckets), series.sum)
        yield requests
        yield durations
        if self._batcher is not None:
            yield from self._queue(self._batcher)
            yield from self._triton(self._batcher)

    def _queue(self, batcher: Batcher) -> Iterable[Metric]:
        for name, told, value in (
            ("queue_requests", "Requests that wait for the model.", batcher.waiting_calls),
            ("queue_rows", "Rows that wait for the model.", batcher.waiting_rows),
            ("queue_bytes", "Bytes of inputs that wait for the model.", batcher.waiting_size),
        ):
            gauge = GaugeMetricFamily(f"kohort_server_{name}", told, labels=["model", "revision"])
            gauge.add_metric([self._model, self._revision], value)
            yield gauge
        batches = HistogramMetricFamily(
            "kohort_server_batch_rows", "Rows per run of the model.", labels=["model", "revision"]
        )
        buckets = [0] * (len(BATCH_BOUNDS) + 1)
        statistics = batcher.statistics
        for rows, size in statistics.sizes.items():
            buckets[bisect_left(BATCH_BOUNDS, rows)] += size.batches
        counts = cumulative(BATCH_BOUNDS, buckets)
        batches.add_metric([self._model, self._revision], counts, statistics.rows)
        yield batches

    def _triton(self, batcher: Batcher) -> Iterable[Metric]:
        """The same under the names, labels and units of Triton, for dashboards that exist."""
        statistics = batcher.statistics
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
        pending.add_sample("nv_inference_pending_request_count", labels, batcher.waiting_calls)
        yield pending

    def _answered(self, wanted: Callable[[int], bool]) -> tuple[int, float]:
        """How many requests were answered with such a code, and their time in seconds."""
        series = [series for (_, code), series in self._series.items() if wanted(code)]
        return sum(sum(s.buckets) for s in series), sum(s.sum for s in series)

    def statistics(self, batcher: Batcher) -> dict[str, Any]:
        """The same in the form of the protocol's statistics extension."""
        statistics = batcher.statistics
        success, success_time = self._answered(lambda code: code == 200)
        failed, failed_time = self._answered(lambda code: code != 200)
        ago = time.perf_counter() - self._last
        return {
            "last_inference": int((time.time() - ago) * 1000) if self._last else 0,
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
