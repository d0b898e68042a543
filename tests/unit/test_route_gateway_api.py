"""Route tables in the words of the Gateway API: the same meaning, or a refusal that says what to do."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kohort.api.routing import GatewayAPI, ParentRef
from kohort.route.gateway_api.matches import NotExpressible
from kohort.route.gateway_api.routes import Rendered, RouteKind, render
from kohort.route.table import CohortRoute, HeaderMatch, ModelKey, RouteTable
from tests.gateway_api_tables import (
    KEY,
    NAMES,
    VALUES,
    Json,
    chosen,
    cohort_of,
    gateways,
    tables,
)

GATEWAY = GatewayAPI(parent_refs=(ParentRef(name="public", namespace="infra"),))
BY_HOST = GatewayAPI(parent_refs=GATEWAY.parent_refs, hostnames=("burger.example.com",))
PATH = "/shop/burger/v2/models/burger/infer"
requests = st.dictionaries(st.sampled_from(NAMES), st.sampled_from((*VALUES, "other")))


def header(name: str, *values: str) -> tuple[HeaderMatch, ...]:
    return (HeaderMatch(name, values),)


def cohort(name: str, *matches: tuple[HeaderMatch, ...], weight: int = 0) -> CohortRoute:
    return CohortRoute(name, matches, "burger-1", "burger-2" if weight else "", weight, "salt")


EVERYONE = cohort("everyone")


def table(*cohorts: CohortRoute, key: ModelKey = KEY) -> RouteTable:
    return RouteTable(key, "x-client-id", cohorts)


def rendered(*cohorts: CohortRoute, gateway: GatewayAPI = GATEWAY) -> Json:
    """The spec of the HTTPRoute."""
    return render(table(*cohorts), gateway)[0].spec


ASKING = HeaderMatch("x-preview", ("yes",))


@given(tables(most=4), gateways(), requests, st.sampled_from(("yes", "no")))
def test_who_asks_for_the_preview_gets_that_of_its_cohort_or_the_table_is_refused(
    table: RouteTable, gateway: GatewayAPI, headers: dict[str, str], asks: str
) -> None:
    cohorts = tuple(replace(cohort, preview=cohort.canary) for cohort in table.cohorts)
    try:
        routes = render(replace(table, cohorts=cohorts, preview=ASKING), gateway)
    except NotExpressible:
        assume(False)
    path = "/v2/models/burger/infer" if gateway.hostnames else PATH
    for route in routes:
        rule = chosen(route.spec, path, headers | {"x-preview": asks})
        assert rule is not None
        cohort = cohort_of(table, headers)
        told = rule["filters"][0]["requestHeaderModifier"]["set"]
        weights = {ref["name"]: ref["weight"] for ref in rule["backendRefs"]}
        if asks == "yes":
            assert told == [{"name": "x-kohort-cohort", "value": f"{cohort.name}/preview"}]
            assert weights == {cohort.canary or cohort.stable: 100}
        else:
            assert told == [{"name": "x-kohort-cohort", "value": cohort.name}]
            assert weights.get(cohort.canary, 0) == cohort.weight


def test_previews_take_their_places_before_a_rollout_needs_them() -> None:
    some = tuple(cohort(f"c{number}", header("x-org", f"o{number}")) for number in range(8))
    render(table(*some, EVERYONE), GATEWAY)
    with pytest.raises(NotExpressible, match="18"):
        render(replace(table(*some, EVERYONE), preview=ASKING), GATEWAY)


def refusal(*cohorts: CohortRoute, gateway: GatewayAPI = GATEWAY) -> str:
    with pytest.raises(NotExpressible) as refused:
        render(table(*cohorts), gateway)
    return str(refused.value)


@given(tables(most=5), gateways(), requests)
def test_a_request_meets_the_rule_of_its_cohort_or_the_table_is_refused(
    table: RouteTable, gateway: GatewayAPI, headers: dict[str, str]
) -> None:
    try:
        routes = render(table, gateway)
    except NotExpressible:
        assume(False)
    path = "/v2/models/burger/infer" if gateway.hostnames else PATH
    for route in routes:
        rule = chosen(route.spec, path, headers)
        assert rule is not None
        told = rule["filters"][0]["requestHeaderModifier"]["set"]
        cohort = cohort_of(table, headers)
        assert told == [{"name": "x-kohort-cohort", "value": cohort.name}]
        weights = {ref["name"]: ref["weight"] for ref in rule["backendRefs"]}
        assert sum(weights.values()) == 100
        assert weights.get(cohort.canary, 0) == cohort.weight


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a machine that does other things too
@given(tables(), gateways())
def test_no_route_exceeds_what_the_gateway_api_takes(
    table: RouteTable, gateway: GatewayAPI
) -> None:
    routes: tuple[Rendered, ...] = ()
    with contextlib.suppress(NotExpressible):
        routes = render(table, gateway)
    for route in routes:
        counts = [len(rule["matches"]) for rule in route.spec["rules"]]
        assert len(counts) <= 16
        assert min(counts) >= 1
        assert max(counts) <= (1 if "urlRewrite" in str(route.spec) else 64)
        assert sum(counts) <= 128


def test_without_hosts_a_model_is_called_by_its_path() -> None:
    (rule,) = rendered(EVERYONE)["rules"]
    assert rule["matches"][0]["path"]["value"] == "/shop/burger/v2"
    assert rule["filters"][1]["urlRewrite"]["path"]["replacePrefixMatch"] == "/v2"


def test_hosts_of_its_own_need_no_rewriting() -> None:
    spec = rendered(EVERYONE, gateway=BY_HOST)
    assert spec["hostnames"] == ["burger.example.com"]
    assert [f["type"] for f in spec["rules"][0]["filters"]] == ["RequestHeaderModifier"]
    assert spec["rules"][0]["matches"][0]["path"]["value"] == "/v2"


def test_only_the_protocol_itself_is_let_through() -> None:
    assert chosen(rendered(EVERYONE), "/shop/burger/metrics", {}) is None
    assert chosen(rendered(EVERYONE), "/shop/burger/v2", {}) is not None
    assert chosen(rendered(EVERYONE), "/shop/burger/v20", {}) is None


def test_grpc_clients_have_hosts_and_a_route_of_their_own() -> None:
    hosts = GatewayAPI(parent_refs=GATEWAY.parent_refs, grpc_hostnames=("grpc.example.com",))
    http, grpc = render(table(EVERYONE), hosts)
    assert (http.kind, grpc.kind) == (RouteKind.HTTP, RouteKind.GRPC)
    assert grpc.spec["hostnames"] == ["grpc.example.com"]
    ports = [route.spec["rules"][0]["backendRefs"][0]["port"] for route in (http, grpc)]
    assert ports == [80, 9000]


def test_a_parent_without_a_namespace_is_in_the_models() -> None:
    (parent,) = rendered(EVERYONE, gateway=GatewayAPI(parent_refs=(ParentRef(name="g"),)))[
        "parentRefs"
    ]
    assert parent["namespace"] == "shop"


def test_what_a_client_sends_under_our_names_is_removed() -> None:
    (rule,) = rendered(EVERYONE)["rules"]
    modifier = rule["filters"][0]["requestHeaderModifier"]
    assert modifier["remove"] == ["x-kohort-revision", "x-kohort-slot"]
    assert [header["name"] for header in modifier["set"]] == ["x-kohort-cohort"]


def test_a_canary_is_known_before_it_has_clients_and_stable_after() -> None:
    for weight in (0, 100):
        everyone = CohortRoute("everyone", (), "burger-1", "burger-2", weight, "salt")
        (rule,) = rendered(everyone)["rules"]
        weights = {ref["name"]: ref["weight"] for ref in rule["backendRefs"]}
        assert weights == {"burger-1": 100 - weight, "burger-2": weight}


@pytest.mark.parametrize("gateway", [GATEWAY, BY_HOST], ids=["by path", "by host"])
def test_a_cohort_that_nobody_can_belong_to_is_no_rule_for_everybody(gateway: GatewayAPI) -> None:
    nobody = cohort("nobody", header("x-org", "acme") + header("x-org", "other"))
    (rule,) = rendered(nobody, EVERYONE, gateway=gateway)["rules"]
    assert rule["filters"][0]["requestHeaderModifier"]["set"][0]["value"] == "everyone"


def test_a_header_that_is_named_twice_must_satisfy_both() -> None:
    both = cohort("both", header("x-org", "a", "b") + header("x-org", "b", "c"))
    assert [h["value"] for h in rendered(both, EVERYONE)["rules"][0]["matches"][0]["headers"]] == [
        "b"
    ]


def test_a_later_cohort_with_more_headers_is_refused_with_what_to_do() -> None:
    staff = cohort("staff", header("x-org", "acme"))
    shops = cohort("shops", header("x-region", "es") + header("x-app", "till"))
    told = refusal(staff, shops, EVERYONE)
    assert "put shops before staff" in told
    assert "x-org: acme" in told
    assert "x-region: es" in told
    render(table(shops, staff, EVERYONE), GATEWAY)


def test_a_later_cohort_with_more_headers_is_fine_if_no_request_matches_both() -> None:
    staff = cohort("staff", header("x-org", "acme"))
    shops = cohort("shops", header("x-org", "other") + header("x-app", "till"))
    assert len(rendered(staff, shops, EVERYONE)["rules"]) == 3


def test_values_beyond_the_limit_of_a_rule_are_refused_before_they_are_written_out() -> None:
    many = tuple(f"v{number}" for number in range(64))
    eight = tuple(HeaderMatch(f"x-{number}", many) for number in range(8))
    told = refusal(cohort("big", eight), EVERYONE)
    assert f"cohort big needs {64**8} matches" in told


def test_values_beyond_the_limit_of_a_route_are_refused() -> None:
    many = tuple(f"v{number}" for number in range(64))
    first = cohort("a", header("x-a", *many))
    fits = rendered(first, cohort("b", header("x-b", *many[:63])), EVERYONE, gateway=BY_HOST)
    assert [len(rule["matches"]) for rule in fits["rules"]] == [64, 63, 1]
    second = cohort("b", header("x-b", *many))
    assert "129 matches" in refusal(first, second, EVERYONE, gateway=BY_HOST)


def test_a_route_by_path_has_one_match_in_each_rule_and_says_that_hosts_allow_more() -> None:
    values = tuple(f"v{number}" for number in range(15))
    assert len(rendered(cohort("a", header("x-a", *values)), EVERYONE)["rules"]) == 16
    assert "hostnames" in refusal(cohort("a", header("x-a", *values, "more")), EVERYONE)


def test_cohorts_beyond_the_limit_of_a_route_are_refused() -> None:
    some = [cohort(f"c{number}", header("x-org", f"o{number}")) for number in range(16)]
    assert "17 cohorts" in refusal(*some, EVERYONE)


def test_a_model_whose_paths_are_taken_needs_hosts() -> None:
    with pytest.raises(NotExpressible, match="hostnames"):
        render(table(EVERYONE, key=ModelKey("v2", "burger")), GATEWAY)
