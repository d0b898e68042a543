"""What a rollout will do if all goes well: the operator's own planner, over a world that behaves.

Pods are ready at once, gateways follow at once, and the new revision never fails. Nothing of the
planner's rules is repeated here: what is told is what it decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec import structs

from kohort.analysis.reading import Count, Reading, Sample, Series, Slots, SlotTotals
from kohort.api.analysis import Metric
from kohort.api.cohorts import Cohort, Step
from kohort.api.command import Command, Verb
from kohort.api.spec import Spec
from kohort.api.status import CohortStatus, Status
from kohort.contract import MIRROR, SLOTS, TOOK_MS
from kohort.plan.evidence import counters_name
from kohort.plan.outcome import (
    Action,
    EnsureDeployment,
    RecordRevision,
    RemoveDeployment,
    RemoveRecord,
)
from kohort.plan.planner import Identity, plan
from kohort.plan.world import Capacity, Gateways, World

GATEWAYS = Gateways(ready=("gateway",))
TRAFFIC = 10**9
"""Requests of each arm between two looks: as many as any proof needs."""
ONE_LOOK = timedelta(milliseconds=1)
LOOKS = 2
"""Looks at the counters after which a proof is there, or nothing comes without waiting."""
PASSES_PER_STEP = 24
PROVEN = "is proven"


@dataclass(frozen=True)
class Move:
    """One thing that happens to a cohort. ``after``: since the begin; ``open``: something before it
    takes a time that nobody can foretell, a proof or a person, which ``after`` leaves out."""

    cohort: str
    after: timedelta
    open: bool
    what: str


@dataclass
class Foresight:
    """A rollout that goes on by itself, also where the spec pauses it.

    ``pods``: by revision, as many as there are or are wanted. ``stuck``: why it comes to no end.
    ``asked``: the spec with its pause.
    """

    name: str
    spec: Spec
    status: Status
    now: datetime
    generation: int
    moves: list[Move] = field(default_factory=list)
    most_pods: dict[str, int] = field(default_factory=dict)
    stuck: str = ""

    def __post_init__(self) -> None:
        self.asked = self.spec
        self.spec = structs.replace(self.spec, paused=False)
        self._began = self.now
        self._recorded = {r.name: r.number for r in self.status.revisions}
        self.pods = {r.name: r.replicas for r in self.status.revisions if r.replicas}
        self.most_pods = dict(self.pods)
        self._looks = 0
        self._command = ""
        self._open: set[str] = set()
        self._told = {c.name: c.step + 1 for c in self.status.cohorts if c.canary and c.weight}

    @property
    def finished(self) -> bool:
        """Whether every cohort is where it is to be, as far as the planner has looked."""
        cohorts, wanted = self.status.cohorts, self.status.desired
        return bool(cohorts) and all(c.stable == wanted and not c.canary for c in cohorts)

    @property
    def taken(self) -> timedelta:
        """Time since the begin, without what nobody can foretell."""
        return self.now - self._began

    def run(self) -> None:
        """Let it go on until it is finished, or nothing moves it any more."""
        idle = 0
        for _ in range(PASSES_PER_STEP * sum(len(c.stages) + 2 for c in self.spec.cohorts)):
            wake, moved = self._pass()
            if self.finished:
                return
            idle = 0 if moved else idle + 1
            if idle <= LOOKS:
                self.now += ONE_LOOK
            elif waiting := next(self._waiting_for_a_person(), None):
                self._promote(waiting)
            elif wake is not None:
                self.now += timedelta(seconds=wake)
            else:
                break
        self.stuck = self.status.message

    def _pass(self) -> tuple[float | None, bool]:
        """One pass of the planner; seconds until it wants another, and whether anything moved."""
        before, pods = self.status, dict(self.pods)
        outcome = plan(
            Identity("", self.name, "", self.generation),
            self.spec,
            before,
            World(
                recorded=dict(self._recorded),
                capacity={name: Capacity(n, n, n) for name, n in self.pods.items()},
                gateways=GATEWAYS,
                readings=self._readings(),
                command=self._command,
            ),
            self.now,
        )
        self.status = outcome.status
        for action in outcome.actions:
            self._act(action)
        known = {c.name: c for c in before.cohorts}
        for cohort in self.status.cohorts:
            self.moves += self._moves(known.get(cohort.name), cohort)
        self.most_pods = max(self.most_pods, dict(self.pods), key=lambda each: sum(each.values()))
        moved = _places(before) != _places(self.status) or pods != self.pods
        return outcome.wake_after, moved

    def _readings(self) -> dict[str, Reading]:
        self._looks += 1
        seen = Count(self._looks * TRAFFIC, 0)
        slots = Slots((seen.requests,) * SLOTS, (0,) * SLOTS)
        at_once = (seen.requests, *(0,) * (len(TOOK_MS) - 1))
        counted = {
            counters_name(c.name, metric): _counters(metric, c, self._looks, self.now.timestamp())
            for c in self.status.cohorts
            if c.canary
            for metric in self.spec.analysis.in_prometheus
        }
        return counted | {
            name: Reading(
                self.now.timestamp(),
                {"gateway": dict.fromkeys(arms, seen)},
                slots=SlotTotals("foresight", slots, arms=dict.fromkeys(arms, at_once)),
            )
            for c in self.status.cohorts
            if c.canary
            for arms in ((c.canary, c.stable),)
            for name in (c.name, c.name + MIRROR)
        }

    def _act(self, action: Action) -> None:
        match action:
            case RecordRevision(name, number):
                self._recorded[name] = number
            case EnsureDeployment(name, replicas):
                self.pods[name] = replicas
            case RemoveDeployment(name):
                self.pods.pop(name, None)
            case RemoveRecord(name):
                self._recorded.pop(name, None)

    def _moves(self, before: CohortStatus | None, after: CohortStatus) -> Iterator[Move]:
        """What happened to a cohort in one pass."""
        spec = next(c for c in self.spec.cohorts if c.name == after.name)
        former = before or CohortStatus(name=after.name, stable=after.stable)
        if former.canary and former.canary not in (after.canary, after.stable):
            yield self._move(after, f"{self.label(former.canary)} is given up")
        if after.canary and after.canary != former.canary:
            if self._open.intersection(spec.after):
                self._open.add(after.name)
            arms = f"{self.label(after.stable)} to {self.label(after.canary)}"
            yield self._move(after, f"starts from {arms}")
            self._told[after.name] = after.step  # of one that moves at once, all are left out
        yield from self._steps(former, after, spec)
        if after.stable and after.stable != former.stable:
            first = "" if former.stable else ", the first revision"
            yield self._move(after, f"{self.label(after.stable)} serves all of it{first}")

    def _steps(self, former: CohortStatus, after: CohortStatus, spec: Cohort) -> Iterator[Move]:
        """The steps that a cohort came to in one pass, also those that it left at once."""
        steps, told = spec.stages, self._told.get(after.name, 0)
        begun = after.weight != former.weight or after.step_started_at != former.step_started_at
        end = after.step + bool(after.canary and begun)
        if former.canary and former.canary == after.stable:
            end = len(steps)
        for number, step in enumerate(steps[told:end], told):
            rest = "" if number < len(spec.steps) else "; the others are held back"
            yield self._move(after, f"{step.weight}%{_wait(step)}{rest}")
            if step.until is not None or step.pause is not None:
                self._open.add(after.name)
        self._told[after.name] = max(told, end)

    def _move(self, cohort: CohortStatus, what: str) -> Move:
        after = timedelta(seconds=round(self.taken.total_seconds()))
        return Move(cohort.name, after, cohort.name in self._open, what)

    def _waiting_for_a_person(self) -> Iterator[CohortStatus]:
        steps = {c.name: c.stages for c in self.spec.cohorts}
        for cohort in self.status.cohorts:
            step = steps[cohort.name][cohort.step : cohort.step + 1]
            if cohort.canary and cohort.step_started_at and step and step[0].pause is not None:
                yield cohort

    def _promote(self, cohort: CohortStatus) -> None:
        """What a person does who lets a cohort leave a step that waits for one."""
        wish = Command(verb=Verb.PROMOTE, cohort=cohort.name, id=f"foresight-{self._looks}")
        self._command = wish.line()

    def label(self, revision: str) -> str:
        """A revision as people call it."""
        numbers = {r.name: r.number for r in self.status.revisions}
        return f"v{numbers[revision]}" if revision in numbers else revision


def _counters(metric: Metric, cohort: CohortStatus, looks: int, at: float) -> Reading:
    """What counters of a metric tell of revisions with which all is well."""
    if metric.score is not None:
        sent = looks * TRAFFIC
        row = (sent, *(0,) * (len(TOOK_MS) - 1))
        arms = dict.fromkeys((cohort.canary, cohort.stable), row)
        scored = SlotTotals("foresight", Slots((sent,) * SLOTS, (0,) * SLOTS), arms=arms)
        return Reading(at, {}, slots=scored, bounds=("0.5", "0.9", "+Inf"))
    counts = metric.counts
    well = looks * TRAFFIC if counts is not None and counts.wants_more else 0
    series = {
        Series(revision, events, ""): Sample(well if events else looks * TRAFFIC, at)
        for revision in (cohort.canary, cohort.stable)
        for events in (False, True)
    }
    slots = Slots((looks * TRAFFIC,) * SLOTS, (well,) * SLOTS)
    return Reading(at, {}, slots=SlotTotals("foresight", slots), series=series)


def _places(status: Status) -> list[tuple[object, ...]]:
    """Where the cohorts are, without what is said about it."""
    return [
        (c.name, c.phase, c.stable, c.canary, c.step, c.weight, c.step_started_at)
        for c in status.cohorts
    ]


def _wait(step: Step) -> str:
    """What a step waits for: `` for 10m``; before it what happens meanwhile."""
    mirror = f" with {step.mirror.percent}% of requests mirrored" if step.mirror else ""
    if step.hold:
        passing = ", then until it passes" if step.until else ""
        return f"{mirror} for {step.hold}{passing}"
    if step.until:
        return f" until {step.until} {PROVEN}"
    return f"{mirror} until a person promotes" if step.pause is not None else ""


def released(status: Status) -> Status:
    """The status without what people hold."""
    cohorts = tuple(structs.replace(c, held=False) for c in status.cohorts)
    return structs.replace(status, held=False, cohorts=cohorts)


def serving(name: str, spec: Spec, now: datetime) -> Foresight:
    """A rollout in which the first revision serves everybody."""
    world = Foresight(name, spec, Status(), now, 1)
    world.run()
    return world
