"""What Kohort says: the status of a ModelDeployment.

Status is also the operator's memory: what is intended stands here before traffic moves, so that an
operator that dies at any line is followed by one that goes on to the same end.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field

Time = Annotated[
    str, Meta(description="RFC 3339 time in UTC.", extra_json_schema={"format": "date-time"})
]


class StatusStruct(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A node of the status; unknown fields of a newer Kohort are ignored."""


class Phase(StrEnum):
    """Where the whole rollout is, for people; programs read conditions."""

    PENDING = "Pending"  # nothing serves yet
    WAITING_FOR_GPU = "WaitingForGPU"  # as Pending or Progressing, for want of a GPU
    COMPILING = "Compiling"  # as Pending or Progressing, while engines are built and proven
    DOWNLOADING = "Downloading"  # as Pending or Progressing, while the model is fetched
    PROGRESSING = "Progressing"  # capacity or routes are on their way
    ANALYZING = "Analyzing"  # a canary has clients
    ROLLING_BACK = "RollingBack"  # clients are on their way back from what was rejected or given up
    PAUSED = "Paused"  # all that is left to do waits for a person
    HEALTHY = "Healthy"  # every cohort has the revision that the spec asks for
    DEGRADED = "Degraded"  # the end of the road, and not as asked for


class CohortPhase(StrEnum):
    """Where one cohort is."""

    PENDING = "Pending"  # no revision yet
    WAITING = "Waiting"  # for cohorts in ``after``
    PREPARING = "Preparing"  # the canary's pods become ready; no client has it
    WAITING_FOR_GPU = "WaitingForGPU"  # as Pending or Preparing, for want of a GPU
    COMPILING = "Compiling"  # as Pending or Preparing, while engines are built and proven
    DOWNLOADING = "Downloading"  # as Pending or Preparing, while the model is fetched
    ANALYZING = "Analyzing"  # the canary has clients
    PROMOTING = "Promoting"  # the canary gets all clients
    HOLDING_BACK = "HoldingBack"  # the canary has all clients but a few, that are compared on
    STABLE = "Stable"  # on the revision that the spec asks for
    ROLLED_BACK = "RolledBack"  # back on the former revision


class Verdict(StrEnum):
    """What the evidence says."""

    PASS = "Pass"  # noqa: S105
    FAIL = "Fail"
    INSUFFICIENT = "Insufficient"
    METRICS_ERROR = "MetricsError"


class Urged(StrEnum):
    """How far a person wants a cohort to go, whatever it waits for."""

    NEXT = "Next"
    ALL = "All"


class Tally(StatusStruct, frozen=True):
    """Requests of one arm since the analysis began."""

    requests: Annotated[int, Meta(description="Requests that were answered or given up.")] = 0
    failed: Annotated[
        int,
        Meta(
            description="Those of them that failed; of latency: that were slow; of others: that were bad."
        ),
    ] = 0


class Evidence(StatusStruct, frozen=True):
    """What an analysis has accumulated for one cohort and metric."""

    metric: Annotated[str, Meta(description="Name of the metric.")] = "errors"
    verdict: Verdict = Verdict.INSUFFICIENT
    message: Annotated[
        str, Meta(max_length=512, description="What was seen, and what is still needed.")
    ] = ""
    disturbed: Annotated[
        bool,
        Meta(
            description="Whether both revisions fare worse than stable did before: no step ends then."
        ),
    ] = False
    undecided: Annotated[
        bool,
        Meta(
            description="Whether counters speak against the new revision and nobody can tell by client slots "
            "whether it is only a few clients: no step ends then, unless a person says so."
        ),
    ] = False
    watched: Annotated[bool, Meta(description="Whether it decides nothing, whatever it says.")] = (
        False
    )
    canary: Annotated[Tally, Meta(description="The new revision's requests.")] = field(
        default_factory=Tally
    )
    stable: Annotated[Tally, Meta(description="The stable revision's requests.")] = field(
        default_factory=Tally
    )
    slow_from: Annotated[
        int | None,
        Meta(description="Of latency: milliseconds from which on a request counts as slow."),
    ] = None
    since: Annotated[Time | None, Meta(description="When the analysis began.")] = None
    updated: Annotated[
        Time | None, Meta(description="When counters of both arms were last read together.")
    ] = None
    state: Annotated[
        str,
        Meta(
            max_length=16384,
            description="Log e-values and the counter snapshot they were computed from; "
            "format version first.",
        ),
    ] = ""
    slots: Annotated[
        str,
        Meta(
            max_length=18432,
            description="Requests and failures of each client slot before and since the canary has "
            "clients; format version first.",
        ),
    ] = ""


class Decision(StatusStruct, frozen=True):
    """The record of one decision: what was seen or asked for, and what was done."""

    action: Annotated[
        str,
        Meta(
            max_length=32,
            description="Promoted, RolledBack, Superseded; by a person: Held, Released, StepSkipped, "
            "Aborted, Retried, Undone.",
        ),
    ]
    revision: Annotated[str, Meta(description="Revision that was decided on.")]
    at: Annotated[Time, Meta(description="When it was decided.")]
    message: Annotated[str, Meta(max_length=1024, description="What was seen.")] = ""
    by: Annotated[
        str, Meta(max_length=256, description="Who asked for it; empty: Kohort by itself.")
    ] = ""
    why: Annotated[str, Meta(max_length=1024, description="Why, in that person's words.")] = ""


class CommandStatus(StatusStruct, frozen=True):
    """What became of the newest command."""

    id: Annotated[str, Meta(max_length=64, description="Tells one command from the next.")]
    line: Annotated[str, Meta(max_length=1024, description="The command as it was given.")] = ""
    at: Annotated[Time | None, Meta(description="When it was carried out or refused.")] = None
    accepted: Annotated[bool, Meta(description="Whether it was carried out.")] = False
    message: Annotated[
        str, Meta(max_length=1024, description="What it did, or why it was refused.")
    ] = ""


class CohortStatus(StatusStruct, frozen=True):
    """One cohort's rollout."""

    name: Annotated[str, Meta(description="The cohort's name in the spec.")]
    phase: CohortPhase = CohortPhase.PENDING
    message: Annotated[str, Meta(max_length=1024, description="What is awaited, and why.")] = ""
    stable: Annotated[str, Meta(description="Revision of the cohort's stable clients.")] = ""
    canary: Annotated[str, Meta(description="Revision being tried, if any.")] = ""
    step: Annotated[int, Meta(description="Index of the step, from 0.")] = 0
    weight: Annotated[
        int, Meta(description="Percentage of the cohort's clients on the canary.")
    ] = 0
    salt: Annotated[str, Meta(description="Salt of this rollout's client hash.")] = ""
    tried: Annotated[str, Meta(description="Revision whose rollout began last.")] = ""
    attempt: Annotated[
        int, Meta(description="How many times in a row that revision's rollout began.")
    ] = 0
    share: Annotated[
        int | None,
        Meta(
            description="Percentage of the model's requests that the cohort sends, rounded up, as "
            "measured in this rollout; absent while it is not known."
        ),
    ] = None
    step_started_at: Annotated[
        Time | None, Meta(description="When every gateway had taken the step's weight.")
    ] = None
    rejected: Annotated[
        str,
        Meta(description="Revision that failed here; not tried again while the spec asks for it."),
    ] = ""
    former: Annotated[str, Meta(description="Stable revision before the present one.")] = ""
    held_back: Annotated[
        str,
        Meta(
            description="Revision that last got all clients but those of holdback. While it is the canary, "
            "the cohort counts as promoted."
        ),
    ] = ""
    match: Annotated[
        str,
        Meta(
            description="Hash of the cohort's match: tells a cohort that is only called otherwise."
        ),
    ] = ""
    held: Annotated[bool, Meta(description="Whether a person holds this cohort.")] = False
    urged: Annotated[
        Urged | None,
        Meta(
            description="How far a person wants it to go whatever is awaited: to the Next step, or through "
            "All of them."
        ),
    ] = None
    paused_at: Annotated[Time | None, Meta(description="Since when it is held where it is.")] = None
    evidence: Annotated[
        tuple[Evidence, ...], Meta(description="What the analysis has seen, by metric.")
    ] = ()
    decisions: Annotated[
        tuple[Decision, ...], Meta(max_length=10, description="Newest first.")
    ] = ()

    @property
    def holds_back(self) -> bool:
        """Whether all clients but a few have the canary, and those few are to follow after a while."""
        return bool(self.canary) and self.held_back == self.canary

    def arrived(self, revision: str) -> bool:
        """Whether the cohort is on a revision, if only but for the clients that holdback keeps."""
        return self.stable == revision or (self.holds_back and self.canary == revision)


class ParityResult(StrEnum):
    """Whether an engine gives the model's own answers."""

    SAME = "Same"
    DIFFERS = "Differs"


class EngineStatus(StatusStruct, frozen=True):
    """An engine that was tried for a revision, as it was measured where a pod started."""

    engine: Annotated[str, Meta(max_length=32, description="The engine.")]
    version: Annotated[str, Meta(max_length=64, description="Its version.")] = ""
    precision: Annotated[
        str, Meta(max_length=32, description="The number format that it really computes in.")
    ] = ""
    parity: Annotated[
        ParityResult | None,
        Meta(description="Whether its answers are the model's own; absent where it never ran."),
    ] = None
    max_error: Annotated[
        str,
        Meta(
            max_length=16,
            description="The largest error of a value: of the value or of the output's root mean square.",
        ),
    ] = ""
    latency_micros: Annotated[
        int, Meta(description="Microseconds of a run of the smallest batch.")
    ] = 0
    best_rows: Annotated[int, Meta(description="Rows of the largest batch that is useful.")] = 0
    rows_per_second: Annotated[int, Meta(description="Rows per second in that batch.")] = 0
    bytes: Annotated[int, Meta(description="Size of what was built.")] = 0
    build_millis: Annotated[
        int, Meta(description="Milliseconds that it took to build; 0 where it was built already.")
    ] = 0
    problem: Annotated[str, Meta(max_length=512, description="Why it cannot be taken.")] = ""
    chosen: Annotated[bool, Meta(description="Whether this one serves.")] = False


class EngineTable(StatusStruct, frozen=True):
    """The engines that were tried for a revision, and which one serves."""

    tried: Annotated[
        tuple[EngineStatus, ...],
        Meta(max_length=8, description="In the order in which they were tried."),
    ] = ()
    choice: Annotated[str, Meta(max_length=256, description="Why that one serves.")] = ""
    machine: Annotated[
        str, Meta(max_length=128, description="The kind of machine that this is true of.")
    ] = ""


class RevisionStatus(StatusStruct, frozen=True):
    """One revision: an immutable snapshot of what decides an answer."""

    name: Annotated[str, Meta(description="Name of its ControllerRevision and Deployment.")]
    number: Annotated[int, Meta(description="Counts up; shown as vNUMBER.")]
    uri: Annotated[str, Meta(description="The model's uri.")]
    created_at: Annotated[Time, Meta(description="When the spec first asked for it.")]
    replicas: Annotated[int, Meta(description="Pods that are wanted now.")] = 0
    ready_replicas: Annotated[int, Meta(description="Pods that can be routed to.")] = 0
    reason: Annotated[
        str, Meta(max_length=64, description="Why pods do not become ready, in one word.")
    ] = ""
    message: Annotated[
        str, Meta(max_length=1024, description="Why pods do not become ready, and what to do.")
    ] = ""
    preparing_since: Annotated[
        Time | None,
        Meta(description="Since when pods are awaited; the progress deadline counts from here."),
    ] = None
    unused_since: Annotated[
        Time | None, Meta(description="Since when no gateway sends anything here.")
    ] = None
    engines: Annotated[
        EngineTable | None,
        Meta(description="The engines that a pod tried; absent where none had to be built."),
    ] = None


class Condition(StatusStruct, frozen=True, kw_only=True):
    """A condition by the Kubernetes conventions."""

    type: Annotated[str, Meta(description="Ready, Reconciling, Stalled or Available.")]
    status: Annotated[str, Meta(description="True, False or Unknown.")]
    reason: Annotated[str, Meta(description="Why, in one word.")]
    message: Annotated[str, Meta(description="Why, in a sentence.")] = ""
    last_transition_time: Annotated[Time, Meta(description="When status last changed.")]
    observed_generation: Annotated[int, Meta(description="Generation that it was said of.")]


class Summary(StatusStruct, frozen=True):
    """The columns of ``kubectl get``."""

    stable: Annotated[str, Meta(description="Revisions of the stable clients.")] = ""
    canary: Annotated[str, Meta(description="Revision being tried.")] = ""
    weight: Annotated[str, Meta(description="Share of clients on the canary.")] = ""
    step: Annotated[str, Meta(description="Step of the rollout.")] = ""


class Status(StatusStruct, frozen=True):
    """The observed state of a ModelDeployment."""

    observed_generation: Annotated[
        int, Meta(description="Generation that all of this was said of.")
    ] = -1
    phase: Phase = Phase.PENDING
    message: Annotated[
        str, Meta(max_length=1024, description="What is going on, with figures.")
    ] = ""
    desired: Annotated[str, Meta(description="Revision that the spec asks for.")] = ""
    replicas: Annotated[
        int,
        Meta(
            description="Pods that count against spec.replicas: those that a rollout needs beyond it "
            "are extra."
        ),
    ] = 0
    ready_replicas: Annotated[
        int, Meta(description="Pods of all revisions that can be routed to.")
    ] = 0
    selector: Annotated[str, Meta(description="Label selector of the pods of all revisions.")] = ""
    paused_at: Annotated[Time | None, Meta(description="Since when the rollout is paused.")] = None
    held: Annotated[bool, Meta(description="Whether a person holds the whole rollout.")] = False
    pinned: Annotated[
        str, Meta(description="Revision that a person wants instead of what the spec asks for.")
    ] = ""
    pinned_over: Annotated[
        str, Meta(description="Revision that the spec asked for then; another one ends it.")
    ] = ""
    restarted_at: Annotated[
        Time | None, Meta(description="When a person last wanted fresh pods.")
    ] = None
    command: Annotated[
        CommandStatus | None, Meta(description="The newest command, and what became of it.")
    ] = None
    summary: Summary = field(default_factory=Summary)
    cohorts: Annotated[
        tuple[CohortStatus, ...], Meta(description="Each cohort's rollout, in the spec's order.")
    ] = ()
    revisions: Annotated[
        tuple[RevisionStatus, ...], Meta(description="Revisions that are known, newest first.")
    ] = ()
    conditions: Annotated[
        tuple[Condition, ...], Meta(description="Conditions by the Kubernetes conventions.")
    ] = ()
