"""Keeps what gateways are served equal to what the caches say: the same on every replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kohort.api.status import Status
from kohort.observe.capacity import endpoints, serving
from kohort.observe.objects import Pod
from kohort.observe.store import Store
from kohort.route.table import Endpoints, ModelKey, RouteTable, foreseen, route_table, with_fallback
from kohort.runtime.models import Models

LONGEST_WAIT = 2.0
"""Seconds for which routes to a revision without known pods are held back."""


class RouteSink(Protocol):
    """What serves routes to the gateways."""

    def publish(self, table: RouteTable, endpoints: Endpoints) -> None:
        """Serves these routes of a model from now on."""

    def prepare(self, table: RouteTable, endpoints: Endpoints) -> None:
        """Lets gateways fetch these routes of a model, which may be published next."""

    def withdraw(self, key: ModelKey) -> None:
        """Serves no routes of a model any more."""


class Publisher:
    """Publishes a model's routes whenever its status or its pods change.

    Nothing is published before :meth:`begin`: half a cache would send clients nowhere. So would a status
    that is heard of before the pods that it speaks of, as on replicas that do not decide: what sends
    clients to a revision of which no pod is known yet waits for the first one, for a moment: pods may also
    be gone again. ``later`` calls a function after so many seconds.
    """

    def __init__(
        self,
        models: Models,
        pods: Store[Pod],
        sink: RouteSink,
        on_publish: Callable[[], None],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._models = models
        self._pods = pods
        self._sink = sink
        self._on_publish = on_publish
        self._later = later
        self._begun = False
        self._waiting: set[ModelKey] = set()
        self._published: dict[ModelKey, frozenset[str]] = {}  # revisions with clients

    def begin(self) -> None:
        """Publishes everything; from now on changes follow."""
        self._begun = True
        for model in self._models:
            self._publish(model.key, self.table(model.key))

    def refresh(self, key: ModelKey) -> None:
        """Publishes what is to be served of a model now, and prepares what is likely to be served next."""
        if not self._begun:
            return
        model = self._models.get(key)
        if model is not None and model.spec is None:
            return  # what is served stays until the spec can be read again
        table = self.table(key)
        if table is not None:
            known = self._endpoints(table)
            new = table.serving - self._published.get(key, frozenset())
            if any(not known[revision] for revision in new):
                if key not in self._waiting:
                    self._waiting.add(key)
                    self._later(LONGEST_WAIT, lambda: self._publish_late(key))
                return
        self._publish(key, table)

    def _publish_late(self, key: ModelKey) -> None:
        if key in self._waiting:
            self._publish(key, self.table(key))

    def _publish(self, key: ModelKey, table: RouteTable | None) -> None:
        self._waiting.discard(key)
        model = self._models.get(key)
        if table is not None:
            self._sink.publish(table, self._endpoints(table))
            self._published[key] = table.serving
            self._on_publish()
            if model is not None and model.spec is not None:
                self.prepare(key, foreseen(model.spec, model.status))
        elif key in self._published:
            del self._published[key]
            self._sink.withdraw(key)

    def prepare(self, key: ModelKey, status: Status) -> None:
        """Lets gateways fetch the routes of a status that is about to be written, or may be."""
        model = self._models.get(key)
        if not self._begun or model is None or model.spec is None or not model.own_gateways:
            return
        table = route_table(key, model.spec, status, model.uid)
        if table is not None:
            self._sink.prepare(self._with_pods(table), self._endpoints(table))

    def table(self, key: ModelKey) -> RouteTable | None:
        """What the persisted status intends for Kohort's own gateways, as far as there are pods."""
        model = self._models.get(key)
        if model is None or model.spec is None or not model.own_gateways:
            return None
        table = route_table(key, model.spec, model.status, model.uid)
        return None if table is None else self._with_pods(table)

    def _with_pods(self, table: RouteTable) -> RouteTable:
        return with_fallback(table, serving(self._pods.of(table.key).values()))

    def _endpoints(self, table: RouteTable) -> Endpoints:
        return endpoints(self._pods.of(table.key).values(), table.revisions)
