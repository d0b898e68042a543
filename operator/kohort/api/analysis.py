"""What decides in a rollout, and how sure it must be: the part of a spec that is about evidence."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, field

from kohort.api.base import SpecStruct, rules
from kohort.api.prometheus import Counts, Prometheus, Score, Source
from kohort.api.quantity import Percent, share


class MetricName(StrEnum):
    """The metrics that gateways count; others are counters in Prometheus, under names of their own."""

    ERRORS = "errors"
    LATENCY = "latency"


class Role(StrEnum):
    """What a metric is for."""

    GUARDRAIL = "Guardrail"
    GOAL = "Goal"
    WATCHED = "Watched"


MARGINS: Mapping[str, str] = {MetricName.ERRORS: "1%", MetricName.LATENCY: "10%"}
"""What is tolerated where nothing else is said: percentage points of requests; percent of durations."""

NOTHING_TOLERATED = "0%"


_SLOTS_APART = (
    "!has(self.slotLabel) || !has(self.sumOver) || !(self.slotLabel in self.sumOver)",
    "slotLabel tells client slots apart: leave it out of sumOver",
)


class Metric(SpecStruct, frozen=True):
    """A metric on which the new revision is compared with the cohort's own stable revision."""

    name: Annotated[
        str,
        Meta(
            pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$",
            max_length=40,
            description="errors: answers 5xx, 4xx (except 401, 403, 404, 408, 429), resets and time-outs. "
            "latency: how long all other answers took, as a whole distribution. Any other: what "
            "counts or score tells.",
        ),
    ]
    role: Annotated[
        Role,
        Meta(
            description="Guardrail: evidence of harm sends the cohort back. Goal: that too, and until "
            "NonInferior waits for its proof. Without any Goal, until NonInferior waits for errors. "
            "Watched: what it says is told, and decides nothing."
        ),
    ] = Role.GUARDRAIL
    margin: Annotated[
        Percent | None,
        Meta(
            description="What is tolerated. errors: for until NonInferior the failed share may be higher by "
            "less than this, in percentage points (1% if absent). latency: a cohort goes back only if "
            "answers take longer by at least this, relative to stable (10% if absent). counts: a cohort "
            "goes back only if it is worse by more than this (0% if absent), and until NonInferior passes if "
            "it is worse by less. score: a cohort goes back only if the share of scores that are worse than "
            "some bound is higher by at least this (0% if absent). See marginType."
        ),
    ] = None
    min_clients: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description="No step ends by hold or until before requests came from this many of the 256 "
            "client slots on the new revision: at least as many clients.",
        ),
    ] = 0
    counts: Annotated[
        Counts | None,
        Meta(
            description="Counters in analysis.prometheus that decide.",
            extra_json_schema=rules(
                ("has(self.good) != has(self.bad)", "give either good or bad, besides total"),
                _SLOTS_APART,
            ),
        ),
    ] = None
    score: Annotated[
        Score | None,
        Meta(
            description="Instead of counts, a histogram in analysis.prometheus that decides.",
            extra_json_schema=rules(
                _SLOTS_APART,
                (
                    "!has(self.sumOver) || !('le' in self.sumOver)",
                    "le tells buckets apart: leave it out of sumOver",
                ),
            ),
        ),
    ] = None

    @property
    def queried(self) -> Counts | Score | None:
        """What is asked for in Prometheus, if anything."""
        return self.counts or self.score

    @property
    def tolerated(self) -> str:
        """The margin as it is written."""
        return self.margin or MARGINS.get(self.name, NOTHING_TOLERATED)

    @property
    def allowed(self) -> float:
        """The margin as a share."""
        return share(self.tolerated)


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
        tuple[
            Annotated[
                Metric,
                Meta(
                    extra_json_schema=rules(
                        (
                            "self.name != 'latency' || !has(self.role) || self.role != 'Goal'",
                            "latency can only be a Guardrail: until NonInferior can prove errors alone",
                        ),
                        (
                            "self.name != 'errors' || !has(self.margin) || "
                            "double(self.margin.replace('%', '')) <= 100.0",
                            "margin of errors is in percentage points of requests: at most 100%",
                        ),
                        (
                            "self.name in ['errors', 'latency'] || has(self.counts) != has(self.score)",
                            "gateways count errors and latency alone: a metric of another name needs either "
                            "counts, its counters in Prometheus, or score, its histogram there",
                        ),
                        (
                            "!(has(self.counts) || has(self.score)) || "
                            "!(self.name in ['errors', 'latency', 'mirror'])",
                            "errors, latency and mirror are what Kohort counts itself: give the metric with "
                            "counts or score another name",
                        ),
                        (
                            "!has(self.score) || !has(self.role) || self.role != 'Goal'",
                            "score can only be a Guardrail: until NonInferior proves errors and counts alone",
                        ),
                        (
                            "!has(self.counts) || !has(self.role) || self.role != 'Goal' || "
                            "has(self.margin)",
                            "a Goal with counts needs margin: until NonInferior proves that it is worse by "
                            "less than that (0%: that it is better)",
                        ),
                        (
                            "!(has(self.counts) || has(self.score)) || !has(self.margin) || "
                            "double(self.margin.replace('%', '')) < 100.0",
                            "margin of counts and score must be below 100%: nothing could be so much worse",
                        ),
                    )
                ),
            ],
            ...,
        ],
        Meta(
            min_length=1,
            max_length=8,
            description="The metrics that decide.",
            extra_json_schema={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                **rules(
                    (
                        "self.exists(m, !has(m.role) || m.role != 'Watched')",
                        "every metric is Watched, and none decides: make one a Guardrail",
                    )
                ),
            },
        ),
    ] = field(
        default_factory=lambda: (Metric(name=MetricName.ERRORS), Metric(name=MetricName.LATENCY))
    )
    source: Annotated[
        Source,
        Meta(
            description="Where errors and latency are read: from the Gateways themselves, or from the "
            "Prometheus that scrapes them."
        ),
    ] = Source.GATEWAYS
    prometheus: Annotated[
        Prometheus | None, Meta(description="Where counters are that gateways do not tell.")
    ] = None

    @property
    def deciding(self) -> tuple[Metric, ...]:
        """The metrics that decide anything."""
        return tuple(m for m in self.metrics if m.role is not Role.WATCHED)

    @property
    def goals(self) -> frozenset[str]:
        """The metrics whose proof ``until: NonInferior`` waits for."""
        named = frozenset(m.name for m in self.metrics if m.role is Role.GOAL)
        return named or frozenset({MetricName.ERRORS})

    @property
    def in_prometheus(self) -> tuple[Metric, ...]:
        """The metrics that are read in Prometheus."""
        return tuple(m for m in self.metrics if m.queried is not None)
