"""The way of one cohort from one revision to the next: wait, prepare, raise, hold, promote."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

from msgspec import structs

from kohort.analysis.timestamps import from_time, to_time
from kohort.api.cohorts import Step, Until
from kohort.api.quantity import seconds
from kohort.api.status import CohortPhase, CohortStatus, Urged
from kohort.plan import evidence
from kohort.plan.capacity import reachable_weight
from kohort.plan.cohorts import awaited_cohorts, waiting_in_circles, waiting_message
from kohort.plan.context import cut, decided, normal, warning
from kohort.plan.mirroring import mirrored_percent
from kohort.plan.turn import Change, Turn

LONGEST_HOLDS = 4
"""How many times its hold an accused canary stays on a step."""

_UNDECIDED = "is accused, and waits for a person"

_BLIND = (
    "Kohort cannot read the counters of a Gateway API gateway (route.gatewayAPI.stepsByTime lets time "
    "alone end the steps)"
)


def begin_step(turn: Turn) -> Change | None:
    """A step begins when every gateway has its weight; the first one begins the evidence."""
    cohort = turn.cohort
    if not _on_step(turn) or cohort.step_started_at or not turn.context.in_effect:
        return None
    if turn.awaits_first_pods:
        return None
    cohort = structs.replace(
        cohort,
        held_back=cohort.canary if turn.on_holdback else "",
        step_started_at=to_time(turn.context.now),
        evidence=evidence.begun(turn.context, cohort) if _compared(turn) else cohort.evidence,
        urged=None if cohort.urged is Urged.NEXT else cohort.urged,
        message=f"{cohort.weight}% of clients are on {turn.label(cohort.canary)}",
    )
    return Change(cohort)


def hold_while_paused(turn: Turn) -> Change | None:
    """A pause holds what is under way; what is finished has nothing to hold."""
    cohort = turn.cohort
    if not turn.held or turn.settled or cohort.rejected == turn.desired:
        return None
    if not cohort.canary:
        return turn.saying(f"paused before {turn.label(turn.desired)}")
    return turn.saying(f"paused with {cohort.weight}% of clients on {turn.label(cohort.canary)}")


def settle(turn: Turn) -> Change | None:
    """A cohort on the desired revision has arrived once its clients are really sent there."""
    if not turn.settled:
        return None
    if turn.cohort.phase is not CohortPhase.STABLE and not turn.context.in_effect:
        return turn.saying(turn.context.awaited_gateways(), CohortPhase.PROMOTING)
    return turn.saying(f"on {turn.label(turn.desired)}", CohortPhase.STABLE)


def await_record(turn: Turn) -> Change | None:
    """No client meets a revision that is not on record."""
    if turn.cohort.canary or turn.target in turn.context.world.recorded:
        return None
    phase = CohortPhase.WAITING if turn.cohort.stable else CohortPhase.PENDING
    return turn.saying(f"waits until {turn.label(turn.target)} is recorded", phase)


def serve_first(turn: Turn) -> Change | None:
    """The first revision has nothing to be compared with: it serves when all of its pods are ready."""
    cohort = turn.cohort
    if cohort.stable:
        return None
    missing = turn.missing_pods(turn.desired, 100)
    if missing:
        return turn.saying(missing, turn.preparing(turn.desired))
    if turn.desired not in turn.context.world.recorded:
        return None
    first = f"{turn.label(turn.desired)} is the first revision; there is nothing to compare it with"
    cohort = structs.replace(
        decided(cohort, "Promoted", turn.desired, to_time(turn.context.now), first),
        stable=turn.desired,
        phase=CohortPhase.PROMOTING,
        message=f"on {turn.label(turn.desired)}",
    )
    return Change(cohort, (normal("Promoted", f"{cohort.name}: {first}"),))


def wait_turn(turn: Turn) -> Change | None:
    """A cohort starts after those that it names in ``after``, unless it goes back or somebody urges it."""
    if turn.cohort.canary or turn.at_once or turn.by_hand:
        return None
    circles = waiting_in_circles(turn.context.spec.cohorts)
    if turn.cohort.name in circles:
        return turn.saying(
            f"can never start: {', '.join(circles)} wait for each other; change after",
            CohortPhase.WAITING,
        )
    awaited = awaited_cohorts(turn.context, turn.status, turn.spec)
    if awaited:
        return turn.saying(waiting_message(turn.status, awaited), CohortPhase.WAITING)
    return None


def start(turn: Turn) -> Change | None:
    """Name the canary, with a salt of its own, before any client or pod is asked for."""
    if turn.cohort.canary:
        return None
    context, cohort = turn.context, turn.cohort
    started = to_time(context.now)
    cohort = structs.replace(
        cohort,
        canary=turn.target,
        step=len(turn.spec.stages) if turn.at_once else 0,
        weight=0,
        salt=_salt(context.identity.uid, cohort.name, turn.target, started),
        tried=turn.target,
        held_back="",
        attempt=cohort.attempt + 1 if cohort.tried == turn.target else 1,
        step_started_at=None,
        rejected=cohort.rejected if turn.leaving else "",
        evidence=(),
        phase=CohortPhase.PREPARING,
        message=f"prepares {turn.label(turn.target)}",
    )
    event = normal(
        "RolloutStarted",
        f"{cohort.name}: from {turn.label(cohort.stable)} to {turn.label(cohort.canary)}",
    )
    return Change(cohort, (event,))


def watch(turn: Turn) -> Change | None:
    """Clients on their way to a step's weight, as far as pods allow, are watched too, and those of a step
    that began where nobody could look."""
    cohort = turn.cohort
    begins = _on_step(turn) and cohort.step_started_at is None
    if not _compared(turn) or evidence.deciding(cohort) or begins or not turn.context.in_effect:
        return None
    return Change(structs.replace(cohort, evidence=evidence.begun(turn.context, cohort)))


def move_weight(turn: Turn) -> Change | None:
    """Give the canary its next weight, once its pods are ready for it and every gateway knows it."""
    cohort, context, goal = turn.cohort, turn.context, turn.next_weight
    if cohort.weight == goal:
        return None
    weight = reachable_weight(context, turn.status, cohort, goal)
    if weight == cohort.weight:
        receiver, carried = (cohort.canary, goal) if goal > weight else (cohort.stable, 100 - goal)
        missing = turn.missing_pods(receiver, carried)
        return turn.saying(f"before {goal}%: {missing}", turn.preparing(cohort.canary))
    if weight > cohort.weight and not context.in_effect:
        return turn.saying(f"before {goal}%: {context.awaited_gateways()}")
    told = f"{weight}% of clients on {turn.label(cohort.canary)}"
    cohort = structs.replace(
        cohort,
        weight=weight,
        step_started_at=None,
        phase=CohortPhase.PROMOTING if turn.steps_done else CohortPhase.ANALYZING,
        message=told,
    )
    return Change(cohort, (normal("WeightChanged", f"{cohort.name}: {told}"),))


def hold_step(turn: Turn) -> Change | None:
    """Stay on a step until its time is over or its proof is there, then go on to the next one."""
    if not _on_step(turn):
        return None
    cohort = turn.cohort
    replaced = cohort.holds_back and turn.desired != cohort.canary
    awaited = "" if replaced else _awaited(turn)
    if awaited:
        phase = CohortPhase.HOLDING_BACK if cohort.holds_back else CohortPhase.ANALYZING
        held = turn.saying(f"{cohort.weight}%: {awaited}", phase)
        if evidence.undecided(cohort) and _UNDECIDED not in cohort.message:
            return replace(held, events=(warning("Held", f"{cohort.name}: {held.cohort.message}"),))
        return held
    told = ""
    if turn.spec.stages[cohort.step].until is Until.PASS and _compared(turn):
        told = evidence.visible(turn.context, cohort)
    event = normal("StepPassed", f"{cohort.name}: {cohort.weight}%: no harm was seen; {told}")
    cohort = structs.replace(cohort, step=cohort.step + 1, step_started_at=None)
    return Change(cohort, (event,) if told else ())


def promote(turn: Turn) -> Change:
    """The canary that has all clients becomes the stable revision; its pods are not touched."""
    cohort, context = turn.cohort, turn.context
    if not context.in_effect:
        return turn.saying(f"100%: {context.awaited_gateways()}", CohortPhase.PROMOTING)
    promoted = f"{turn.label(cohort.canary)} took over from {turn.label(cohort.stable)}"
    seen = evidence.summary(cohort) or "its steps compared nothing"
    action = "RolledBack" if turn.leaving else "Promoted"
    cohort = structs.replace(
        decided(cohort, action, cohort.canary, to_time(context.now), seen),
        stable=cohort.canary,
        former="" if turn.leaving else cohort.stable,
        canary="",
        step=0,
        weight=0,
        step_started_at=None,
        evidence=evidence.closed(cohort),
        urged=None,
        phase=CohortPhase.ROLLED_BACK if turn.leaving else CohortPhase.STABLE,
        message=cut(promoted),
    )
    return Change(cohort, (normal(action, f"{cohort.name}: {promoted}: {seen}"),))


def hold_end(cohort: CohortStatus, step: Step) -> datetime | None:
    """When a step's time is over; None without a hold, or before the step began.

    Time in which nobody could look, before the counters were first read, does not count.
    """
    if step.hold is None or cohort.step_started_at is None:
        return None
    looked = [e.since for e in cohort.evidence if e.since is not None and not e.watched]
    began = max(map(from_time, (cohort.step_started_at, *looked)))
    return began + timedelta(seconds=seconds(step.hold))


def _awaited(turn: Turn) -> str:
    """What the step still waits for; empty when nothing."""
    cohort, context = turn.cohort, turn.context
    step = turn.spec.stages[cohort.step]
    if cohort.step_started_at is None:
        first = turn.missing_pods(cohort.canary, 0) if turn.awaits_first_pods else ""
        return first or context.awaited_gateways()
    if context.waits_for_person(step):
        blind = "" if step.pause is not None else f"; {_BLIND}"
        command = f"kubectl kohort promote {context.identity.name} {cohort.name}"
        return f"waits for a person: {command}{blind}"
    compared = _compared(turn)
    if compared and (accused := evidence.undecided(cohort)):
        name = f"{context.identity.name} {cohort.name}"
        people = f"kubectl kohort promote {name}, or kubectl kohort abort {name}"
        return f"{_UNDECIDED}, or for evidence to end: {people}; {accused}"
    if step.until is Until.NON_INFERIOR and compared:
        return evidence.unproven(context, cohort) or evidence.awaited_clients(context, cohort)
    end = hold_end(cohort, step)
    if end is None:
        return ""
    lacking = compared and (
        evidence.untrusted(cohort)
        or evidence.unseen(cohort, cohort.step_started_at)
        or evidence.awaited_clients(context, cohort)
    )
    if lacking:
        return lacking
    if context.now < end:
        held = f"holds until {end:%H:%M:%S} UTC"
        if compared and step.until is Until.PASS:
            held = f"{held}; {evidence.visible(context, cohort)}"
        return f"{held}; {evidence.summary(cohort)}" if compared else held
    if compared and not evidence.read_since(cohort, end):
        return "its time is over; waits for one more look at the counters"
    if compared and step.until is Until.PASS:
        return evidence.unpassed(context, cohort)
    if compared and context.now < _longest(cohort, end):
        accused = evidence.accusation(context, cohort)
        return f"stays, as it is accused: {accused}" if accused else ""
    return ""


def _longest(cohort: CohortStatus, end: datetime) -> datetime:
    """Until when an accused canary stays on its step, for client slots to bear it out or not.

    Not for ever: where one client's requests fail, single requests may accuse a good revision.
    """
    began = from_time(cohort.step_started_at) if cohort.step_started_at else end
    return began + LONGEST_HOLDS * (end - began)


def _compared(turn: Turn) -> bool:
    """Whether both arms have clients, or answer mirrored requests, and their gateways count them."""
    cohort = turn.cohort
    answering = 0 < cohort.weight < 100 or mirrored_percent(turn.spec, cohort) > 0
    return answering and turn.context.own_gateways


def _on_step(turn: Turn) -> bool:
    """Whether the canary has the weight of the step that the cohort is on."""
    cohort = turn.cohort
    return bool(cohort.canary) and not turn.steps_done and cohort.weight == turn.next_weight


def _salt(uid: str, cohort: str, canary: str, started: str) -> str:
    return hashlib.sha256(f"{uid}/{cohort}/{canary}/{started}".encode()).hexdigest()[:16]
