"""The order in which a gateway is told: no request may ever meet a route without its cluster."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kohort.route.envoy.catalogue import Catalogue
from kohort.route.envoy.clusters import cluster_name
from kohort.route.envoy.exchange import Exchange, Response
from kohort.route.envoy.resource import Kind
from kohort.route.envoy.scopes import STAGE, routes_name
from kohort.route.table import CohortRoute, Endpoint, Endpoints, ModelKey, RouteTable, Target
from tests.unit.gateway_model import GatewayModel, Request

KEYS = tuple(ModelKey("shop", name) for name in ("a", "b", "c"))
REVISIONS = ("r1", "r2", "r3")
ENDPOINT = Endpoint("10.0.0.1", 8080)
# Few, so that what was there before comes again while it is still known of.
WEIGHTS = st.sampled_from((5, 50))
SOME_KEYS = st.sampled_from(KEYS[:2])


def table(key: ModelKey, stable: str, canary: str, weight: int) -> RouteTable:
    cohort = CohortRoute("everyone", (), stable, canary, weight if canary else 0, "salt")
    return RouteTable(key, "x-client-id", (cohort,))


def name_of(published: RouteTable) -> str:
    """What gateways know a table by."""
    return routes_name(published.key, published.version)


class Conversation(RuleBasedStateMachine):
    """Any changes, any interleaving with what the gateway says, lost streams included."""

    def __init__(self) -> None:
        super().__init__()
        self.catalogue = Catalogue()
        self.published: dict[ModelKey, RouteTable] = {}
        # Every table that was ever published, and those that were ever met by requests since.
        self.tables: set[str] = set()
        self.served: set[ModelKey] = set()
        # What was prepared and may be published later.
        self.following: dict[ModelKey, tuple[RouteTable, Endpoints]] = {}
        self.gateway = GatewayModel()
        self.wire: list[Response] = []

    @initialize()
    def all_is_well(self) -> None:
        self.connected()
        for key in KEYS:
            self.published_is(key, "r1", "r2", 5, ready=True)
        self.settle()

    def connected(self) -> None:
        self.exchange = Exchange(self.catalogue)
        self.wire.clear()
        self.gateway.connect()

    @rule()
    def the_stream_is_lost(self) -> None:
        self.connected()

    @rule()
    def the_gateway_starts_anew(self) -> None:
        self.gateway = GatewayModel()
        self.served = set()
        self.connected()

    @rule(
        key=SOME_KEYS,
        stable=st.sampled_from(REVISIONS),
        canary=st.sampled_from(("", *REVISIONS)),
        weight=WEIGHTS,
        ready=st.booleans(),
    )
    def published_is(
        self, key: ModelKey, stable: str, canary: str, weight: int, ready: bool
    ) -> None:
        wanted = table(key, stable, "" if canary == stable else canary, weight)
        endpoints = {stable: (ENDPOINT,), canary: (ENDPOINT,) if ready else ()}
        self.published[key] = wanted
        self.tables.add(name_of(wanted))
        if self.catalogue.publish(wanted, endpoints):
            self.wire.extend(self.exchange.update(key))

    @rule(
        key=SOME_KEYS,
        stable=st.sampled_from(REVISIONS),
        canary=st.sampled_from(("", *REVISIONS)),
        weight=WEIGHTS,
        kept=st.booleans(),
    )
    def prepared_is(self, key: ModelKey, stable: str, canary: str, weight: int, kept: bool) -> None:
        wanted = table(key, stable, "" if canary == stable else canary, weight)
        endpoints = dict.fromkeys((stable, canary), (ENDPOINT,))
        if kept:
            self.following[key] = (wanted, endpoints)
        if self.catalogue.prepare(wanted, endpoints):
            self.wire.extend(self.exchange.update(key))

    @rule(key=SOME_KEYS)
    def published_is_what_was_prepared(self, key: ModelKey) -> None:
        if key in self.following and key in self.published:
            wanted, endpoints = self.following.pop(key)
            self.published[key] = wanted
            self.tables.add(name_of(wanted))
            if self.catalogue.publish(wanted, endpoints):
                self.wire.extend(self.exchange.update(key))

    @rule(key=SOME_KEYS)
    def withdrawn_is(self, key: ModelKey) -> None:
        self.published.pop(key, None)
        if self.catalogue.withdraw(key):
            self.wire.extend(self.exchange.update(key))

    @rule(words=st.integers(1, 6))
    def the_gateway_speaks(self, words: int = 1) -> None:
        for _ in range(min(words, len(self.gateway.asks))):
            self.wire.extend(self.exchange.receive(self.gateway.asks.pop(0)))

    @rule(words=st.integers(1, 6))
    def the_gateway_hears(self, words: int = 1) -> None:
        for _ in range(min(words, len(self.wire))):
            self.gateway.take(self.wire.pop(0))
            self.a_model_that_is_served_stays_served()

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

    @invariant()
    def requests_meet_only_what_was_published(self) -> None:
        assert set(self.gateway.in_force().values()) <= {*self.tables, ""}

    @invariant()
    def a_model_that_is_served_stays_served(self) -> None:
        in_force = self.gateway.in_force()
        # A model that was withdrawn may be found again before its routes are.
        self.served &= in_force.keys()
        self.served |= {key for key, name in in_force.items() if name}
        assert all(in_force[key] for key in self.served)

    @rule()
    def in_the_end_the_gateway_has_what_is_published_and_nothing_else(self) -> None:
        self.settle()
        published = tuple(self.published.values())
        wanted = {
            cluster_name(table.key, target) for table in published for target in table.targets
        }
        prepared = [m for key in KEYS if (m := self.catalogue.prepared(key)) is not None]
        kept = {cluster_name(model.key, t) for model in prepared for t in model.table.targets}
        in_force = {key: name_of(published) for key, published in self.published.items()}
        assert self.gateway.in_force() == in_force
        assert self.gateway.routed_clusters() == {
            cluster_name(table.key, target)
            for table in published
            for cohort in table.cohorts
            for target in (Target(cohort.stable), Target(cohort.canary, cohort.stable))
            if target.revision
        }
        assert set(self.gateway.has[Kind.CLUSTER]) == wanted | kept
        assert set(self.gateway.has[Kind.ROUTES]) == {
            *in_force.values(),
            *(model.routes_name for model in prepared),
        }
        before = list(self.exchange.refusals)
        for key in self.published:
            assert self.exchange.update(key) == [], "nothing is sent twice"
        assert before == []


TestConversation = Conversation.TestCase
TestConversation.settings = settings(stateful_step_count=40)


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
    before = gateway.in_force()[KEYS[0]]

    gateway.refuses = {name_of(table(KEYS[0], "r1", "r2", 50))}
    for key in KEYS:
        catalogue.publish(table(key, "r1", "r2", 50), {"r1": (ENDPOINT,), "r2": (ENDPOINT,)})
        settle(exchange, gateway, exchange.update(key))
    assert gateway.in_force()[KEYS[0]] == before
    assert cluster_name(KEYS[1], Target("r2", "r1")) in gateway.routed_clusters()
    assert [refusal.key for refusal in exchange.refusals] == [KEYS[0]]

    catalogue.publish(table(KEYS[0], "r1", "r2", 25), {"r1": (ENDPOINT,)})
    settle(exchange, gateway, exchange.update(KEYS[0]))
    assert gateway.in_force()[KEYS[0]] == name_of(table(KEYS[0], "r1", "r2", 25))


def test_a_model_that_cannot_be_rendered_stays_as_it_was_and_holds_up_no_other() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    for key in KEYS:
        catalogue.publish(table(key, "r1", "", 0), {"r1": (ENDPOINT,)})
    exchange = connected(catalogue, gateway)
    before = gateway.in_force()[KEYS[0]]

    no_port = Endpoint("10.0.0.2", -1)
    catalogue.publish(table(KEYS[0], "r1", "r2", 50), {"r1": (ENDPOINT,), "r2": (no_port,)})
    catalogue.publish(table(KEYS[1], "r1", "r2", 50), {"r1": (ENDPOINT,), "r2": (ENDPOINT,)})
    for key in KEYS:
        settle(exchange, gateway, exchange.update(key))
    assert gateway.in_force()[KEYS[0]] == before
    assert cluster_name(KEYS[1], Target("r2", "r1")) in gateway.routed_clusters()
    assert {refusal.key for refusal in exchange.refusals} == {KEYS[0]}

    late = GatewayModel()
    connected(catalogue, late)
    assert cluster_name(KEYS[1], Target("r2", "r1")) in late.routed_clusters()

    mended = table(KEYS[0], "r1", "r2", 50)
    catalogue.publish(mended, {"r1": (ENDPOINT,), "r2": (ENDPOINT,)})
    settle(exchange, gateway, exchange.update(KEYS[0]))
    assert gateway.in_force()[KEYS[0]] == name_of(mended)


def test_a_prepared_table_is_in_force_with_one_small_message() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    both = {"r1": (ENDPOINT,), "r2": (ENDPOINT,)}
    catalogue.publish(table(KEYS[0], "r1", "r2", 5), both)
    exchange = connected(catalogue, gateway)
    before = gateway.in_force()

    assert catalogue.prepare(table(KEYS[0], "r1", "r2", 25), both)
    settle(exchange, gateway, exchange.update(KEYS[0]))
    assert gateway.in_force() == before

    assert catalogue.publish(table(KEYS[0], "r1", "r2", 25), both)
    (response,) = exchange.update(KEYS[0])
    assert response.ByteSize() < 2000
    gateway.take(response)
    assert gateway.in_force() == {KEYS[0]: name_of(table(KEYS[0], "r1", "r2", 25))}


def test_a_table_that_comes_back_is_fetched_again_before_clients_are_led_there() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    both = {"r1": (ENDPOINT,), "r2": (ENDPOINT,)}
    first, second = (table(KEYS[0], "r1", "r2", weight) for weight in (5, 25))
    catalogue.publish(first, both)
    exchange = connected(catalogue, gateway)
    catalogue.prepare(second, both)
    settle(exchange, gateway, exchange.update(KEYS[0]))
    catalogue.publish(second, both)
    wire = exchange.update(KEYS[0])
    catalogue.publish(first, both)
    wire += exchange.update(KEYS[0])
    while wire or gateway.asks:
        if wire:
            gateway.take(wire.pop(0))
            assert all(gateway.in_force().values())
        else:
            wire += exchange.receive(gateway.asks.pop(0))
    assert gateway.in_force() == {KEYS[0]: name_of(first)}


def test_a_prepared_table_that_is_refused_changes_nothing_also_when_it_is_published() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    both = {"r1": (ENDPOINT,), "r2": (ENDPOINT,)}
    catalogue.publish(table(KEYS[0], "r1", "r2", 5), both)
    exchange = connected(catalogue, gateway)
    before = gateway.in_force()
    bad = table(KEYS[0], "r1", "r2", 25)
    gateway.refuses = {name_of(bad)}

    catalogue.prepare(bad, both)
    settle(exchange, gateway, exchange.update(KEYS[0]))
    catalogue.publish(bad, both)
    settle(exchange, gateway, exchange.update(KEYS[0]))
    assert gateway.in_force() == before
    (refusal,) = exchange.refusals
    assert (refusal.key, refusal.version) == (KEYS[0], bad.version)


def test_a_prepared_table_is_dropped_when_it_is_taken_back_or_another_is_published() -> None:
    both = {"r1": (ENDPOINT,), "r2": (ENDPOINT,)}
    in_force, never, other = (table(KEYS[0], "r1", "r2", weight) for weight in (5, 25, 50))
    for change, left in (("prepare", in_force), ("publish", other)):
        catalogue, gateway = Catalogue(), GatewayModel()
        catalogue.publish(in_force, both)
        exchange = connected(catalogue, gateway)
        catalogue.prepare(never, both)
        settle(exchange, gateway, exchange.update(KEYS[0]))
        assert set(gateway.has[Kind.ROUTES]) == {name_of(in_force), name_of(never)}
        assert getattr(catalogue, change)(left, both)
        settle(exchange, gateway, exchange.update(KEYS[0]))
        assert set(gateway.has[Kind.ROUTES]) == {name_of(left)}


def test_a_prepared_table_stays_while_only_pods_come_and_go() -> None:
    some, more = ({"r1": (ENDPOINT,), "r2": pods} for pods in ((), (ENDPOINT,)))
    in_force, following = (table(KEYS[0], "r1", "r2", weight) for weight in (5, 25))
    catalogue, gateway = Catalogue(), GatewayModel()
    catalogue.publish(in_force, some)
    exchange = connected(catalogue, gateway)
    catalogue.prepare(following, some)
    settle(exchange, gateway, exchange.update(KEYS[0]))
    assert catalogue.publish(in_force, more)
    catalogue.prepare(following, more)
    sent = exchange.update(KEYS[0])
    assert {r.type_url for r in sent} == {Kind.ENDPOINTS}


def test_a_refused_cluster_does_not_keep_a_new_gateway_from_the_other_models() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    for key in KEYS:
        catalogue.publish(table(key, "r1", "", 0), {"r1": (ENDPOINT,)})
    gateway.refuses = {cluster_name(KEYS[0], Target("r1"))}
    connected(catalogue, gateway)
    assert gateway.routed_clusters() == {cluster_name(key, Target("r1")) for key in KEYS[1:]}


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
    sent: set[str] = set()
    wire: list[Response] = []
    while wire or gateway.asks:
        if wire:
            response = wire.pop(0)
            sent.update(resource.name for resource in response.resources)
            gateway.take(response)
        else:
            wire.extend(exchange.receive(gateway.asks.pop(0)))
    wanted = catalogue.get(KEYS[1])
    assert wanted is not None
    assert sent == {
        cluster_name(KEYS[1], Target("r2")),
        cluster_name(KEYS[1], Target("r2", "r1")),
        wanted.stage.name,
        wanted.routes_name,
        *wanted.scopes,
    }


def test_endpoints_of_equal_content_are_not_sent_again() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    other = Endpoint("10.0.0.2", 8080)
    catalogue.publish(table(KEYS[0], "r1", "", 0), {"r1": (ENDPOINT, other)})
    exchange = connected(catalogue, gateway)
    assert not catalogue.publish(table(KEYS[0], "r1", "", 0), {"r1": (other, ENDPOINT)})
    assert exchange.update(KEYS[0]) == []


def test_an_answer_about_a_table_that_was_let_go_of_since_does_not_count() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    both = {"r1": (ENDPOINT,), "r2": (ENDPOINT,)}
    first, second = (table(KEYS[0], "r1", "r2", weight) for weight in (5, 25))
    catalogue.publish(first, both)
    exchange = connected(catalogue, gateway)
    catalogue.publish(second, both)
    stage, pushed = exchange.update(KEYS[0])
    gateway.take(stage)
    gateway.take(pushed)
    late = next(a for a in gateway.asks if a.response_nonce == pushed.nonce)
    gateway.asks.remove(late)
    wire = [r for ask in gateway.asks for r in exchange.receive(ask)]
    gone = Request(type_url=Kind.ROUTES, resource_names_unsubscribe=[name_of(second)])
    wire += exchange.receive(gone)
    wire += exchange.receive(late)
    assert not [r for r in wire if r.type_url == Kind.SCOPE]


def test_a_table_behind_a_refused_stage_leads_nobody() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    both = {"r1": (ENDPOINT,), "r2": (ENDPOINT,)}
    catalogue.publish(table(KEYS[0], "r1", "r2", 5), both)
    exchange = connected(catalogue, gateway)
    before = gateway.in_force()
    following = table(KEYS[0], "r1", "r2", 25)
    gateway.refuses = {f"{KEYS[0]}/{STAGE}"}
    catalogue.publish(following, both)
    settle(exchange, gateway, exchange.update(KEYS[0]))
    assert gateway.in_force() == before
    assert [refusal.version for refusal in exchange.refusals] == [following.version]


def test_no_table_is_sent_before_its_clusters_are_there() -> None:
    catalogue, gateway = Catalogue(), GatewayModel()
    catalogue.publish(table(KEYS[0], "r1", "", 0), {"r1": (ENDPOINT,)})
    exchange = connected(catalogue, gateway)
    before = gateway.in_force()
    gateway.refuses = {cluster_name(KEYS[0], Target("r2"))}
    for following in (table(KEYS[0], "r1", "r2", 5), table(KEYS[0], "r2", "", 0)):
        catalogue.publish(following, {"r1": (ENDPOINT,), "r2": (ENDPOINT,)})
        settle(exchange, gateway, exchange.update(KEYS[0]))
        assert set(gateway.has[Kind.ROUTES]) == set(before.values())
        assert gateway.in_force() == before
