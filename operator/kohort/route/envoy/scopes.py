"""How a gateway finds a model's route table, and how it gets the next one before anybody is led there.

A gateway looks up the scope by ``,/NAMESPACE/NAME`` for a call by path and by ``HOST,`` for a call by
host (see the gateway's listener). All scopes of a model lead to the table that is in force. One more,
the stage, leads to the next one: a gateway fetches and reads it for its sake, so that what is left to do
for a change of the split is to lead the other scopes there, a few hundred bytes.
"""

from __future__ import annotations

from envoy.config.route.v3 import scoped_route_pb2

from kohort.route.address import hosts, path_prefix
from kohort.route.envoy.resource import Kind, Resource, resource
from kohort.route.table import ModelKey

STAGE = "stage"

_Scope = scoped_route_pb2.ScopedRouteConfiguration


def routes_name(key: ModelKey, version: str) -> str:
    """The name of a route configuration: every version of a model's table is one of its own."""
    return f"{key}/{version}"


def scopes(key: ModelKey, version: str) -> tuple[Resource, ...]:
    """All ways by which clients come to a version of a model's table."""
    ways = [f"{host}," for host in hosts(key)]
    if (prefix := path_prefix(key)) is not None:
        ways.insert(0, f",{prefix}")
    return tuple(_scope(f"{key}/{way}", routes_name(key, version), way) for way in ways)


def stage(key: ModelKey, version: str) -> Resource:
    """A way to a table that no request can take: a key that gateways make has a comma."""
    return _scope(f"{key}/{STAGE}", routes_name(key, version), f"{key}/{STAGE}")


def _scope(name: str, table: str, way: str) -> Resource:
    key = _Scope.Key(fragments=[_Scope.Key.Fragment(string_key=way)])
    return resource(Kind.SCOPE, name, _Scope(name=name, route_configuration_name=table, key=key))
