"""How clients reach a model: the part of the spec that names gateways."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, field

from kohort.api.base import SpecStruct, rules
from kohort.api.quantity import Duration


class RouteType(StrEnum):
    """Who splits the traffic."""

    ENVOY = "Envoy"
    GATEWAY_API = "GatewayAPI"


HeaderName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9!#$&'*+.^_|~-]+$",
        min_length=1,
        max_length=64,
        description="Name of an HTTP header or gRPC metadata key, in lower case.",
    ),
]
HeaderValue = Annotated[str, Meta(min_length=1, max_length=256)]

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
Hostname = Annotated[
    str,
    Meta(
        pattern=rf"^(\*\.)?{_LABEL}(\.{_LABEL})*$",
        min_length=1,
        max_length=253,
    ),
]


class ParentRef(SpecStruct, frozen=True):
    """A Gateway, or one listener of it."""

    name: Annotated[str, Meta(min_length=1, max_length=253, description="Name of the Gateway.")]
    namespace: Annotated[
        str,
        Meta(
            pattern=f"^({_LABEL})?$",
            max_length=63,
            description="Its namespace; the ModelDeployment's when empty.",
        ),
    ] = ""
    section_name: Annotated[
        str,
        Meta(
            pattern=rf"^({_LABEL}(\.{_LABEL})*)?$",
            max_length=253,
            description="The one listener to attach to; all when empty.",
        ),
    ] = ""


# A word that CEL reserves is written with underscores.
_SAME_GATEWAY = "p.name == q.name && p.__namespace__ == q.__namespace__"


class GatewayAPI(SpecStruct, frozen=True):
    """How a gateway that implements the Gateway API is asked to split traffic."""

    parent_refs: Annotated[
        tuple[ParentRef, ...],
        Meta(
            min_length=1,
            max_length=8,
            description="The Gateways that clients come through. Each has to accept the routes before a "
            "weight counts as moved.",
            extra_json_schema=rules(
                (
                    f"self.all(p, self.exists_one(q, {_SAME_GATEWAY}"
                    " && p.sectionName == q.sectionName))",
                    "parentRefs names a listener twice; remove one of them",
                ),
                (
                    f"self.all(p, p.sectionName != '' || self.exists_one(q, {_SAME_GATEWAY}))",
                    "parentRefs names a Gateway more than once: set sectionName in each",
                ),
            ),
        ),
    ]
    hostnames: Annotated[
        tuple[Hostname, ...],
        Meta(
            max_length=16,
            description="Hosts that belong to this model alone, called with /v2/…; without them it is "
            "called by path, /NAMESPACE/NAME/v2/…, at any host.",
        ),
    ] = ()
    grpc_hostnames: Annotated[
        tuple[Hostname, ...],
        Meta(
            max_length=16,
            description="Hosts that gRPC clients of this model call; a Gateway takes either HTTP or gRPC "
            "routes for a host.",
        ),
    ] = ()
    settle: Annotated[
        Duration,
        Meta(
            description="How long proxies may take to follow a route that their Gateway has accepted, and "
            "to learn of pods that have become ready."
        ),
    ] = "2s"
    steps_by_time: Annotated[
        bool,
        Meta(
            description="Let time alone end the steps. Kohort cannot read the counters of such a gateway, "
            "so without this a rollout stays on its first step below 100%."
        ),
    ] = False


class Preview(SpecStruct, frozen=True):
    """How a request asks for the revision that its cohort is about to get."""

    header: Annotated[
        HeaderName,
        Meta(
            description="A request with this header reaches its cohort's canary as soon as one is ready, "
            "also at weight 0, and is no evidence; without a ready canary it is one like any other.",
            extra_json_schema=rules(
                (
                    "!self.startsWith('x-kohort-')",
                    "headers that start with x-kohort- are written by the gateway; name another one",
                )
            ),
        ),
    ]
    value: Annotated[
        HeaderValue | None, Meta(description="The one value that asks; any does without it.")
    ] = None

    def accepted(self) -> tuple[str, ...]:
        """The values that ask; none when any does."""
        return () if self.value is None else (self.value,)


class Route(SpecStruct, frozen=True):
    """How clients reach the model."""

    type: Annotated[
        RouteType,
        Meta(
            description="Envoy: Kohort's own gateways. GatewayAPI: a gateway of yours, by HTTPRoute and "
            "GRPCRoute, without sticky clients and without evidence.",
            extra_json_schema=rules(
                (
                    "self == oldSelf",
                    "route.type cannot be changed while clients are served: make a ModelDeployment of "
                    "another name, move the clients, and delete this one",
                )
            ),
        ),
    ] = RouteType.ENVOY
    gateway_api: Annotated[
        GatewayAPI | None,
        Meta(description="Required for type GatewayAPI, and for no other."),
    ] = field(default=None, name="gatewayAPI")
