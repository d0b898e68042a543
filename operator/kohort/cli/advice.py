"""What a careful team would do otherwise in a spec that is valid: advice, never an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kohort.api.cohorts import Cohort, HeaderMatch, Match, Step
from kohort.api.quantity import seconds
from kohort.api.spec import GPUCapacity, Spec
from kohort.cli.schema import Problem

SHORTEST_COMPARISON = 60.0
"""Seconds of comparing below which a rollout mostly ends before rare failures can be seen."""
SHORTEST_DEADLINE = 60.0
GREATEST_FIRST_WEIGHT = 50


def advice(spec: Spec) -> Iterator[Problem]:
    """Each piece of advice with the path that it is about."""
    for look in _LOOKS:
        yield from look(spec)
    for index, cohort in enumerate(spec.cohorts):
        yield from _cohort(cohort, f"spec.cohorts[{index}]")


def _replicas(spec: Spec) -> Iterator[Problem]:
    if spec.replicas == 1:
        yield Problem(
            "spec.replicas",
            "one replica: clients get errors while its pod or node restarts; have two",
        )


def _swap(spec: Spec) -> Iterator[Problem]:
    if spec.gpu and spec.gpu.capacity is GPUCapacity.SWAP and spec.replicas == 1:
        yield Problem(
            "spec.gpu.capacity",
            "Swap with one replica: the only pod cannot make room without an outage, so a new "
            "revision's pod waits until another GPU is free; have two replicas, or a GPU to spare",
        )


def _held(spec: Spec) -> Iterator[Problem]:
    if spec.paused:
        yield Problem("spec.paused", "true: no cohort goes on until this is taken out again")


def _deadline(spec: Spec) -> Iterator[Problem]:
    if seconds(spec.progress_deadline) < SHORTEST_DEADLINE:
        yield Problem(
            "spec.progressDeadline",
            f"{spec.progress_deadline}: fetching and loading a model often takes longer, which is then "
            "told as Stalled",
        )


def _template(spec: Spec) -> Iterator[Problem]:
    for name in sorted(spec.template.keys() - {"metadata", "spec"}):
        yield Problem(
            f"spec.template.{name}", "a pod template has metadata and spec; does this belong there?"
        )


def _unreachable(spec: Spec) -> Iterator[Problem]:
    """Cohorts of which every client belongs to one that stands earlier."""
    for index, cohort in enumerate(spec.cohorts):
        if not cohort.match:
            continue
        earlier = [(c.name, match) for c in spec.cohorts[:index] for match in c.match]
        takers = [
            [name for name, wider in earlier if _within(match, wider)] for match in cohort.match
        ]
        if all(takers):
            first = ", ".join(dict.fromkeys(names[0] for names in takers))
            yield Problem(
                f"spec.cohorts[{index}].match",
                f"{cohort.name} never gets a client: all that match belong to {first}, which stands "
                "earlier",
            )


_LOOKS: tuple[Callable[[Spec], Iterator[Problem]], ...] = (
    _replicas,
    _swap,
    _held,
    _deadline,
    _template,
    _unreachable,
)


def _within(match: Match, wider: Match) -> bool:
    """Whether every request that ``match`` takes is one that ``wider`` takes."""
    return all(any(_implies(own, header) for own in match.headers) for header in wider.headers)


def _implies(header: HeaderMatch, wider: HeaderMatch) -> bool:
    return header.name == wider.name and set(header.accepted()) <= set(wider.accepted())


def _cohort(cohort: Cohort, path: str) -> Iterator[Problem]:
    compared = [step for step in cohort.steps if 0 < step.weight < 100]
    path = f"{path}.steps"
    if not compared:
        yield Problem(
            path,
            f"{cohort.name} is given the new revision all at once: with nothing to compare with, no "
            "harm can be seen; put a step of a lower weight before it",
        )
        return
    if compared[0].weight > GREATEST_FIRST_WEIGHT:
        yield Problem(
            f"{path}[{cohort.steps.index(compared[0])}].weight",
            f"the first clients are {compared[0].weight}% of {cohort.name}: begin with fewer",
        )
    for index, step in enumerate(cohort.steps):
        if not _waits(step) and step.weight < 100:
            yield Problem(
                f"{path}[{index}]",
                "neither hold, until nor pause: it is left as soon as every gateway has it",
            )
    held = sum(seconds(step.hold) for step in compared if step.hold)
    decided = any(step.until or step.pause for step in compared)
    if held < SHORTEST_COMPARISON and not decided:
        yield Problem(
            path,
            f"{cohort.name} is compared for {held:g} s in all: only gross harm shows in so short a "
            "time; hold longer, or use until: NonInferior",
        )


def _waits(step: Step) -> bool:
    return bool(step.hold or step.until or step.pause)
