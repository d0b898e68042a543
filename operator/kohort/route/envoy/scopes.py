"""How a gateway finds a model's route table, and how it gets the next one before anybody is led there.

A gateway looks up the scope by the first two segments of ``HEADER_SCOPE``: the path's own for a call
by path, ``HOST/-`` for a call by host. All scopes of a model lead to the table that is in force. One more,
the stage, leads to the next one: a gateway fetches and reads it for its sake, so that what is left to do
for a change of the split is to lead the other scopes there, a few hundred bytes.
"""

from __future__ import annotations

from envoy.config.route.v3 import scoped_route_pb2

from kohort.route.address import hosts, path_prefix
from kohort.route.envoy.resource import Kind, Resource, resource
from kohort.route.table import ModelKey

SCOPE_BY_HOST = "-"
STAGE = "stage"

_Scope = scoped_route_pb2.ScopedRouteConfiguration


def routes_name(key: ModelKey, version: str) -> str:
    """The name of a route configuration: every version of a model's table is one of its own."""
    return f"{key}/{version}"


def scopes(key: ModelKey, version: str) -> tuple[Resource, ...]:
    """All ways by which clients come to a version of a model's table."""
    segments = [(host, SCOPE_BY_HOST) for host in hosts(key)]
    if path_prefix(key) is not None:
        segments.insert(0, (key.namespace, key.name))
    return tuple(
        _scope(f"{key}/{first}/{second}", routes_name(key, version), first, second)
        for first, second in segments
    )


def stage(key: ModelKey, version: str) -> Resource:
    """A way to a table that no request can take.

    Gateways cut ``HEADER_SCOPE`` at every slash, so that none of its segments is equal to a key with one.
    """
    return _scope(f"{key}/{STAGE}", routes_name(key, version), str(key), STAGE)


def _scope(name: str, table: str, first: str, second: str) -> Resource:
    fragment = _Scope.Key.Fragment
    key = _Scope.Key(fragments=[fragment(string_key=first), fragment(string_key=second)])
    return resource(Kind.SCOPE, name, _Scope(name=name, route_configuration_name=table, key=key))
