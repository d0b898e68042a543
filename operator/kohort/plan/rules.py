"""The rules of a cohort's turn, in their order: the first one that applies decides."""

from __future__ import annotations

from kohort.api.spec import OnFailure
from kohort.plan import rollback, rollout
from kohort.plan.context import Context, Draft
from kohort.plan.evidence import watched
from kohort.plan.turn import Change, Rule, Turn

RULES: tuple[Rule, ...] = (
    rollback.go_back,
    rollout.watch,
    rollout.begin_step,  # before a pause holds: a canary that has clients is watched
    rollout.hold_while_paused,
    rollback.give_up,
    rollout.settle,
    rollback.stay_back,
    rollout.serve_first,
    rollout.await_record,
    rollout.wait_turn,
    rollout.start,
    rollout.move_weight,
    rollout.hold_step,
    rollout.promote,
)


def take_turns(context: Context, draft: Draft) -> Draft:
    """Each cohort in order takes at most one decision on what was persisted."""
    for spec in context.spec.cohorts:
        cohort = next(c for c in draft.status.cohorts if c.name == spec.name)
        change = decide(Turn(context, draft.status, spec, watched(context, cohort)))
        draft = draft.with_status(
            cohorts=tuple(change.cohort if c.name == spec.name else c for c in draft.status.cohorts)
        ).telling(*change.events)
        if change.failed == draft.status.desired and _all_go_back(context):
            draft = rollback.go_back_together(context, draft, because=change.cohort.name)
    return draft


def _all_go_back(context: Context) -> bool:
    return context.spec.on_failure is OnFailure.ROLL_BACK_ALL


def decide(turn: Turn) -> Change:
    """What the first rule that applies makes of the cohort; the last rule always applies."""
    return next(change for rule in RULES if (change := rule(turn)) is not None)
