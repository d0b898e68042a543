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

    Nothing is published before :meth:`begin`: half a cache would send clients nowhere.
    """

    def __init__(
        self, models: Models, pods: Store[Pod], sink: RouteSink, on_publish: Callable[[], None]
    ) -> None:
        self._models = models
        self._pods = pods
        self._sink = sink
        self._on_publish = on_publish
        self._begun = False
        self._published: set[ModelKey] = set()

    def begin(self) -> None:
        """Publishes everything; from now on changes follow."""
        self._begun = True
        for model in self._models:
            self.refresh(model.key)

    def refresh(self, key: ModelKey) -> None:
        """Publishes what is to be served of a model now, and prepares what is likely to be served next."""
        if not self._begun:
            return
        model = self._models.get(key)
        if model is not None and model.spec is None:
            return  # what is served stays until the spec can be read again
        table = self.table(key)
        if table is not None:
            self._sink.publish(table, self._endpoints(table))
            self._published.add(key)
            self._on_publish()
            if model is not None and model.spec is not None:
                self.prepare(key, foreseen(model.spec, model.status))
        elif key in self._published:
            self._published.discard(key)
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
