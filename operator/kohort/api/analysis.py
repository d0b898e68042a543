"""What decides in a rollout, and how sure it must be: the part of a spec that is about evidence."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, field

from kohort.api.base import SpecStruct, rules
from kohort.api.quantity import Percent


class MetricName(StrEnum):
    """A metric that can decide."""

    ERRORS = "errors"


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
