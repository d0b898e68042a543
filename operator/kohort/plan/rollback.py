"""The ways out of a rollout: harm was seen, or the spec asks for something else."""

from __future__ import annotations

from msgspec import structs

from kohort.analysis.timestamps import to_time
from kohort.api.status import CohortPhase, CohortStatus
from kohort.plan import evidence
from kohort.plan.capacity import reachable_weight
from kohort.plan.context import Context, Draft, cut, decided, label, normal, warning
from kohort.plan.turn import Change, Turn


def go_back(turn: Turn) -> Change | None:
    """Harm sends the cohort back at once, whatever else is awaited."""
    cohort = turn.cohort
    seen = evidence.harm(cohort)
    if not cohort.canary or seen is None:
        return None
    back = f"{turn.label(cohort.canary)} went back to {turn.label(cohort.stable)}: {seen.message}"
    cohort = structs.replace(
        decided(cohort, "RolledBack", cohort.canary, to_time(turn.context.now), seen.message),
        canary="",
        weight=0,
        step_started_at=None,
        rejected=cohort.canary if cohort.canary == turn.desired else "",
        evidence=evidence.closed(cohort),
        phase=CohortPhase.ROLLED_BACK,
        urged=None,
        message=cut(back),
    )
    event = warning("RolledBack", f"{cohort.name}: {back}")
    return Change(cohort, (event,), failed=turn.cohort.canary)


def go_back_together(context: Context, draft: Draft, because: str) -> Draft:
    """The other cohorts reject the desired revision too; those on it already start their way back."""
    status = draft.status
    desired = status.desired
    told = f"{label(status, desired)} failed in {because}"

    def rejecting(cohort: CohortStatus) -> CohortStatus:
        on_it = cohort.stable == desired
        if cohort.rejected == desired or (on_it and cohort.former not in context.world.recorded):
            return cohort
        back_on = cohort.former if on_it else cohort.stable
        message = cut(f"{told}; back to {label(status, back_on)}")
        return structs.replace(
            decided(cohort, "RolledBack", desired, to_time(context.now), message),
            canary="",
            weight=0,
            step=0,
            step_started_at=None,
            urged=None,
            rejected=desired,
            evidence=evidence.closed(cohort),
            phase=CohortPhase.ROLLED_BACK,
            message=message,
        )

    others = [c for c in status.cohorts if c.name != because and c.stable]
    changed = {c.name: rejecting(c) for c in others}
    events = [
        warning("RolledBack", f"{n}: {c.message}") for n, c in changed.items() if c not in others
    ]
    cohorts = tuple(changed.get(c.name, c) for c in status.cohorts)
    return draft.with_status(cohorts=cohorts).telling(*events)


def give_up(turn: Turn) -> Change | None:
    """A canary that the spec asks for no more: clients leave it first, then another may come."""
    cohort = turn.cohort
    if not cohort.canary or cohort.canary == turn.target:
        return None
    change = (
        f"{turn.label(cohort.canary)} was given up: the spec asks for {turn.label(turn.desired)}"
    )
    if cohort.weight:
        weight = reachable_weight(turn.context, turn.status, cohort, goal=0)
        if weight == cohort.weight:
            return turn.saying(f"{change}; before: {turn.missing_pods(cohort.stable, 100)}")
        return Change(
            structs.replace(
                cohort,
                weight=weight,
                step=0,
                step_started_at=None,
                phase=cohort.phase if weight else CohortPhase.PREPARING,
                message=cut(change),
            )
        )
    if not turn.context.in_effect:
        return turn.saying(f"{change}; {turn.context.awaited_gateways()}")
    cohort = structs.replace(
        decided(cohort, "Superseded", cohort.canary, to_time(turn.context.now), change),
        canary="",
        step=0,
        step_started_at=None,
        evidence=(),
        message=cut(change),
    )
    return Change(cohort, (normal("Superseded", f"{cohort.name}: {change}"),))


def stay_back(turn: Turn) -> Change | None:
    """What was rejected is not tried again while the spec asks for it."""
    if turn.cohort.canary or turn.leaving or turn.cohort.rejected != turn.desired:
        return None
    return turn.saying(turn.cohort.message, CohortPhase.ROLLED_BACK)
