"""As much of an Envoy as matters to the order in which it is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from envoy.service.discovery.v3 import discovery_pb2

from kohort.route.envoy.exchange import Response
from kohort.route.envoy.resource import Kind, owner
from kohort.route.envoy.scopes import STAGE
from kohort.route.table import ModelKey

Request: Any = discovery_pb2.DeltaDiscoveryRequest


class GatewayModel:
    """As much of an Envoy as matters here: it takes what it is sent and asks for what that names."""

    def __init__(self) -> None:
        self.has: dict[Kind, dict[str, tuple[str, bytes]]] = {kind: {} for kind in Kind}
        self.asked: dict[Kind, set[str]] = {Kind.ENDPOINTS: set(), Kind.ROUTES: set()}
        self.refuses: set[str] = set()
        self.asks: list[Any] = []

    def connect(self) -> None:
        """What it says on a new stream."""
        self.asks = [
            Request(
                type_url=kind,
                resource_names_subscribe=sorted(self.asked.get(kind, ())),
                initial_resource_versions={n: v for n, (v, _) in self.has[kind].items()},
            )
            for kind in (Kind.CLUSTER, Kind.ENDPOINTS, Kind.SCOPE, Kind.ROUTES)
            if kind not in self.asked or self.asked[kind]
        ]

    def take(self, response: Response) -> None:
        kind = Kind(response.type_url)
        answer = Request(type_url=kind, response_nonce=response.nonce)
        # Before all that it asks for on account of this, as Envoy does.
        self.asks.append(answer)
        bad = self.refuses & {resource.name for resource in response.resources}
        if bad:
            answer.error_detail.message = f"refused: {sorted(bad)}"
        else:
            for name in response.removed_resources:
                self.has[kind].pop(name, None)
                self._ask_for_what_is_named(kind)
            for resource in response.resources:
                if kind in self.asked and resource.name not in self.asked[kind]:
                    continue
                self.has[kind][resource.name] = (resource.version, resource.resource.value)
                # One by one, as Envoy does: what nothing names for a moment is dropped.
                self._ask_for_what_is_named(kind)

    def _ask_for_what_is_named(self, kind: Kind) -> None:
        if kind is Kind.CLUSTER:
            self._ask(Kind.ENDPOINTS, self.has[Kind.CLUSTER])
        if kind is Kind.SCOPE:
            self._ask(Kind.ROUTES, {leads_to(c) for _, c in self.has[Kind.SCOPE].values()})

    def _ask(self, kind: Kind, names: Iterable[str]) -> None:
        wanted = set(names)
        new, gone = wanted - self.asked[kind], self.asked[kind] - wanted
        self.asked[kind] = wanted
        for name in gone:
            self.has[kind].pop(name, None)
        if new or gone:
            self.asks.append(
                Request(
                    type_url=kind,
                    resource_names_subscribe=sorted(new),
                    resource_names_unsubscribe=sorted(gone),
                )
            )

    def in_force(self) -> dict[ModelKey, str]:
        """The table that requests for each model meet; empty while it has not arrived."""
        return {
            owner(name): table if table in self.has[Kind.ROUTES] else ""
            for name, (_, content) in self.has[Kind.SCOPE].items()
            for table in [leads_to(content)]
            if not name.endswith(f"/{STAGE}")
        }

    def routed_clusters(self) -> set[str]:
        """Clusters that a request can be sent to."""
        found = set()
        for name in filter(None, self.in_force().values()):
            _, content = self.has[Kind.ROUTES][name]
            config = route_pb2.RouteConfiguration.FromString(content)
            for route in config.virtual_hosts[0].routes:
                if route.route.cluster:
                    found.add(route.route.cluster)
                found.update(c.name for c in route.route.weighted_clusters.clusters)
        return found


def leads_to(scope: bytes) -> str:
    """The table that a scope leads to."""
    read = scoped_route_pb2.ScopedRouteConfiguration.FromString(scope)
    return str(read.route_configuration_name)
