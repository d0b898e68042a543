"""The order in which a gateway is told: no request may ever meet a route without its cluster."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.route.v3 import route_pb2, scoped_route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kohort.route.envoy.catalogue import Catalogue
from kohort.route.envoy.clusters import cluster_name
from kohort.route.envoy.exchange import Exchange, Response
from kohort.route.envoy.resource import Kind
from kohort.route.table import CohortRoute, Endpoint, ModelKey, RouteTable

KEYS = tuple(ModelKey("shop", name) for name in ("a", "b", "c"))
REVISIONS = ("r1", "r2", "r3")
ENDPOINT = Endpoint("10.0.0.1", 8080)

Request = discovery_pb2.DeltaDiscoveryRequest


def table(key: ModelKey, stable: str, canary: str, weight: int) -> RouteTable:
    cohort = CohortRoute("everyone", (), stable, canary, weight if canary else 0, "salt")
    return RouteTable(key, "x-client-id", (cohort,))


class GatewayModel:
    """As much of an Envoy as matters here: it takes what it is sent and asks for what that names."""

    def __init__(self) -> None:
        self.has: dict[Kind, dict[str, tuple[str, bytes]]] = {kind: {} for kind in Kind}
        self.asked: dict[Kind, set[str]] = {Kind.ENDPOINTS: set(), Kind.ROUTES: set()}
        self.refuses: set[str] = set()
        self.asks: list[Request] = []

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
        bad = self.refuses & {resource.name for resource in response.resources}
        if bad:
            answer.error_detail.message = f"refused: {sorted(bad)}"
        else:
            for name in response.removed_resources:
                self.has[kind].pop(name, None)
            for resource in response.resources:
                self.has[kind][resource.name] = (resource.version, resource.resource.value)
        self.asks.append(answer)
        if kind is Kind.CLUSTER:
            self._ask(Kind.ENDPOINTS, self.has[Kind.CLUSTER])
        if kind is Kind.SCOPE:
            self._ask(Kind.ROUTES, {self._leads_to(c) for _, c in self.has[Kind.SCOPE].values()})

    @staticmethod
    def _leads_to(content: bytes) -> str:
        scope = scoped_route_pb2.ScopedRouteConfiguration.FromString(content)
        return str(scope.route_configuration_name)

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

    def routed_clusters(self) -> set[str]:
        """Clusters that a request can be sent to."""
        reachable = {self._leads_to(c) for _, c in self.has[Kind.SCOPE].values()}
        found = set()
        for name, (_, content) in self.has[Kind.ROUTES].items():
            if name not in reachable:
                continue
            config = route_pb2.RouteConfiguration.FromString(content)
            for route in config.virtual_hosts[0].routes:
                if route.route.cluster:
                    found.add(route.route.cluster)
                found.update(c.name for c in route.route.weighted_clusters.clusters)
        return found


class Conversation(RuleBasedStateMachine):
    """Any changes, any interleaving with what the gateway says, lost streams included."""

    def __init__(self) -> None:
        super().__init__()
        self.catalogue = Catalogue()
        self.published: dict[ModelKey, RouteTable] = {}
        self.gateway = GatewayModel()
        self.wire: list[Response] = []

    @initialize()
    def connected(self) -> None:
        self.exchange = Exchange(self.catalogue)
        self.wire.clear()
        self.gateway.connect()

    @rule()
    def the_stream_is_lost(self) -> None:
        self.connected()

    @rule(
        key=st.sampled_from(KEYS),
        stable=st.sampled_from(REVISIONS),
        canary=st.sampled_from(("", *REVISIONS)),
        weight=st.integers(1, 99),
        ready=st.booleans(),
    )
    def published_is(
        self, key: ModelKey, stable: str, canary: str, weight: int, ready: bool
    ) -> None:
        wanted = table(key, stable, "" if canary == stable else canary, weight)
        endpoints = {stable: (ENDPOINT,), canary: (ENDPOINT,) if ready else ()}
        self.published[key] = wanted
        if self.catalogue.publish(wanted, endpoints):
            self.wire.extend(self.exchange.update(key))

    @rule(key=st.sampled_from(KEYS))
    def withdrawn_is(self, key: ModelKey) -> None:
        self.published.pop(key, None)
        if self.catalogue.withdraw(key):
            self.wire.extend(self.exchange.update(key))

    @rule()
    def the_gateway_speaks(self) -> None:
        if self.gateway.asks:
            self.wire.extend(self.exchange.receive(self.gateway.asks.pop(0)))

    @rule()
    def the_gateway_hears(self) -> None:
        if self.wire:
            self.gateway.take(self.wire.pop(0))

    def settle(self) -> None:
        for _ in range(1000):
            if not self.wire and not self.gateway.asks:
                return
            self.the_gateway_hears()
            self.the_gateway_speaks()
        raise AssertionError("the conversation never ends")

    @invariant()
    def every_route_leads_to_a_cluster_with_endpoints(self) -> None:
        for cluster in self.gateway.routed_clusters():
            assert cluster in self.gateway.has[Kind.CLUSTER]
            assert cluster in self.gateway.has[Kind.ENDPOINTS]

    @rule()
    def in_the_end_the_gateway_has_what_is_published_and_nothing_else(self) -> None:
        self.settle()
        wanted = {
            cluster_name(key, revision)
            for key, published in self.published.items()
            for revision in published.revisions
        }
        assert self.gateway.routed_clusters() == wanted
        assert set(self.gateway.has[Kind.CLUSTER]) == wanted
        assert set(self.gateway.has[Kind.ROUTES]) == {str(key) for key in self.published}
        before = list(self.exchange.refusals)
        for key in self.published:
            assert self.exchange.update(key) == [], "nothing is sent twice"
        assert before == []


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def connected(catalogue: Catalogue, gateway: GatewayModel) -> Exchange:
    """A gateway that has been told everything."""
    exchange = Exchange(catalogue)
    gateway.connect()
    settle(exchange, gateway, [])
    return exchange


def settle(exchange: Exchange, gateway: GatewayModel, wire: list[Response]) -> None:
    while wire or gateway.asks:
        if wire:
            gateway.take(wire.pop(0))
        else:
            wire.extend(exchange.receive(gateway.asks.pop(0)))


def test_a_refused_table_leaves_its_model_as_it_was_and_others_alone() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    for key in KEYS:
        catalogue.publish(table(key, "r1", "", 0), {"r1": (ENDPOINT,)})
    exchange = connected(catalogue, gateway)
    before = gateway.has[Kind.ROUTES][str(KEYS[0])]

    gateway.refuses = {str(KEYS[0])}
    for key in KEYS:
        catalogue.publish(table(key, "r1", "r2", 50), {"r1": (ENDPOINT,), "r2": (ENDPOINT,)})
        settle(exchange, gateway, exchange.update(key))
    assert gateway.has[Kind.ROUTES][str(KEYS[0])] == before
    assert cluster_name(KEYS[1], "r2") in gateway.routed_clusters()
    assert [refusal.key for refusal in exchange.refusals] == [KEYS[0]]

    gateway.refuses = set()
    catalogue.publish(table(KEYS[0], "r1", "r2", 25), {"r1": (ENDPOINT,)})
    settle(exchange, gateway, exchange.update(KEYS[0]))
    assert gateway.has[Kind.ROUTES][str(KEYS[0])] != before


def test_a_refused_cluster_does_not_keep_a_new_gateway_from_the_other_models() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    for key in KEYS:
        catalogue.publish(table(key, "r1", "", 0), {"r1": (ENDPOINT,)})
    gateway.refuses = {cluster_name(KEYS[0], "r1")}
    connected(catalogue, gateway)
    assert gateway.routed_clusters() == {cluster_name(key, "r1") for key in KEYS[1:]}


def test_a_new_gateway_hears_of_all_models_at_once() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    for key in KEYS:
        catalogue.publish(table(key, "r1", "", 0), {"r1": (ENDPOINT,)})
    exchange = Exchange(catalogue)
    gateway.connect()
    scopes = []
    wire: list[Response] = []
    while wire or gateway.asks:
        if wire:
            response = wire.pop(0)
            if response.type_url == Kind.SCOPE:
                scopes.append({resource.name.split("/")[1] for resource in response.resources})
            gateway.take(response)
        else:
            wire.extend(exchange.receive(gateway.asks.pop(0)))
    assert scopes == [{"a", "b", "c"}]


def test_a_gateway_is_answered_even_when_there_is_nothing() -> None:
    exchange = Exchange(Catalogue())
    for kind in (Kind.CLUSTER, Kind.SCOPE):
        (response,) = exchange.receive(Request(type_url=kind))
        assert list(response.resources) == []


def test_a_gateway_that_returns_is_sent_only_what_changed() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    for key in KEYS:
        catalogue.publish(table(key, "r1", "", 0), {"r1": (ENDPOINT,)})
    connected(catalogue, gateway)
    catalogue.publish(table(KEYS[1], "r1", "r2", 5), {"r1": (ENDPOINT,)})
    exchange = Exchange(catalogue)
    gateway.connect()
    sent = set()
    wire: list[Response] = []
    while wire or gateway.asks:
        if wire:
            response = wire.pop(0)
            sent.update(resource.name for resource in response.resources)
            gateway.take(response)
        else:
            wire.extend(exchange.receive(gateway.asks.pop(0)))
    assert sent == {str(KEYS[1]), cluster_name(KEYS[1], "r2")}


def test_endpoints_of_equal_content_are_not_sent_again() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    other = Endpoint("10.0.0.2", 8080)
    catalogue.publish(table(KEYS[0], "r1", "", 0), {"r1": (ENDPOINT, other)})
    exchange = connected(catalogue, gateway)
    assert not catalogue.publish(table(KEYS[0], "r1", "", 0), {"r1": (other, ENDPOINT)})
    assert exchange.update(KEYS[0]) == []
