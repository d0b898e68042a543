"""Who gets a new revision when: the part of a spec that is about clients and steps."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, field

from kohort.api.base import SpecStruct, rules
from kohort.api.quantity import Duration
from kohort.api.routing import HeaderName, HeaderValue

Name = Annotated[str, Meta(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=40)]


class Until(StrEnum):
    """Evidence that a step waits for."""

    NON_INFERIOR = "NonInferior"
    PASS = "Pass"  # noqa: S105


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
            description="NonInferior: go on once the new revision is proven to be not worse than the margin "
            "allows. Pass: go on after hold if nothing speaks against it, and harm of the margin would "
            "have been seen four times out of five."
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


class Holdback(SpecStruct, frozen=True):
    """A few clients that stay on the former revision for a while, so that it can still be compared."""

    weight: Annotated[
        int,
        Meta(
            ge=1,
            le=50,
            description="Percentage of the cohort's clients that stay on the former revision.",
        ),
    ]
    time: Annotated[
        Duration,
        Meta(
            description="They stay for this long; the former revision keeps all of its pods meanwhile."
        ),
    ] = field(name="for")


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
                            "[has(self.hold) && !(has(self.until) && self.until == 'Pass'), "
                            "has(self.until), has(self.pause)].filter(given, given).size() <= 1",
                            "set one of hold, until and pause; use several steps of the same weight for "
                            "more",
                        ),
                        (
                            "!has(self.until) || self.until != 'Pass' || (has(self.hold)"
                            " && self.weight >= 1 && self.weight <= 99)",
                            "until: Pass needs hold, and clients on both revisions: a weight from 1 to 99",
                        ),
                        (
                            "self.weight > 0 || has(self.hold) || has(self.pause)",
                            "a step of weight 0 needs hold or pause: nothing else happens in it",
                        ),
                        (
                            "!has(self.until) || self.until != 'NonInferior'"
                            " || (self.weight >= 4 && self.weight <= 96)",
                            "a proof needs clients in at least 8 of the 256 slots on either side: "
                            "use until: NonInferior at weights from 4 to 96",
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
    holdback: Annotated[
        Holdback | None,
        Meta(
            description="After the last step all clients but a few get the new revision, which counts as "
            "promoted from then on; it is compared on, and harm sends the cohort back by itself."
        ),
    ] = None

    @property
    def stages(self) -> tuple[Step, ...]:
        """The steps, and the holdback as what it is: one more of them."""
        if self.holdback is None:
            return self.steps
        return (*self.steps, Step(weight=100 - self.holdback.weight, hold=self.holdback.time))


COHORT_RULES = rules(
    (
        "!has(self.holdback) || !has(self.steps) "
        "|| self.steps.all(s, s.weight + self.holdback.weight <= 100)",
        "holdback keeps more clients on the former revision than the last step does: lower holdback.weight, "
        "or the weights of the last steps",
    ),
)
