"""The view model: what a person wants to know of one rollout, from its resource and pods; no rendering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from msgspec import structs

from kohort.api.cohorts import Cohort, Holdback, Step
from kohort.api.command import ANNOTATION_COMMAND, NEXT, CommandError, command_id, parse_command
from kohort.api.status import (
    CohortPhase,
    CohortStatus,
    CommandStatus,
    Decision,
    Evidence,
    RevisionStatus,
    Status,
)
from kohort.contract import LABEL_REVISION
from kohort.view.words import clean, parse_time

Resource = Mapping[str, Any]
"""A Kubernetes object as the API gives it in JSON."""


class ViewError(Exception):
    """A resource that cannot be shown; the message says what to do."""


@dataclass(frozen=True)
class PodView:
    """One pod: ``state`` is one word, ``created`` its age's begin."""

    name: str
    ready: bool
    state: str
    restarts: int
    created: datetime | None


@dataclass(frozen=True)
class RevisionView:
    """One revision and its pods; ``roles`` says what it is for: desired, stable, canary."""

    label: str
    uri: str
    ready: int
    wanted: int
    roles: tuple[str, ...]
    reason: str
    message: str
    since: datetime | None
    pods: tuple[PodView, ...]

    @property
    def problem(self) -> str:
        """Why pods are not ready: the reason, unless the message begins with it, and the message."""
        if self.message.startswith(self.reason):
            return self.message
        return ": ".join(filter(None, (self.reason, self.message)))


@dataclass(frozen=True)
class CohortView:
    """One cohort. ``stable``, ``canary`` and ``rejected`` are labels such as v2, or empty; a revision
    whose number is not known goes by its name. ``held``: by a person, with ``held_since``.

    ``steps`` are those of the spec; empty when the spec has no such cohort any more. ``evidence``
    is empty unless it belongs to the present canary or one that went back, and comes without its state;
    ``decisions``, newest first, name revisions by label.
    """

    name: str
    phase: CohortPhase
    message: str
    stable: str
    canary: str
    rejected: str
    weight: int
    step: int
    steps: tuple[Step, ...]
    since: datetime | None
    held: bool
    held_since: datetime | None
    evidence: tuple[Evidence, ...]
    decisions: tuple[Decision, ...]

    @property
    def step_text(self) -> str:
        """``2/3`` while there is a canary, else empty."""
        if not self.canary or not self.steps:
            return ""
        return f"{min(self.step, len(self.steps) - 1) + 1}/{len(self.steps)}"


@dataclass(frozen=True)
class ModelView:
    """One ModelDeployment. ``seen`` is false while the operator has not taken in the latest spec.

    ``held``: a person holds all of it. ``instead_of``: what the spec asks for while a person wants
    ``desired`` instead. ``command``: the newest one that was answered; ``waiting``: one that was not yet.
    """

    namespace: str
    name: str
    now: datetime
    created: datetime | None
    seen: bool
    phase: str
    message: str
    desired: str
    instead_of: str
    paused_since: datetime | None
    held: bool
    command: CommandStatus | None
    waiting: str
    ready: int
    wanted: int
    cohorts: tuple[CohortView, ...]
    revisions: tuple[RevisionView, ...]

    @property
    def rolling(self) -> tuple[CohortView, ...]:
        """The cohorts that try a revision."""
        return tuple(cohort for cohort in self.cohorts if cohort.canary)

    @property
    def own_message(self) -> str:
        """The message, unless it only strings together what the cohorts say themselves."""
        of_cohorts = any(self.message.startswith(f"{cohort.name}: ") for cohort in self.cohorts)
        return "" if of_cohorts else self.message


def distinct(values: Iterable[str]) -> str:
    """Each value once, of many the first three: ``v1,v2``."""
    each = list(dict.fromkeys(filter(None, values)))
    return ",".join(each if len(each) <= 3 else [*each[:3], ".."])


def read_status(resource: Resource) -> Status:
    """The status of a resource; ``ViewError`` when a newer Kohort wrote what this one cannot read."""
    try:
        return msgspec.convert(resource.get("status") or {}, Status)
    except msgspec.ValidationError as error:
        raise ViewError(
            f"the status of {resource.get('metadata', {}).get('name', '?')} was written by another "
            f"version of Kohort ({error}): install the kubectl-kohort of the operator's version"
        ) from None


@dataclass(frozen=True)
class Facts:
    """What is known of a ModelDeployment, wherever it was read.

    ``stages``: the steps of the spec by cohort. ``command``: the newest one as its annotation has it.
    """

    namespace: str
    name: str
    generation: int
    status: Status
    stages: Mapping[str, tuple[Step, ...]]
    command: str = ""
    created: datetime | None = None


def facts_of(resource: Resource) -> Facts:
    """The facts of a resource.

    Raises:
        ViewError: a newer Kohort wrote a status that this one cannot read.
    """
    metadata = resource.get("metadata", {})
    return Facts(
        namespace=metadata.get("namespace", ""),
        name=metadata.get("name", ""),
        generation=metadata.get("generation", 0),
        status=read_status(resource),
        stages=_steps(resource.get("spec", {})),
        command=command_line(resource),
        created=parse_time(metadata.get("creationTimestamp")),
    )


def model_view(resource: Resource, pods: Iterable[Resource], now: datetime) -> ModelView:
    """The view of a resource and those pods that carry its model's label; ``now`` is aware."""
    pods_of: dict[str, list[PodView]] = {}
    for pod in pods:
        revision = pod.get("metadata", {}).get("labels", {}).get(LABEL_REVISION, "")
        pods_of.setdefault(revision, []).append(pod_view(pod))
    return view_of(facts_of(resource), pods_of, now)


def view_of(facts: Facts, pods_of: Mapping[str, Iterable[PodView]], now: datetime) -> ModelView:
    """The view of a ModelDeployment and of its pods, by the name of their revision."""
    status = facts.status
    labels = {revision.name: f"v{revision.number}" for revision in status.revisions}
    return ModelView(
        namespace=facts.namespace,
        name=facts.name,
        now=now,
        created=facts.created,
        seen=status.observed_generation >= facts.generation,
        phase=status.phase,
        message=clean(status.message),
        desired=labels.get(status.desired, clean(status.desired)),
        instead_of=labels.get(status.pinned_over, clean(status.pinned_over)),
        paused_since=parse_time(status.paused_at),
        held=status.held,
        command=_command(status.command),
        waiting=spoken(_unanswered(facts.command, status)),
        ready=status.ready_replicas,
        wanted=status.replicas,
        cohorts=tuple(_cohort(c, facts.stages.get(c.name, ()), labels) for c in status.cohorts),
        revisions=tuple(
            _revision(r, status, tuple(sorted(pods_of.get(r.name, ()), key=_worst_first)))
            for r in sorted(status.revisions, key=lambda r: -r.number)
        ),
    )


def waiting(resource: Resource) -> str:
    """The line of a command that Kohort has not answered yet; empty when there is none."""
    return _unanswered(command_line(resource), read_status(resource))


def _unanswered(line: str, status: Status) -> str:
    told = status.command
    return line if command_id(line) != (told.id if told else "") else ""


def command_line(resource: Resource) -> str:
    """The newest command as it stands in the annotation; empty when there is none."""
    annotations = resource.get("metadata", {}).get("annotations") or {}
    return str(annotations.get(ANNOTATION_COMMAND, ""))


def spoken(line: str) -> str:
    """A command as people say it: ``promote staff to all``; what is none as it stands."""
    try:
        command = parse_command(line)
    except CommandError:
        return clean(line)
    far = f"to {clean(command.to)}" if command.to not in ("", NEXT) else ""
    return " ".join(filter(None, (command.verb.value, command.cohort, far)))


def pod_view(pod: Resource) -> PodView:
    """One pod: Terminating, then why a container waits or ended, then the pod's own phase."""
    metadata, status = pod.get("metadata", {}), pod.get("status", {})
    containers = status.get("containerStatuses", [])
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    waits = (
        detail.get("reason", "")
        for container in (*status.get("initContainerStatuses", []), *containers)
        for kind, detail in container.get("state", {}).items()
        if kind == "waiting" or (kind == "terminated" and detail.get("exitCode", 0) != 0)
    )
    scheduled = conditions.get("PodScheduled", {})
    unscheduled = scheduled.get("reason", "") if scheduled.get("status") == "False" else ""
    reason = next(filter(None, waits), "") or unscheduled or status.get("reason", "")
    leaving = "Terminating" if metadata.get("deletionTimestamp") else ""
    return PodView(
        name=clean(metadata.get("name", "")),
        ready=not leaving and conditions.get("Ready", {}).get("status") == "True",
        state=clean(leaving or reason or status.get("phase", "Unknown")),
        restarts=sum(container.get("restartCount", 0) for container in containers),
        created=parse_time(metadata.get("creationTimestamp")),
    )


def _worst_first(pod: PodView) -> tuple[bool, str]:
    return pod.ready, pod.name


def _steps(spec: Resource) -> dict[str, tuple[Step, ...]]:
    """Steps by cohort; a spec that a newer Kohort has extended has none that this one may count."""
    try:
        return {cohort["name"]: _stages(cohort) for cohort in spec.get("cohorts", ())}
    except msgspec.ValidationError:
        return {}


def _stages(cohort: Resource) -> tuple[Step, ...]:
    steps = msgspec.convert(cohort.get("steps", ()), tuple[Step, ...])
    holdback = msgspec.convert(cohort.get("holdback"), Holdback | None)
    return Cohort(name="", steps=steps, holdback=holdback).stages


def _cohort(cohort: CohortStatus, steps: tuple[Step, ...], labels: Mapping[str, str]) -> CohortView:
    judged = cohort.canary or cohort.phase is CohortPhase.ROLLED_BACK
    return CohortView(
        name=clean(cohort.name),
        phase=cohort.phase,
        message=clean(cohort.message),
        stable=labels.get(cohort.stable, clean(cohort.stable)),
        canary=labels.get(cohort.canary, clean(cohort.canary)),
        rejected=labels.get(cohort.rejected, clean(cohort.rejected)),
        weight=cohort.weight,
        step=cohort.step,
        steps=steps,
        since=parse_time(cohort.step_started_at),
        held=cohort.held,
        held_since=parse_time(cohort.paused_at),
        evidence=tuple(map(_evidence, cohort.evidence)) if judged else (),
        decisions=tuple(_decision(d, labels) for d in cohort.decisions),
    )


def _command(command: CommandStatus | None) -> CommandStatus | None:
    if command is None:
        return None
    return structs.replace(command, line=spoken(command.line), message=clean(command.message))


def _evidence(evidence: Evidence) -> Evidence:
    return structs.replace(
        evidence, metric=clean(evidence.metric), message=clean(evidence.message), state=""
    )


def _decision(decision: Decision, labels: Mapping[str, str]) -> Decision:
    return structs.replace(
        decision,
        action=clean(decision.action),
        revision=labels.get(decision.revision, clean(decision.revision)),
        message=clean(decision.message),
        by=clean(decision.by),
        why=clean(decision.why),
    )


def roles(status: Status, revision: str) -> tuple[str, ...]:
    """What a revision is for."""
    has = {
        "desired": revision == status.desired,
        "stable": any(c.stable == revision for c in status.cohorts),
        "canary": any(c.canary == revision for c in status.cohorts),
        "rejected": any(c.rejected == revision for c in status.cohorts),
    }
    return tuple(role for role, it_has in has.items() if it_has)


def _revision(revision: RevisionStatus, status: Status, pods: tuple[PodView, ...]) -> RevisionView:
    return RevisionView(
        label=f"v{revision.number}",
        uri=clean(revision.uri),
        ready=revision.ready_replicas,
        wanted=revision.replicas,
        roles=roles(status, revision.name),
        reason=clean(revision.reason),
        message=clean(revision.message),
        since=parse_time(revision.preparing_since),
        pods=pods,
    )
