"""What Kohort says: the status of a ModelDeployment.

Status is also the operator's memory: what is intended stands here before traffic moves, so that an
operator that dies at any line is followed by one that goes on to the same end.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field

Time = Annotated[str, Meta(description="RFC 3339 time in UTC.", extra_json_schema={"format": "date-time"})]


class StatusStruct(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A node of the status; unknown fields of a newer Kohort are ignored."""


class Phase(StrEnum):
    """Where the whole rollout is, for people; programs read conditions."""

    PENDING = "Pending"  # nothing serves yet
    PROGRESSING = "Progressing"  # capacity or routes are on their way
    ANALYZING = "Analyzing"  # a canary has clients
    PAUSED = "Paused"
    HEALTHY = "Healthy"  # every cohort has the revision that the spec asks for
    DEGRADED = "Degraded"  # the end of the road, and not as asked for


class CohortPhase(StrEnum):
    """Where one cohort is."""

    PENDING = "Pending"  # no revision yet
    WAITING = "Waiting"  # for cohorts in ``after``
    PREPARING = "Preparing"  # the canary's pods become ready; no client has it
    ANALYZING = "Analyzing"  # the canary has clients
    PROMOTING = "Promoting"  # the canary gets all clients
    STABLE = "Stable"  # on the revision that the spec asks for
    ROLLED_BACK = "RolledBack"  # back on the former revision


class Verdict(StrEnum):
    """What the evidence says."""

    PASS = "Pass"  # noqa: S105
    FAIL = "Fail"
    INSUFFICIENT = "Insufficient"
    METRICS_ERROR = "MetricsError"


class Tally(StatusStruct):
    """Requests of one arm since the analysis began."""

    requests: int = 0
    failed: int = 0


class Evidence(StatusStruct):
    """What an analysis has accumulated for one cohort and metric."""

    metric: str = "errors"
    verdict: Verdict = Verdict.INSUFFICIENT
    message: Annotated[str, Meta(max_length=512)] = ""
    canary: Tally = field(default_factory=Tally)
    stable: Tally = field(default_factory=Tally)
    since: Time | None = None
    updated: Annotated[
        Time | None, Meta(description="When counters of both arms were last read together.")
    ] = None
    state: Annotated[
        str,
        Meta(
            max_length=16384,
            description="Log e-values and the counter snapshot they were computed from; format version first.",
        ),
    ] = ""


class Decision(StatusStruct):
    """The record of one promotion or rollback: what was seen, and what was done."""

    action: Annotated[str, Meta(max_length=32)]  # Promoted | RolledBack | Superseded
    revision: str
    at: Time
    message: Annotated[str, Meta(max_length=1024)] = ""


class CohortStatus(StatusStruct):
    """One cohort's rollout."""

    name: str
    phase: CohortPhase = CohortPhase.PENDING
    message: Annotated[str, Meta(max_length=1024, description="What is awaited, and why.")] = ""
    stable: Annotated[str, Meta(description="Revision of the cohort's stable clients.")] = ""
    canary: Annotated[str, Meta(description="Revision being tried, if any.")] = ""
    step: Annotated[int, Meta(description="Index of the step, from 0.")] = 0
    weight: Annotated[int, Meta(description="Percentage of the cohort's clients on the canary.")] = 0
    salt: Annotated[str, Meta(description="Salt of this rollout's client hash.")] = ""
    step_started_at: Annotated[
        Time | None, Meta(description="When every gateway had taken the step's weight.")
    ] = None
    rejected: Annotated[
        str, Meta(description="Revision that failed here; not tried again while the spec asks for it.")
    ] = ""
    evidence: tuple[Evidence, ...] = ()
    decisions: Annotated[tuple[Decision, ...], Meta(max_length=10, description="Newest first.")] = ()


class RevisionStatus(StatusStruct):
    """One revision: an immutable snapshot of what decides an answer."""

    name: str
    number: Annotated[int, Meta(description="Counts up; shown as vNUMBER.")]
    uri: str
    created_at: Time
    replicas: Annotated[int, Meta(description="Pods that are wanted now.")] = 0
    ready_replicas: int = 0
    reason: Annotated[str, Meta(max_length=64)] = ""
    message: Annotated[str, Meta(max_length=1024)] = ""
    preparing_since: Annotated[
        Time | None, Meta(description="Since when pods are awaited; the progress deadline counts from here.")
    ] = None
    unused_since: Annotated[
        Time | None, Meta(description="Since when no gateway sends anything here.")
    ] = None


class Condition(StatusStruct, kw_only=True):
    """A condition by the Kubernetes conventions."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: Time
    observed_generation: int


class Summary(StatusStruct):
    """The columns of ``kubectl get``."""

    stable: str = ""
    canary: str = ""
    weight: str = ""
    step: str = ""


class Status(StatusStruct):
    """The observed state of a ModelDeployment."""

    observed_generation: int = -1
    phase: Phase = Phase.PENDING
    message: Annotated[str, Meta(max_length=1024)] = ""
    desired: Annotated[str, Meta(description="Revision that the spec asks for.")] = ""
    replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    paused_at: Time | None = None
    summary: Summary = field(default_factory=Summary)
    cohorts: tuple[CohortStatus, ...] = ()
    revisions: tuple[RevisionStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()
