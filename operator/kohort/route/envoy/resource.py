"""One piece of Envoy configuration: named, versioned by its content, serialized once for all gateways."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf.message import Message

from kohort.route.table import ModelKey


class Kind(StrEnum):
    """The type of a resource, as Envoy names it."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    SCOPE = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"


@dataclass(frozen=True)
class Resource:
    """A serialized resource; ``version`` is equal for equal content, on every replica."""

    kind: Kind
    name: str
    version: str
    content: bytes


def resource(kind: Kind, name: str, message: Message) -> Resource:
    """Serialize a message; maps are put in order, so that equal messages have equal versions."""
    content = message.SerializeToString(deterministic=True)
    return Resource(kind, name, hashlib.blake2b(content, digest_size=8).hexdigest(), content)


def owner(name: str) -> ModelKey:
    """The model that a resource belongs to: names start with NAMESPACE/NAME."""
    namespace, model, *_ = (*name.split("/"), "", "")
    return ModelKey(namespace, model)
