"""What the page is told of a rollout: the words and figures of ``kubectl kohort``, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct

from kohort.analysis.mirroring import METRIC as MIRROR
from kohort.api.cohorts import Step
from kohort.api.status import Decision, Evidence
from kohort.view.borders import Row, rows
from kohort.view.figures import counted
from kohort.view.notes import notes
from kohort.view.rollout import CohortView, Facts, ModelView, PodView, distinct, view_of
from kohort.view.why import why, why_cohort
from kohort.view.words import clean, clock, parse_time
from kohort.web.seen import Line, Point


class Told(Struct, frozen=True, kw_only=True, rename="camel"):
    """A node of what is told."""


class ModelRow(Told, frozen=True):
    """One line of the list."""

    namespace: str
    name: str
    phase: str
    message: str
    stable: str
    canary: str
    weight: str
    step: str
    ready: int
    wanted: int


class StepTold(Told, frozen=True):
    """One step of a cohort; ``text`` is what it lasts for."""

    weight: int
    text: str


class Border(Told, frozen=True):
    """Evidence of one kind, in percent of its border, oldest first."""

    kind: str
    percent: tuple[int, ...]


class EvidenceTold(Told, frozen=True):
    """One metric of a cohort. ``began``: what the lines of its borders begin with."""

    metric: str
    verdict: str
    canary: str
    stable: str
    shares: str
    message: str
    watched: bool
    began: str
    borders: tuple[Border, ...]


class DecisionTold(Told, frozen=True):
    """One decision; ``at`` in seconds since 1970 (None: unreadable), ``when`` as a clock shows it."""

    at: float | None
    when: str
    action: str
    revision: str
    message: str
    by: str
    why: str


class CohortTold(Told, frozen=True):
    """One cohort; ``begins`` says where the line of weights begins and why there."""

    name: str
    phase: str
    why: str
    stable: str
    canary: str
    rejected: str
    weight: int
    step: str
    steps: tuple[StepTold, ...]
    held: bool
    weights: tuple[Point, ...]
    begins: str
    evidence: tuple[EvidenceTold, ...]
    decisions: tuple[DecisionTold, ...]


class PodTold(Told, frozen=True):
    """One pod."""

    name: str
    state: str
    ready: bool
    restarts: int


class RevisionTold(Told, frozen=True):
    """One revision and its pods; ``more``: pods that are not listed."""

    label: str
    uri: str
    ready: int
    wanted: int
    roles: tuple[str, ...]
    problem: str
    pods: tuple[PodTold, ...]
    more: int


class NoteTold(Told, frozen=True):
    """What concerns the whole rollout, and how it is meant."""

    text: str
    tone: str


class ModelTold(Told, frozen=True):
    """One ModelDeployment; ``at``: when it was so, in seconds since 1970."""

    namespace: str
    name: str
    phase: str
    at: float
    ready: int
    wanted: int
    notes: tuple[NoteTold, ...]
    cohorts: tuple[CohortTold, ...]
    revisions: tuple[RevisionTold, ...]
    pods_shown: bool


MOST_PODS = 100
"""Of a revision; those that are not ready come first."""


def row(facts: Facts, now: datetime) -> ModelRow:
    """A model's line of the list."""
    view = view_of(facts, {}, now)
    return ModelRow(
        namespace=view.namespace,
        name=view.name,
        phase=view.phase,
        message=view.message,
        stable=distinct(c.stable for c in view.cohorts),
        canary=distinct(c.canary for c in view.rolling),
        weight=distinct(f"{c.weight}%" for c in view.rolling),
        step=distinct(c.step_text for c in view.rolling),
        ready=view.ready,
        wanted=view.wanted,
    )


def model(view: ModelView, facts: Facts, lines: Mapping[str, Line], pods_shown: bool) -> ModelTold:
    """A whole rollout; ``lines``: the weights that were seen, by cohort."""
    evidence: dict[str, list[Row]] = {}
    for each in rows(facts.status):
        evidence.setdefault(clean(each.cohort), []).append(each)
    by_name = {clean(name): line for name, line in lines.items()}
    told = [NoteTold(text=note.text, tone=note.tone) for note in notes(view)]
    if not view.cohorts:
        told += [NoteTold(text=text, tone="plain") for text in why(view)]
    return ModelTold(
        namespace=view.namespace,
        name=view.name,
        phase=view.phase,
        at=view.now.timestamp(),
        ready=view.ready,
        wanted=view.wanted,
        notes=tuple(told),
        cohorts=tuple(
            _cohort(c, view, evidence.get(c.name, []), by_name.get(c.name, Line()))
            for c in view.cohorts
        ),
        revisions=tuple(_revisions(view)),
        pods_shown=pods_shown,
    )


def _cohort(cohort: CohortView, view: ModelView, metrics: list[Row], line: Line) -> CohortTold:
    return CohortTold(
        name=cohort.name,
        phase=cohort.phase,
        why=why_cohort(cohort, view),
        stable=cohort.stable,
        canary=cohort.canary,
        rejected=cohort.rejected,
        weight=cohort.weight if cohort.canary else 0,
        step=cohort.step_text,
        steps=tuple(StepTold(weight=step.weight, text=_lasts(step)) for step in cohort.steps),
        held=cohort.held,
        weights=line.points,
        begins=_begins(line, view.now),
        # As in the view: evidence of a canary that is neither on trial nor just back tells nothing.
        evidence=tuple(_evidence(r, view.now) for r in metrics) if cohort.evidence else (),
        decisions=tuple(_decision(d, view.now) for d in cohort.decisions),
    )


def _lasts(step: Step) -> str:
    """What a step lasts for: ``10m``, ``until NonInferior``, ``pause``."""
    parts = (step.hold, f"until {step.until}" if step.until else "", "pause" if step.pause else "")
    return " ".join(filter(None, parts))


def _begins(line: Line, now: datetime) -> str:
    if not line.points:
        return "No weight was seen yet."
    at = clock(datetime.fromtimestamp(line.points[0].at, now.tzinfo), now)
    if line.recorded:
        return f"The line begins at {at}, when the step began that status records."
    return f"The line begins at {at}, when it was first looked at: status keeps no former weights."


def _evidence(found: Row, now: datetime) -> EvidenceTold:
    evidence: Evidence = found.evidence
    told = counted(evidence)
    mirrored = evidence.metric == MIRROR
    since = parse_time(evidence.since)
    return EvidenceTold(
        metric=clean(evidence.metric),
        verdict=evidence.verdict,
        canary="" if mirrored else told.canary,
        stable="" if mirrored else told.stable,
        shares="" if mirrored else told.shares,
        message=clean(evidence.message),
        watched=evidence.watched,
        began=clock(since, now) if since else "",
        borders=tuple(Border(kind=line.kind, percent=line.points) for line in found.lines),
    )


def _decision(decision: Decision, now: datetime) -> DecisionTold:
    at = parse_time(decision.at)
    return DecisionTold(
        at=_seconds(at),
        when=clock(at, now) if at else clean(decision.at),
        action=decision.action,
        revision=decision.revision,
        message=decision.message,
        by=decision.by,
        why=decision.why,
    )


def _seconds(at: datetime | None) -> float | None:
    try:
        return at.timestamp() if at else None
    except (OverflowError, ValueError):  # the edge of what a calendar holds
        return None


def _revisions(view: ModelView) -> list[RevisionTold]:
    """Those that are for something, as in the tree of ``kubectl kohort get``."""
    return [
        RevisionTold(
            label=r.label,
            uri=r.uri,
            ready=r.ready,
            wanted=r.wanted,
            roles=r.roles,
            problem=r.problem,
            pods=tuple(map(_pod, r.pods[:MOST_PODS])),
            more=max(0, len(r.pods) - MOST_PODS),
        )
        for r in view.revisions
        if r.roles or r.pods or r.wanted
    ]


def _pod(pod: PodView) -> PodTold:
    state = "Ready" if pod.ready else pod.state
    return PodTold(name=pod.name, state=state, ready=pod.ready, restarts=pod.restarts)
