"""A model's route table as HTTPRoute and GRPCRoute: one route for all cohorts, a rule for each.

One route and not one for each cohort, because of matches that are equally specific a gateway takes the
oldest *route's*, whatever the cohorts' order, and because one write moves all weights at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kohort.api.routing import GatewayAPI, ParentRef
from kohort.contract import HEADER_COHORT, HEADER_REVISION, HEADER_SLOT, PROTOCOL_SEGMENT
from kohort.route.address import path_prefix
from kohort.route.gateway_api.matches import Exact, NotExpressible, rules
from kohort.route.table import CohortRoute, ModelKey, RouteTable

Json = dict[str, Any]

GROUP = "gateway.networking.k8s.io"
API_VERSION = f"{GROUP}/v1"
PORT_HTTP, PORT_GRPC = 80, 9000
"""Ports of a revision's Service."""

PROTOCOL_PATH = f"/{PROTOCOL_SEGMENT}"


class RouteKind(Enum):
    """A kind of route, with the plural that its URL has."""

    HTTP = "HTTPRoute", "httproutes"
    GRPC = "GRPCRoute", "grpcroutes"

    @property
    def kind(self) -> str:
        """As in a manifest."""
        return self.value[0]

    @property
    def plural(self) -> str:
        """As in a URL."""
        return self.value[1]


@dataclass(frozen=True)
class Rendered:
    """A route's spec, with every field that Kohort writes."""

    kind: RouteKind
    spec: Json


def render(table: RouteTable, gateway: GatewayAPI) -> tuple[Rendered, ...]:
    """The routes of a model; all of them have its name.

    Raises:
        NotExpressible: no route means what the table means.
    """
    parents = parent_refs(table.key, gateway)
    prefix = _prefix(table, gateway)

    rewrites = _rewrites(prefix)

    def written(match: Callable[[Exact], Json], port: int, *rewrites: Json) -> list[Json]:
        return [
            {
                "matches": [match(alternative) for alternative in alternatives],
                "filters": [_cohort_header(cohort), *rewrites],
                "backendRefs": _backend_refs(cohort, port),
            }
            for cohort, alternatives in rules(_cohorts(table), one_match_each=bool(rewrites))
        ]

    http = written(lambda headers: _http_match(prefix, headers), PORT_HTTP, *rewrites)
    routes = [_rendered(RouteKind.HTTP, parents, gateway.hostnames, http)]
    if gateway.grpc_hostnames:
        grpc = written(_grpc_match, PORT_GRPC)
        routes.append(_rendered(RouteKind.GRPC, parents, gateway.grpc_hostnames, grpc))
    return tuple(routes)


def parent_refs(key: ModelKey, gateway: GatewayAPI) -> list[Json]:
    """The Gateways that a model's routes are attached to, each with its namespace."""
    return [_parent(key.namespace, parent) for parent in gateway.parent_refs]


def backends(cohort: CohortRoute) -> dict[str, int]:
    """Percentage of a cohort's requests by revision, 100 in all.

    A canary is there from its start, with 0, so that gateways know its pods before they send there.
    """
    if not cohort.canary:
        return {cohort.stable: 100}
    return {cohort.stable: 100 - cohort.weight, cohort.canary: cohort.weight}


def _cohorts(table: RouteTable) -> tuple[CohortRoute, ...]:
    """The cohorts, each behind its preview.

    Previews are there outside a rollout too: a table that a route cannot hold is then refused before it
    has to move a weight, and the match with one header more is never another cohort's.
    """
    if table.preview is None:
        return table.cohorts
    return tuple(c for cohort in table.cohorts for c in (cohort.previewed(table.preview), cohort))


def _rendered(
    kind: RouteKind, parents: list[Json], hostnames: tuple[str, ...], written: list[Json]
) -> Rendered:
    spec = {"parentRefs": parents, "hostnames": list(hostnames), "rules": written}
    return Rendered(kind, spec)


def _parent(namespace: str, parent: ParentRef) -> Json:
    reference = {
        "group": GROUP,
        "kind": "Gateway",
        "namespace": parent.namespace or namespace,
        "name": parent.name,
    }
    return reference | ({"sectionName": parent.section_name} if parent.section_name else {})


def _prefix(table: RouteTable, gateway: GatewayAPI) -> str:
    """What the path of every call begins with; nothing but the protocol's own paths is let through."""
    if gateway.hostnames:
        return PROTOCOL_PATH
    prefix = path_prefix(table.key)
    if prefix is None:
        raise NotExpressible(
            f"a model in the namespace {table.key.namespace} cannot be called by path: "
            "set route.gatewayAPI.hostnames"
        )
    return prefix + PROTOCOL_PATH


def _rewrites(prefix: str) -> list[Json]:
    if prefix == PROTOCOL_PATH:
        return []
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": PROTOCOL_PATH}
    return [{"type": "URLRewrite", "urlRewrite": {"path": path}}]


def _http_match(prefix: str, headers: Exact) -> Json:
    return {"path": {"type": "PathPrefix", "value": prefix}, "headers": _header_matches(headers)}


def _grpc_match(headers: Exact) -> Json:
    return {"headers": _header_matches(headers)}


def _header_matches(headers: Exact) -> list[Json]:
    return [{"type": "Exact", "name": name, "value": value} for name, value in headers]


def _cohort_header(cohort: CohortRoute) -> Json:
    """The cohort's name for the pods; what else a client may have sent under our names goes.

    Which revision was taken cannot be said: a header for each backend is no portable feature.
    """
    return {
        "type": "RequestHeaderModifier",
        "requestHeaderModifier": {
            "set": [{"name": HEADER_COHORT, "value": cohort.name}],
            "remove": [HEADER_REVISION, HEADER_SLOT],
        },
    }


def _backend_refs(cohort: CohortRoute, port: int) -> list[Json]:
    return [
        {"group": "", "kind": "Service", "name": revision, "port": port, "weight": weight}
        for revision, weight in backends(cohort).items()
    ]
