"""What the operator tells Prometheus about itself; nothing has a label per model."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector


class Metrics:
    """All metrics of one operator process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.passes = Histogram(
            "kohort_operator_reconcile_seconds",
            "Duration of one pass over one model",
            ["outcome"],
            buckets=(0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15),
            registry=self._registry,
        )
        self._calls = Counter(
            "kohort_operator_api_calls",
            "Calls to the API server; code 0 is no answer",
            ["verb", "resource", "code"],
            registry=self._registry,
        )
        self.pushes = Counter(
            "kohort_operator_route_pushes",
            "Route tables handed to the route server",
            registry=self._registry,
        )
        self.refused = Counter(
            "kohort_operator_route_refusals",
            "Route tables that a gateway refused",
            registry=self._registry,
        )

    def call(self, verb: str, resource: str, status: int) -> None:
        """Counts a call to the API server."""
        self._calls.labels(verb, resource, str(status)).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(f"kohort_operator_{name}", text, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
