"""What one pass of deciding is given, and what it hands from phase to phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from msgspec import structs

from kohort.analysis.budget import check_share
from kohort.analysis.timestamps import from_time
from kohort.api.cohorts import Step
from kohort.api.quantity import seconds, share
from kohort.api.spec import GPUCapacity, Spec
from kohort.api.status import CohortStatus, Decision, RevisionStatus, Status
from kohort.plan.mirroring import mirrored_percent
from kohort.plan.outcome import Event, EventType
from kohort.plan.world import World

MESSAGE_LENGTH = 1024
DECISIONS_KEPT = 10
GATEWAYS_NAMED = 3


@dataclass(frozen=True)
class Identity:
    """Which ModelDeployment, and which edition of its spec."""

    namespace: str
    name: str
    uid: str
    generation: int


@dataclass(frozen=True)
class Context:
    """The immutable inputs of a pass."""

    identity: Identity
    spec: Spec
    world: World
    now: datetime

    @property
    def in_effect(self) -> bool:
        """Whether every client meets what the status in hand says."""
        return self.world.gateways.in_effect

    def ready(self, revision: str) -> int:
        """Pods of a revision that can be routed to now."""
        capacity = self.world.capacity.get(revision)
        return capacity.ready if capacity else 0

    def since(self, time: str | None) -> timedelta:
        """Time that has passed since a time in status; none when it is not set."""
        return self.now - from_time(time) if time else timedelta(0)

    @property
    def swaps(self) -> bool:
        """Whether there are no GPUs for pods beyond replicas."""
        gpu = self.spec.gpu
        return gpu is not None and gpu.capacity is GPUCapacity.SWAP

    @property
    def progress_deadline(self) -> timedelta:
        """How long pods may take."""
        return timedelta(seconds=seconds(self.spec.progress_deadline))

    def alpha(self, cohort: CohortStatus) -> float:
        """One check's share of falseRollback: over all cohorts and metrics, mirrors included, and over
        attempts to roll out the same revision."""
        mirrors = sum(any(step.mirror for step in c.steps) for c in self.spec.cohorts)
        checks = len(self.spec.cohorts) * len(self.spec.analysis.deciding) + mirrors
        return share(self.spec.analysis.false_rollback) * check_share(checks, cohort.attempt)

    @property
    def beta(self) -> float:
        """The chance of a false pass that is allowed to each metric."""
        return share(self.spec.analysis.false_promotion)

    @property
    def own_gateways(self) -> bool:
        """Whether clients come through Kohort's gateways, which count and keep clients where they are."""
        return self.spec.route.gateway_api is None

    def waits_for_person(self, step: Step) -> bool:
        """Whether only a person can end a step: it says so, or nothing can be seen in it and nobody
        said that time alone may end it."""
        by_time = self.spec.route.gateway_api is not None and (
            self.spec.route.gateway_api.steps_by_time and step.until is None
        )
        unseen = 0 < step.weight < 100 and not self.own_gateways
        return step.pause is not None or (unseen and not by_time)

    def awaited_gateways(self) -> str:
        """Why routes are not in effect, for people."""
        gateways = self.world.gateways
        if gateways.refused:
            return f"routes cannot be written: {gateways.refused}"
        if not gateways.ready:
            return "no gateway is ready"
        named = ", ".join(sorted(gateways.behind)[:GATEWAYS_NAMED])
        more = len(gateways.behind) - GATEWAYS_NAMED
        return f"waits for gateway {named}" + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Draft:
    """The status as far as it is decided, and what people should hear about it."""

    status: Status
    events: tuple[Event, ...] = ()

    def with_status(self, **changes: object) -> Draft:
        """The draft with some fields of its status changed."""
        return replace(self, status=structs.replace(self.status, **changes))

    def telling(self, *events: Event) -> Draft:
        """The draft with more events."""
        return replace(self, events=(*self.events, *events))


Phase = Callable[[Context, Draft], Draft]
"""One phase of a pass; phases run in a fixed order and each sees what the former ones decided."""


def revision_of(status: Status, name: str) -> RevisionStatus | None:
    """What status knows of a revision."""
    return next((r for r in status.revisions if r.name == name), None)


def label(status: Status, name: str) -> str:
    """A revision as people call it, ``v3``; its name where status does not know it."""
    revision = revision_of(status, name)
    return f"v{revision.number}" if revision else name


def routes(spec: Spec, status: Status) -> tuple[tuple[str, str, str, int, str, int], ...]:
    """What of a status decides where requests go: that of the cohorts that the spec lists."""
    known = {c.name: c for c in status.cohorts if c.stable}
    listed = ((cohort, known[cohort.name]) for cohort in spec.cohorts if cohort.name in known)
    return tuple(
        (c.name, c.stable, c.canary, c.weight, c.salt, mirrored_percent(cohort, c))
        for cohort, c in listed
    )


def referenced(status: Status) -> frozenset[str]:
    """Revisions that a cohort has clients on, or is about to."""
    return frozenset(r for c in status.cohorts for r in (c.stable, c.canary) if r)


def decided(
    cohort: CohortStatus,
    action: str,
    revision: str,
    at: str,
    message: str,
    by: str = "",
    why: str = "",
) -> CohortStatus:
    """The cohort with one more decision on record."""
    decision = Decision(
        action=action, revision=revision, at=at, message=cut(message), by=by[:256], why=cut(why)
    )
    return structs.replace(cohort, decisions=(decision, *cohort.decisions)[:DECISIONS_KEPT])


def normal(reason: str, message: str) -> Event:
    """An event that reports progress."""
    return Event(EventType.NORMAL, reason, cut(message))


def warning(reason: str, message: str) -> Event:
    """An event that somebody should look at."""
    return Event(EventType.WARNING, reason, cut(message))


def cut(text: str) -> str:
    """A text as long as status allows."""
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 1] + "…"
