"""One cohort's turn in a pass: what its rules are given, and what a rule that applies returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from kohort.api.cohorts import Cohort
from kohort.api.status import CohortPhase, CohortStatus, Status, Urged
from kohort.plan.capacity import needed_pods, next_weight, target
from kohort.plan.context import Context, cut, label, revision_of
from kohort.plan.outcome import Event
from kohort.plan.pausing import is_paused
from kohort.plan.world import PASSING


@dataclass(frozen=True)
class Change:
    """What a rule made of a cohort, if only another message, and what people should hear.

    ``failed``: the revision that was seen to do harm.
    """

    cohort: CohortStatus
    events: tuple[Event, ...] = ()
    failed: str = ""


@dataclass(frozen=True)
class Turn:
    """A cohort beside its spec, in the status as far as it is decided."""

    context: Context
    status: Status
    spec: Cohort
    cohort: CohortStatus

    @property
    def desired(self) -> str:
        """The revision that the spec asks for."""
        return self.status.desired

    @property
    def leaving(self) -> bool:
        """Whether the cohort is on a revision that it rejects, because others failed on it."""
        return bool(self.cohort.rejected) and self.cohort.rejected == self.cohort.stable

    @property
    def target(self) -> str:
        """The revision on which the cohort is to end."""
        return target(self.status, self.cohort)

    @property
    def settled(self) -> bool:
        """Whether the cohort is where it is to end."""
        return self.cohort.stable == self.target and not self.cohort.canary

    @property
    def by_hand(self) -> bool:
        """Whether a person wants the cohort to move whatever is awaited."""
        return self.cohort.urged is not None or bool(self.status.pinned)

    @property
    def held(self) -> bool:
        """Whether a pause keeps the cohort where it is."""
        paused = is_paused(self.context, self.status) or self.cohort.held
        return paused and not self.by_hand and not self.leaving

    @property
    def at_once(self) -> bool:
        """Whether the cohort moves without steps: a person wants it so, or it goes back to a revision
        that still has all of its pods."""
        back = self.target == self.cohort.former
        warm = back and self.context.ready(self.target) >= self.context.spec.replicas
        return self.leaving or warm or (self.by_hand and self.cohort.urged is not Urged.NEXT)

    @property
    def steps_done(self) -> bool:
        """Whether the cohort has been through all of its steps."""
        return self.cohort.step >= len(self.spec.stages)

    @property
    def on_holdback(self) -> bool:
        """Whether the cohort is on what its holdback makes of the last step."""
        return self.cohort.step == len(self.spec.steps) < len(self.spec.stages)

    @property
    def next_weight(self) -> int:
        """The weight that the canary is to have next."""
        return next_weight(self.context, self.cohort)

    def label(self, revision: str) -> str:
        """A revision as people call it."""
        return label(self.status, revision)

    def missing_pods(self, revision: str, weight: int) -> str:
        """Which pods a revision still needs for a weight, and why they are not ready; empty when all are."""
        ready = self.context.ready(revision)
        needed = needed_pods(self.context, self.status, self.cohort, revision, weight)
        if ready >= needed:
            return ""
        capacity = self.context.world.capacity.get(revision)
        why = f": {capacity.problem.message}" if capacity and capacity.problem else ""
        return f"{ready} of {needed} pods of {self.label(revision)} are ready{why}"

    @property
    def awaits_first_pods(self) -> bool:
        """Whether a canary without clients lacks pods: those that a step of weight 0 is for, or as many of
        them as it is to have, where there are few to share out."""
        canary = revision_of(self.status, self.cohort.canary)
        if self.cohort.weight or canary is None:
            return False
        needed = needed_pods(self.context, self.status, self.cohort, canary.name, 0)
        return self.context.ready(canary.name) < max(1, min(needed, canary.replicas))

    def preparing(self, revision: str) -> CohortPhase:
        """The phase of a cohort that awaits pods of a revision."""
        if self.cohort.weight:
            return self.cohort.phase
        capacity = self.context.world.capacity.get(revision)
        if capacity and capacity.problem and capacity.problem.reason in PASSING:
            return CohortPhase(capacity.problem.reason)
        return CohortPhase.PREPARING if self.cohort.stable else CohortPhase.PENDING

    def saying(self, message: str, phase: CohortPhase | None = None) -> Change:
        """The cohort held where it is."""
        cohort = structs.replace(
            self.cohort, message=cut(message), phase=phase or self.cohort.phase
        )
        return Change(cohort)


Rule = Callable[[Turn], Change | None]
"""Decides a cohort's turn, or leaves it to the next rule with None."""
