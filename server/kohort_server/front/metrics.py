"""What the server counts, in plain numbers, and how Prometheus gets them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

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
        # Set when the model serves: batch rows → batches run, waiting rows, waiting bytes.
        self.batches: Mapping[int, int] = {}
        self.waiting_rows: Callable[[], int] = int
        self.waiting_bytes: Callable[[], int] = int
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def observe(self, cohort: bytes, code: int, seconds: float) -> None:
        """Count one answered inference request; `cohort` is its header's value, empty without."""
        series = self._series.get((cohort, code))
        if series is None:
            series = self._new_series(cohort, code)
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
        yield from self._queue()

    def _queue(self) -> Iterable[Metric]:
        labels = ["model", "revision"]
        values = [self._model, self._revision]
        rows = GaugeMetricFamily(
            "kohort_server_queue_rows", "Rows that wait for the model.", labels=labels
        )
        rows.add_metric(values, self.waiting_rows())
        yield rows
        size = GaugeMetricFamily(
            "kohort_server_queue_bytes", "Bytes of inputs that wait for the model.", labels=labels
        )
        size.add_metric(values, self.waiting_bytes())
        yield size
        batches = HistogramMetricFamily(
            "kohort_server_batch_rows", "Rows per run of the model.", labels=labels
        )
        buckets = [0] * (len(BATCH_BOUNDS) + 1)
        for batch, count in self.batches.items():
            buckets[bisect_left(BATCH_BOUNDS, batch)] += count
        total = sum(batch * count for batch, count in self.batches.items())
        batches.add_metric(values, cumulative(BATCH_BOUNDS, buckets), total)
        yield batches


def cumulative(bounds: Iterable[float], buckets: Iterable[int]) -> list[tuple[str, float]]:
    """Prometheus's cumulative buckets, the last one without a bound."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(buckets)), strict=True))
