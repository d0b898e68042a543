"""What the operator tells Prometheus about itself and its rollouts: a page that stays small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

PREFIX = "kohort_operator_"
FAST = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15)
LOST = ("overflow", "unreachable", "refused")
UNDELIVERED = ("overflow", "refused", "expired")
WAITS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


@dataclass(frozen=True)
class Described:
    """One metric, for docs/metrics.md."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Metrics:
    """All metrics of one operator process; ``catalogue`` describes those that are Kohort's own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.catalogue: list[Described] = []
        self.passes = self._histogram(
            "reconcile_seconds", "Duration of one pass over one model", FAST, "outcome"
        )
        self.waits = self._histogram(
            "queue_wait_seconds", "From when a model wants a pass until a worker takes it", WAITS
        )
        self.acknowledged = self._histogram(
            "route_acknowledgement_seconds",
            "From when new routes were decided and persisted until every ready gateway serves them",
            WAITS,
        )
        self._calls = self._counter(
            "api_calls",
            "Calls to the API server but for kopf's watch of models; code 0 is no answer",
            *("verb", "resource", "code"),
        )
        self.pushes = self._counter("route_pushes", "Route tables handed to the route server")
        self.refused = self._counter("route_refusals", "Route tables that a gateway refused")
        self.decisions = self._counter(
            "decisions", "Decisions on cohorts, by kohort itself or by a person", "action", "by"
        )
        self.events = self._counter("events", "What happened to models", "type", "reason")
        self.events_lost = self._counter(
            "events_lost", "Kubernetes events that nobody will read", "why"
        )
        self.cloudevents = self._counter(
            "cloudevents",
            "CloudEvents that were delivered, or lost by overflow, refused or expired; failed counts "
            "attempts that are made again",
            "result",
        )
        self._begin()

    def call(self, verb: str, resource: str, status: int) -> None:
        """Counts a call to the API server."""
        self._calls.labels(verb, resource, str(status)).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        self._describe(name, "gauge", (), text)
        Gauge(PREFIX + name, text, registry=self._registry).set_function(read)

    def collect(self, collector: Collector, described: Sequence[Described]) -> None:
        """Metrics that are made when they are asked for."""
        self.catalogue += described
        self._registry.register(collector)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _begin(self) -> None:
        """Tells of what alerts wait for from nought on: Prometheus sees no increase in a first sample."""
        self.passes.labels("defect")
        self.decisions.labels("RolledBack", "kohort")
        for why in LOST:
            self.events_lost.labels(why)
        for result in UNDELIVERED:
            self.cloudevents.labels(result)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self._describe(f"{name}_total", "counter", labels, text)
        return Counter(PREFIX + name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        self._describe(name, "histogram", labels, text)
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self._registry)

    def _describe(self, name: str, kind: str, labels: tuple[str, ...], text: str) -> None:
        self.catalogue.append(Described(PREFIX + name, kind, labels, text))
