"""What Envoy is told about a model."""

from __future__ import annotations

import re

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2, scoped_route_pb2
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.split import split
from kohort.contract import (
    HEADER_COHORT,
    HEADER_REVISION,
    HEADER_SCOPE,
    HEADER_SLOT,
    SLOTS,
    WEIGHT_UNITS,
)
from kohort.route.address import hosts, path_prefix
from kohort.route.envoy.clusters import cluster, cluster_name, load_assignment
from kohort.route.envoy.resource import Resource, owner
from kohort.route.envoy.routes import merged, route_configuration
from kohort.route.envoy.scopes import scopes, stage
from kohort.route.table import CohortRoute, Endpoint, HeaderMatch, ModelKey, RouteTable, Target

KEY = ModelKey("shop", "burger")
STABLE, CANARY = cluster_name(KEY, Target("r1")), cluster_name(KEY, Target("r2", "r1"))
values = st.text("abc.*|(", min_size=1, max_size=4)
matches = st.lists(
    st.lists(
        st.builds(
            HeaderMatch,
            st.sampled_from(("x-org", "x-region")),
            st.lists(values, min_size=1, max_size=3, unique=True).map(tuple),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    max_size=4,
).map(tuple)
requests = st.dictionaries(st.sampled_from(("x-org", "x-region")), values)

Matches = tuple[tuple[HeaderMatch, ...], ...]


def cohort(name: str = "everyone", weight: int = 5, matches: Matches = ()) -> CohortRoute:
    return CohortRoute(name, matches, "r1", "r2", weight, "salt")


def routes(*cohorts: CohortRoute) -> route_pb2.RouteConfiguration:
    """What Envoy reads, without the route that tells the version."""
    content = route_configuration(RouteTable(KEY, "x-client-id", cohorts)).content
    config = route_pb2.RouteConfiguration.FromString(content)
    del config.virtual_hosts[0].routes[:2]
    return config


def slot_of(entry: route_components_pb2.WeightedCluster.ClusterWeight) -> int:
    """The slot that counters are labelled with."""
    (header,) = entry.request_headers_to_add
    assert header.header.key == HEADER_SLOT
    return int(header.header.value)


def belongs(matches: Matches, headers: dict[str, str]) -> bool:
    return any(all(headers.get(m.name) in m.values for m in match) for match in matches)


def is_matched(route: object, headers: dict[str, str]) -> bool:
    """Whether Envoy takes a route: all header matchers hold, regular expressions for the whole value."""
    for matcher in route.match.headers:  # type: ignore[attr-defined]
        value = headers.get(matcher.name)
        accepted = matcher.string_match
        if value is None:
            return False
        if matcher.present_match:
            continue
        if accepted.HasField("safe_regex"):
            if re.fullmatch(accepted.safe_regex.regex, value) is None:
                return False
        elif value != accepted.exact:
            return False
    return True


@given(matches, requests)
def test_fewer_alternatives_match_the_same_requests(
    matches: Matches, headers: dict[str, str]
) -> None:
    assert belongs(merged(matches), headers) == belongs(matches, headers)
    assert len(merged(matches)) <= len(matches)


@given(matches.filter(bool), requests)
def test_a_request_takes_the_route_of_its_cohort(matches: Matches, headers: dict[str, str]) -> None:
    config = routes(cohort("some", matches=matches), cohort("everyone"))
    taken = next(r for r in config.virtual_hosts[0].routes if is_matched(r, headers))
    (header,) = [h.header for h in taken.request_headers_to_add if h.header.key == HEADER_COHORT]
    assert header.value == ("some" if belongs(matches, headers) else "everyone")


@given(st.integers(0, 100))
def test_a_split_names_the_arm_and_the_slot_of_every_entry(weight: int) -> None:
    (route,) = routes(cohort(weight=weight)).virtual_hosts[0].routes
    entries = route.route.weighted_clusters.clusters
    assert sum(entry.weight.value for entry in entries) == WEIGHT_UNITS
    assert SLOTS <= len(entries) <= SLOTS + 1
    slots = []
    for entry in entries:
        assert entry.name in {STABLE, CANARY}
        slots.append(slot_of(entry))
    assert slots == sorted(slots)
    canary = {s.slot for s in split(weight, "salt") if s.canary}
    assert canary == {slot_of(e) for e in entries if e.name == CANARY}


def test_clients_are_told_apart_by_their_key_as_it_is_so_that_hashing_costs_least() -> None:
    (route,) = routes(cohort()).virtual_hosts[0].routes
    key, address = route.route.hash_policy
    assert key.header.header_name == "x-client-id"
    assert key.terminal
    assert not key.header.HasField("regex_rewrite")
    assert address.connection_properties.source_ip


def test_a_split_tells_the_revision_by_the_other_name_of_its_cluster() -> None:
    (route,) = routes(cohort()).virtual_hosts[0].routes
    told = {header.header.key: header.header.value for header in route.request_headers_to_add}
    assert told == {HEADER_COHORT: "everyone", HEADER_REVISION: "%UPSTREAM_CLUSTER%"}
    read = cluster_pb2.Cluster.FromString(cluster(KEY, Target("r2", "r1")).content)
    assert (read.name, read.alt_stat_name) == (CANARY, "r2")


def test_behind_the_pods_of_a_canary_stand_those_of_its_stable_revision() -> None:
    ready = {"r1": (Endpoint("10.0.0.1", 80),), "r2": (Endpoint("10.0.0.2", 80),)}
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(
        load_assignment(KEY, Target("r2", "r1"), ready).content
    )
    assert [
        (group.priority, [e.endpoint.hostname for e in group.lb_endpoints])
        for group in assignment.endpoints
    ] == [(0, ["r2"]), (1, ["r1"])]


def test_a_cohort_outside_a_rollout_has_one_cluster_and_no_slots() -> None:
    (route,) = routes(CohortRoute("everyone", (), "r1", "", 0, "")).virtual_hosts[0].routes
    assert route.route.cluster == STABLE
    assert not route.typed_per_filter_config
    assert not route.route.hash_policy
    added = {header.header.key: header.header.value for header in route.response_headers_to_add}
    assert added == {HEADER_COHORT: "everyone", HEADER_REVISION: "r1"}


@given(matches, requests, st.sampled_from((None, "", "yes", "no")))
def test_who_asks_for_the_preview_gets_it_within_the_cohort_and_is_counted_apart(
    matches: Matches, headers: dict[str, str], asks: str | None
) -> None:
    for header in (HeaderMatch("x-preview", ()), HeaderMatch("x-preview", ("yes",))):
        some = CohortRoute("some", matches, "r1", "r2", 0, "salt", preview="r2")
        everyone = CohortRoute("everyone", (), "r1", "", 0, "")
        content = route_configuration(
            RouteTable(KEY, "x-client-id", (some, everyone), header)
        ).content
        found = route_pb2.RouteConfiguration.FromString(content).virtual_hosts[0].routes[2:]
        sent = headers if asks is None else {**headers, "x-preview": asks}
        route = next(route for route in found if is_matched(route, sent))
        own = "some" if not matches or belongs(matches, headers) else "everyone"
        asked = asks is not None and (not header.values or asks in header.values)
        previews = own == "some" and asked
        counted = {h.header.key: h.header.value for h in route.request_headers_to_add}
        told = {h.header.key: h.header.value for h in route.response_headers_to_add}
        assert counted[HEADER_COHORT] == own + "/preview" * previews
        assert told[HEADER_COHORT] == own
        if previews:
            assert route.route.cluster == cluster_name(KEY, Target("r2"))
            assert told[HEADER_REVISION] == counted[HEADER_REVISION] == "r2"


def test_the_header_that_finds_a_model_stays_at_the_gateway() -> None:
    assert list(routes(cohort()).request_headers_to_remove) == [HEADER_SCOPE]


def keys_of(found: tuple[Resource, ...]) -> list[tuple[str, ...]]:
    read = [scoped_route_pb2.ScopedRouteConfiguration.FromString(r.content) for r in found]
    assert {scope.route_configuration_name for scope in read} == {f"{owner(found[0].name)}/v1"}
    return [tuple(fragment.string_key for fragment in scope.key.fragments) for scope in read]


def test_a_model_is_found_by_path_and_by_three_host_names() -> None:
    assert keys_of(scopes(KEY, "v1")) == [
        (",/shop/burger",),
        ("burger.shop,",),
        ("burger.shop.svc,",),
        ("burger.shop.svc.cluster.local,",),
    ]


def test_a_namespace_called_like_the_protocol_takes_no_calls_that_are_meant_for_a_host() -> None:
    key = ModelKey("v2", "models")
    assert path_prefix(key) is None
    assert (",/v2/models",) not in keys_of(scopes(key, "v1"))


def test_a_name_with_dots_cannot_take_another_models_host() -> None:
    key = ModelKey("a", "b.c")
    assert hosts(key) == ()
    assert keys_of(scopes(key, "v1")) == [(",/a/b.c",)]


words = st.lists(st.sampled_from(("shop", "burger", "stage", "v2", "/", ""))).map("".join)


@given(words.map("/{}".format), words.map(lambda host: host.replace("/", ".")))
def test_no_request_can_take_the_stage(path: str, host: str) -> None:
    by_path = f"{path[:4]}{host},/v2/,{path}/v2/"
    assert {header.split("/v2/")[1] for header in (by_path, f"/v2/{host},/v2/")}.isdisjoint(
        fragment for key in keys_of((stage(KEY, "v1"),)) for fragment in key
    )


def test_equal_endpoints_are_equal_in_any_order() -> None:
    a, b = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)
    alone = Target("r1")
    one = load_assignment(KEY, alone, {"r1": (a, b)})
    assert one == load_assignment(KEY, alone, {"r1": (b, a, b), "r2": (a,)})
    read = endpoint_pb2.ClusterLoadAssignment.FromString(one.content)
    assert len(read.endpoints[0].lb_endpoints) == 2


def test_every_resource_says_whose_it_is() -> None:
    table = RouteTable(KEY, "x-client-id", (cohort(),))
    for resource in (
        cluster(KEY, Target("r1")),
        cluster(KEY, Target("r2", "r1")),
        load_assignment(KEY, Target("r2", "r1"), {}),
        route_configuration(table),
        *scopes(KEY, "v1"),
        stage(KEY, "v1"),
    ):
        assert owner(resource.name) == KEY
    assert cluster_pb2.Cluster.FromString(cluster(KEY, Target("r1")).content).name == STABLE
