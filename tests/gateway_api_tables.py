"""Route tables of any shape, and which rule of a rendered route a request takes by the specification."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from kohort.api.routing import GatewayAPI, ParentRef
from kohort.route.gateway_api.matches import RULES
from kohort.route.table import CohortRoute, HeaderMatch, ModelKey, RouteTable

KEY = ModelKey("shop", "burger")
Json = dict[str, Any]

# Few, so that cohorts overlap often; some with characters that only look like patterns.
NAMES = ("x-org", "x-region", "x-app", "x_under.score", "!#$&'*+.^_|~-")
VALUES = ("acme", "es", "fr", "a, b", ".*", '"quoted" \\ {x}', "v" * 256)


def header_matches(names: tuple[str, ...] = NAMES) -> st.SearchStrategy[HeaderMatch]:
    """A header with one to four accepted values, as written: repetitions included."""
    values = st.lists(st.sampled_from(VALUES), min_size=1, max_size=4).map(tuple)
    return st.builds(HeaderMatch, st.sampled_from(names), values)


@st.composite
def cohort_routes(draw: st.DrawFn, number: int, last: bool) -> CohortRoute:
    """One cohort, in a rollout or not."""
    headers = st.lists(header_matches(), min_size=1, max_size=3).map(tuple)
    matches = () if last else draw(st.lists(headers, min_size=1, max_size=3).map(tuple))
    canary = draw(st.sampled_from(("", "burger-22222222")))
    weight = draw(st.integers(0, 100)) if canary else 0
    return CohortRoute(f"c{number}", matches, "burger-11111111", canary, weight, "salt")


@st.composite
def tables(draw: st.DrawFn, most: int = RULES + 2) -> RouteTable:
    """A table with a catch-all cohort at its end; also such as no route can hold."""
    count = draw(st.integers(0, most - 1))
    cohorts = [draw(cohort_routes(number, last=False)) for number in range(count)]
    return RouteTable(KEY, "x-client-id", (*cohorts, draw(cohort_routes(count, last=True))))


def gateways() -> st.SearchStrategy[GatewayAPI]:
    """Any way to name gateways and hosts."""
    parents = st.sampled_from(
        (
            (ParentRef(name="public"),),
            (ParentRef(name="public", namespace="infra", section_name="https"),),
            (ParentRef(name="public"), ParentRef(name="public", namespace="infra")),
            (ParentRef(name="a", section_name="one"), ParentRef(name="a", section_name="two.x")),
        )
    )
    hosts = st.sampled_from(((), ("burger.example.com",), ("*.example.com", "a.b.example.org")))
    return st.builds(
        GatewayAPI,
        parent_refs=parents,
        hostnames=hosts,
        grpc_hostnames=st.sampled_from(((), ("grpc.example.com",))),
    )


def chosen(spec: Json, path: str, headers: dict[str, str]) -> Json | None:
    """The rule that a conformant gateway takes: the longest prefix, the most headers, the first one."""
    best: tuple[int, int, int] | None = None
    for number, rule in enumerate(spec["rules"]):
        for match in rule["matches"]:
            prefix = match.get("path", {}).get("value", "/")
            inside = path == prefix or path.startswith(prefix.rstrip("/") + "/")
            held = all(headers.get(h["name"]) == h["value"] for h in match["headers"])
            rank = (len(prefix), len(match["headers"]), -number)
            if inside and held and (best is None or rank > best):
                best = rank
    return None if best is None else spec["rules"][-best[2]]


def cohort_of(table: RouteTable, headers: dict[str, str]) -> CohortRoute:
    """The first cohort that a request belongs to, as Kohort means it."""
    return next(
        cohort
        for cohort in table.cohorts
        if not cohort.matches
        or any(all(headers.get(h.name) in h.values for h in match) for match in cohort.matches)
    )
