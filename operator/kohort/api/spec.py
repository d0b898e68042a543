"""What a user may ask for: the spec of a ModelDeployment, its defaults and its rules.

The CRD is generated from these types (``python -m kohort.api.crd``); a description becomes the text
of ``kubectl explain`` and a rule becomes an ``x-kubernetes-validations`` entry.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, field

from kohort.api.base import SpecStruct, rules
from kohort.api.quantity import Duration, Percent
from kohort.api.routing import HeaderName, HeaderValue, Preview, Route

Name = Annotated[str, Meta(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=40)]


class EngineType(StrEnum):
    """What runs the model."""

    AUTO = "Auto"
    ONNX_RUNTIME = "ONNXRuntime"


class MetricName(StrEnum):
    """A metric that can decide."""

    ERRORS = "errors"


class Until(StrEnum):
    """Evidence that a step waits for."""

    NON_INFERIOR = "NonInferior"


class Model(SpecStruct, frozen=True):
    """The model to serve."""

    uri: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2048,
            description="Where the model is: file:///PATH (a path inside the pod) or http(s)://…",
            extra_json_schema=rules(
                (
                    "self.startsWith('file:///') || self.startsWith('http://') || self.startsWith('https://')",
                    "uri must start with file:///, http:// or https://",
                ),
                (
                    "!self.matches('^https?://([/?#]|$)')",
                    "uri must name a host after http:// or https://",
                ),
                (
                    "!self.matches('^https?://[^/?#]*@')",
                    "uri must not hold a user or password: it is shown in status and events",
                ),
            ),
        ),
    ]
    digest: Annotated[
        str,
        Meta(
            pattern=r"^(sha256:[0-9a-f]{64})?$",
            max_length=71,
            description="sha256:… of the model file; a file with another digest is never served. "
            "Required for http(s).",
        ),
    ] = ""


class Engine(SpecStruct, frozen=True):
    """How the model is run."""

    type: Annotated[
        EngineType,
        Meta(description="Auto takes the fastest engine that the pod's hardware has."),
    ] = EngineType.AUTO


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


class HeaderMatch(SpecStruct, frozen=True):
    """A header that must have one of the given values exactly."""

    name: HeaderName
    value: Annotated[HeaderValue | None, Meta(description="The one value that matches.")] = None
    values: Annotated[
        tuple[HeaderValue, ...],
        Meta(max_length=64, description="The values of which one must match."),
    ] = ()

    def accepted(self) -> tuple[str, ...]:
        """The values that match, however they were written."""
        return self.values if self.value is None else (self.value, *self.values)


class Match(SpecStruct, frozen=True):
    """All of these must hold."""

    headers: Annotated[
        tuple[
            Annotated[
                HeaderMatch,
                Meta(
                    extra_json_schema=rules(
                        (
                            "has(self.value) != (has(self.values) && self.values.size() > 0)",
                            "set either value or values",
                        ),
                        (
                            "!self.name.startsWith('x-kohort-')",
                            "headers that start with x-kohort- are written by the gateway; "
                            "match on another one",
                        ),
                    )
                ),
            ],
            ...,
        ],
        Meta(min_length=1, max_length=8, description="Headers that must all match."),
    ]


class OnFailure(StrEnum):
    """Who goes back when one cohort's clients are worse off."""

    ROLL_BACK_COHORT = "RollBackCohort"
    ROLL_BACK_ALL = "RollBackAll"


class Pause(SpecStruct, frozen=True):
    """A wait for a person, who goes on with ``kubectl kohort promote``."""


class Mirror(SpecStruct, frozen=True):
    """A comparison of answers that no client sees."""

    percent: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Percentage of the cohort's requests that stable and the new revision answer once "
            "more, for a comparison alone: stable has as much more to do.",
        ),
    ]


class Step(SpecStruct, frozen=True):
    """A canary weight, and how long or on what evidence it is held."""

    weight: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Percentage of the cohort's clients on the new revision; at 0 its pods are ready "
            "and no client has it.",
        ),
    ]
    hold: Annotated[
        Duration | None,
        Meta(
            description="Go on after this long without evidence of harm; paused time does not count."
        ),
    ] = None
    until: Annotated[
        Until | None,
        Meta(
            description="Go on once the new revision is proven to be not worse than the margin allows."
        ),
    ] = None
    pause: Annotated[
        Pause | None,
        Meta(
            description="Written {}: wait for a person, who goes on with kubectl kohort promote. Evidence "
            "of harm sends the cohort back meanwhile."
        ),
    ] = None
    mirror: Annotated[
        Mirror | None,
        Meta(
            description="At weight 0: compare the answers of both revisions to some of the cohort's "
            "requests. A new revision that fails where stable does not goes back; answers that differ are "
            "told."
        ),
    ] = None


class Cohort(SpecStruct, frozen=True):
    """A named subset of clients with a rollout of its own."""

    name: Annotated[Name, Meta(description="Name, unique in the list.")]
    match: Annotated[
        tuple[Match, ...],
        Meta(
            max_length=16,
            description="A client belongs to the first cohort of which one entry matches. Without "
            "entries everybody else: the last cohort must be such a one.",
        ),
    ] = ()
    after: Annotated[
        tuple[Name, ...],
        Meta(
            max_length=16,
            description="Cohorts that must have been promoted before this one starts.",
        ),
    ] = ()
    steps: Annotated[
        tuple[
            Annotated[
                Step,
                Meta(
                    extra_json_schema=rules(
                        (
                            "[has(self.hold), has(self.until), has(self.pause)].filter(given, given)"
                            ".size() <= 1",
                            "set one of hold, until and pause; use several steps of the same weight for "
                            "more",
                        ),
                        (
                            "self.weight > 0 || has(self.hold) || has(self.pause)",
                            "a step of weight 0 needs hold or pause: nothing else happens in it",
                        ),
                        (
                            "!has(self.until) || (self.weight >= 4 && self.weight <= 96)",
                            "a proof needs clients in at least 8 of the 256 slots on either side: "
                            "use until at weights from 4 to 96",
                        ),
                        (
                            "self.weight == 0 || !has(self.mirror)",
                            "mirror belongs to a step of weight 0: with clients on it the new revision is "
                            "judged by their answers",
                        ),
                    )
                ),
            ],
            ...,
        ],
        Meta(
            min_length=1,
            max_length=16,
            description="Weights in rising order. After the last one the new revision is promoted.",
            extra_json_schema=rules(
                (
                    "self.all(i, s, i == 0 || self[i - 1].weight <= s.weight)",
                    "step weights must not fall; to go back, apply the former model",
                )
            ),
        ),
    ] = field(
        default_factory=lambda: (
            Step(weight=5, hold="1m"),
            Step(weight=25, hold="2m"),
            Step(weight=50, hold="2m"),
        )
    )


class Metric(SpecStruct, frozen=True):
    """A metric on which the new revision is compared with the cohort's own stable revision."""

    name: Annotated[
        MetricName,
        Meta(
            description="errors: answers 5xx, 4xx (except 401, 403, 404, 408, 429), resets and time-outs."
        ),
    ]
    margin: Annotated[
        Percent,
        Meta(
            description="For until NonInferior: the failed share may be higher by less than this, in "
            "percentage points."
        ),
    ] = "1%"


class Analysis(SpecStruct, frozen=True):
    """What decides, and how sure it must be."""

    false_rollback: Annotated[
        Percent,
        Meta(
            description="Greatest chance that a rollout of a harmless revision is rolled back anywhere, "
            "however long it is watched.",
            extra_json_schema=rules(
                (
                    "double(self.replace('%', '')) >= 0.0001 && double(self.replace('%', '')) <= 20.0",
                    "falseRollback must be between 0.0001% and 20%",
                )
            ),
        ),
    ] = "1%"
    false_promotion: Annotated[
        Percent,
        Meta(
            description="Greatest chance that until NonInferior passes a revision that is worse by the "
            "margin.",
            extra_json_schema=rules(
                (
                    "double(self.replace('%', '')) >= 0.0001 && double(self.replace('%', '')) <= 20.0",
                    "falsePromotion must be between 0.0001% and 20%",
                )
            ),
        ),
    ] = "5%"
    metrics: Annotated[
        tuple[Metric, ...], Meta(min_length=1, max_length=8, description="The metrics that decide.")
    ] = field(default_factory=lambda: (Metric(name=MetricName.ERRORS),))


class Spec(SpecStruct, frozen=True):
    """The desired state of a ModelDeployment."""

    model: Annotated[
        Model,
        Meta(
            description="The model. Another uri or digest is a new revision.",
            extra_json_schema=rules(
                (
                    "self.uri.startsWith('file:') || (has(self.digest) && self.digest != '')",
                    "a model from http(s) can change under you: set digest to sha256:… of the file",
                )
            ),
        ),
    ]
    engine: Annotated[Engine, Meta(description="How the model is run.")] = field(
        default_factory=Engine
    )
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
        tuple[Cohort, ...],
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
    analysis: Annotated[Analysis, Meta(description="What decides.")] = field(
        default_factory=Analysis
    )
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
