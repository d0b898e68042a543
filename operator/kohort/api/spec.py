"""What a user may ask for: the spec of a ModelDeployment, its defaults and its rules.

The CRD is generated from these types (``python -m kohort.api.crd``); a description becomes the text
of ``kubectl explain`` and a rule becomes an ``x-kubernetes-validations`` entry.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, field

from kohort.api.analysis import Analysis
from kohort.api.base import SpecStruct, rules
from kohort.api.cohorts import COHORT_RULES, Cohort
from kohort.api.engine import ENGINE_RULES, Engine
from kohort.api.model import MODEL_RULES, Model
from kohort.api.quantity import Duration
from kohort.api.routing import HeaderName, Preview, Route


class GPUCapacity(StrEnum):
    """Where a new revision's GPUs come from."""

    SURGE = "Surge"
    SWAP = "Swap"


class GPU(SpecStruct, frozen=True):
    """The GPUs of each pod."""

    count: Annotated[int, Meta(ge=1, le=16, description="GPUs of each pod.")] = 1
    resource: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
            max_length=128,
            description="The extended resource that is asked for: nvidia.com/gpu, a MIG profile like "
            "nvidia.com/mig-1g.10gb, or a shared one like nvidia.com/gpu.shared.",
        ),
    ] = "nvidia.com/gpu"
    products: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=63)], ...],
        Meta(
            max_length=16,
            description="Values of the node label nvidia.com/gpu.product that will do; empty: any.",
        ),
    ] = ()
    claim_template: Annotated[
        str,
        Meta(
            pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$",
            max_length=253,
            description="Name of a ResourceClaimTemplate of the namespace, of which each pod gets a "
            "claim, instead of count, resource and products.",
        ),
    ] = ""
    capacity: Annotated[
        GPUCapacity,
        Meta(
            description="Surge: a new revision's pods are extra. Swap: there are no spare GPUs, so the "
            "stable revision gives up as many pods as the new one gets, a few at a time."
        ),
    ] = GPUCapacity.SURGE


class ClientKey(SpecStruct, frozen=True):
    """What tells one client from another, so that a client stays on one revision."""

    header: Annotated[
        HeaderName,
        Meta(
            description="Header with the client's identity. A request without it is told apart by its "
            "source address.",
            extra_json_schema=rules(
                (
                    "!self.startsWith('x-kohort-')",
                    "headers that start with x-kohort- are written by the gateway; name another one",
                )
            ),
        ),
    ] = "x-client-id"


class OnFailure(StrEnum):
    """Who goes back when one cohort's clients are worse off."""

    ROLL_BACK_COHORT = "RollBackCohort"
    ROLL_BACK_ALL = "RollBackAll"


class Spec(SpecStruct, frozen=True):
    """The desired state of a ModelDeployment."""

    model: Annotated[
        Model,
        Meta(
            description="The model. Another uri or digest is a new revision.",
            extra_json_schema=rules(*MODEL_RULES),
        ),
    ]
    engine: Annotated[
        Engine,
        Meta(description="How the model is run.", extra_json_schema=rules(*ENGINE_RULES)),
    ] = field(default_factory=Engine)
    replicas: Annotated[
        int,
        Meta(ge=1, le=1000, description="Pods of a revision that has all of a cohort's clients."),
    ] = 1
    gpu: Annotated[
        GPU | None,
        Meta(
            description="GPUs of each pod; none without it.",
            extra_json_schema=rules(
                (
                    "!has(self.claimTemplate) || self.claimTemplate == '' || (self.count == 1"
                    " && self.resource == 'nvidia.com/gpu' && self.products.size() == 0)",
                    "with claimTemplate, the ResourceClaimTemplate says which devices and how many: "
                    "leave out count, resource and products",
                )
            ),
        ),
    ] = None
    template: Annotated[
        dict[str, Any],
        Meta(
            description="Overlay on the pod template (metadata, spec), merged like kubectl apply: lists of "
            "containers, env, volumes by name. The container that serves is called server.",
            extra_json_schema={"x-kubernetes-preserve-unknown-fields": True},
        ),
    ] = field(default_factory=dict)
    client_key: Annotated[ClientKey, Meta(description="What tells one client from another.")] = (
        field(default_factory=ClientKey)
    )
    cohorts: Annotated[
        tuple[Annotated[Cohort, Meta(extra_json_schema=COHORT_RULES)], ...],
        Meta(
            min_length=1,
            max_length=32,
            description="Subsets of clients, matched in order, each with a rollout of its own.",
            extra_json_schema={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                **rules(
                    (
                        "!has(self[self.size() - 1].match) || self[self.size() - 1].match.size() == 0",
                        "the catch-all cohort must be last: the last cohort must have no match, so that "
                        "every client belongs to one",
                    ),
                    (
                        "self.all(i, c, i == self.size() - 1 || (has(c.match) && c.match.size() > 0))",
                        "only the last cohort may be without match: cohorts after it would never get a "
                        "client",
                    ),
                    (
                        "self.all(i, c, !has(c.after) || c.after.all(a, "
                        "self.exists(j, other, j < i && other.name == a)))",
                        "after may only name cohorts that stand earlier in the list",
                    ),
                ),
            },
        ),
    ] = field(default_factory=lambda: (Cohort(name="everyone"),))
    analysis: Annotated[
        Analysis,
        Meta(
            description="What decides.",
            extra_json_schema=rules(
                # A default that leaves all out is not filled in when it is looked at.
                (
                    "has(self.prometheus) || ((!has(self.source) || self.source == 'Gateways') && "
                    "(!has(self.metrics) || self.metrics.all(m, !has(m.counts) && !has(m.score))))",
                    "source Prometheus and metrics with counts or score need prometheus: set prometheus.url",
                ),
                (
                    "!has(self.prometheus) || self.source == 'Prometheus' || "
                    "self.metrics.exists(m, has(m.counts) || has(m.score))",
                    "nothing would be read from prometheus: set source Prometheus, or add a metric with "
                    "counts or score",
                ),
                (
                    "!has(self.metrics) || self.metrics.exists(m, m.name in ['errors', 'latency']) || "
                    "self.metrics.all(m, !has(m.minClients) || m.minClients == 0)",
                    "minClients needs errors or latency among metrics: only gateways count clients",
                ),
            ),
        ),
    ] = field(default_factory=Analysis)
    on_failure: Annotated[
        OnFailure,
        Meta(
            description="RollBackCohort: the others go on. RollBackAll: all of them go back, also those "
            "that were promoted already."
        ),
    ] = OnFailure.ROLL_BACK_COHORT
    route: Annotated[
        Route,
        Meta(
            description="How clients reach the model.",
            extra_json_schema=rules(
                (
                    "(has(self.type) && self.type == 'GatewayAPI') == has(self.gatewayAPI)",
                    "set gatewayAPI with type GatewayAPI, and with no other",
                ),
                (
                    "!has(self.gatewayAPI) || !self.gatewayAPI.grpcHostnames.exists(h, "
                    "h in self.gatewayAPI.hostnames)",
                    "a Gateway takes either HTTP or gRPC routes for a host: give gRPC hosts of its own",
                ),
            ),
        ),
    ] = field(default_factory=Route)
    preview: Annotated[
        Preview | None,
        Meta(
            description="Lets people who know a header try the new revision; without it nobody can."
        ),
    ] = None
    paused: Annotated[
        bool,
        Meta(
            description="Hold every cohort where it is. Evidence of harm still sends a cohort back."
        ),
    ] = False
    keep_warm: Annotated[
        Duration,
        Meta(
            description="How long pods of a former stable revision stay ready for an instant way back."
        ),
    ] = "5m"
    history_limit: Annotated[
        int,
        Meta(
            ge=1,
            le=50,
            description="Revisions on record; those that cohorts refer to do not fall under it.",
        ),
    ] = 10
    progress_deadline: Annotated[
        Duration,
        Meta(
            description="Say Stalled when a new revision is not ready after this long; nothing is undone."
        ),
    ] = "10m"
