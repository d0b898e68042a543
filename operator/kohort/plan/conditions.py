"""What people and programs are told: phase, message, conditions by the kstatus rules, columns."""

from __future__ import annotations

from collections.abc import Iterable

from kohort.analysis.timestamps import to_time
from kohort.api.status import (
    CohortPhase,
    CohortStatus,
    Condition,
    Phase,
    RevisionStatus,
    Status,
    Summary,
)
from kohort.contract import LABEL_MODEL, PROTOCOL_SEGMENT
from kohort.plan import addressing
from kohort.plan.addressing import Told
from kohort.plan.capacity import target
from kohort.plan.cohorts import awaited_cohorts, unknown_names, waiting_in_circles
from kohort.plan.context import Context, Draft, cut, label, referenced, warning
from kohort.plan.outcome import Event
from kohort.plan.pausing import is_paused
from kohort.plan.revisions import asked_for

# What cohorts that wait for pods may be called after; the first tells most.
_PASSING = (Phase.WAITING_FOR_GPU, Phase.COMPILING, Phase.DOWNLOADING)
# Reasons of a cohort that is back, of which an event has told, and beside which others may go on.
_WENT_BACK = frozenset({"RolledBack", "Aborted", "Undone"})
_PATHS_TAKEN = f"paths below /{PROTOCOL_SEGMENT} are those of models that are called by host"


def report(context: Context, draft: Draft) -> Draft:
    """Write down what the rest of the status means."""
    status = draft.status
    pods = context.world.capacity.values()
    stalled = _stalled(context, status)
    told = (
        _accepted(context),
        _available(context, status),
        _ready(context, status),
        _reconciling(context, status, stalled),
        *addressing.conditions(context, status),
        _recorded(context, status),
        stalled,
    )
    conditions = tuple(
        _condition(context, status, condition) for condition in told if condition.status is not None
    )
    draft = draft.telling(*_stall_events(status, stalled))
    return draft.with_status(
        observed_generation=context.identity.generation,
        phase=phase(context, status),
        message=message(context, status),
        # An autoscaler takes what is here for what spec.replicas made: pods beyond it would make more.
        replicas=min(context.spec.replicas, sum(c.pods for c in pods)),
        ready_replicas=sum(c.ready for c in pods),
        selector=f"{LABEL_MODEL}={context.identity.name}",
        summary=columns(context, status),
        conditions=conditions,
    )


def phase(context: Context, status: Status) -> Phase:
    """Where the whole rollout is, for people."""
    if _halted(context, status):
        return Phase.PAUSED
    if any(_leaves(status, c) for c in status.cohorts):
        return Phase.ROLLING_BACK
    if any(c.weight and not _finished(status, c) for c in status.cohorts):
        return Phase.ANALYZING
    for passing in _PASSING:
        if any(c.phase.value == passing.value for c in status.cohorts):
            return passing
    if any(not c.stable for c in status.cohorts):
        return Phase.PENDING
    if _moving(context, status):
        return Phase.PROGRESSING
    if _rejecting(status) and not context.in_effect:
        return Phase.ROLLING_BACK
    if _unfinished(status) or status.pinned:
        return Phase.DEGRADED
    waiting = _short_of_pods(status) or addressing.unrouted(context, status)
    return Phase.PROGRESSING if waiting else Phase.HEALTHY


def message(context: Context, status: Status) -> str:
    """The whole state in one line: who is not served, what is not finished, or what serves."""
    open_cohorts = [c for c in status.cohorts if not _finished(status, c)]
    if open_cohorts:
        on_stable = [c for c in status.cohorts if c.stable and c.weight < 100]
        unserved = [c.name for c in on_stable if not context.ready(c.stable)]
        outage = [f"no ready pod serves {', '.join(unserved)}"] if unserved else []
        serving = {c.stable for c in on_stable}
        short = [
            _pods_told(r) for r in _short_of_pods(status) if r.name in serving and r.ready_replicas
        ]
        return cut("; ".join(outage + short + [f"{c.name}: {c.message}" for c in open_cohorts]))
    lacking = _short_of_pods(status)
    if lacking:
        return cut("; ".join(_pods_told(r) for r in lacking))
    if addressing.unrouted(context, status):
        return cut(context.awaited_gateways())
    held_back = [f"{c.name}: {c.message}" for c in status.cohorts if c.holds_back]
    if held_back:
        few = "all clients but those that are held back"
        return cut(f"{label(status, status.desired)} serves {few}; {'; '.join(held_back)}")
    return cut(
        f"{label(status, status.desired)} serves every client with "
        f"{context.ready(status.desired)} of {context.spec.replicas} pods ready"
    )


def columns(context: Context, status: Status) -> Summary:
    """The columns of ``kubectl get``: each figure once, in the cohorts' order."""
    rolling = [c for c in status.cohorts if c.canary]
    lengths = {c.name: len(c.stages) for c in context.spec.cohorts}
    return Summary(
        stable=_listed(label(status, c.stable) for c in status.cohorts if c.stable),
        canary=_listed(label(status, c.canary) for c in rolling),
        weight=_listed(f"{c.weight}%" for c in rolling),
        step=_listed(f"{min(c.step + 1, lengths[c.name])}/{lengths[c.name]}" for c in rolling),
    )


def overdue(context: Context, status: Status) -> tuple[RevisionStatus, ...]:
    """Revisions whose pods are awaited for longer than the progress deadline; not while paused."""
    if is_paused(context, status):
        return ()
    return tuple(
        r
        for r in status.revisions
        if r.preparing_since and context.since(r.preparing_since) >= context.progress_deadline
    )


def _accepted(context: Context) -> Told:
    unknown = unknown_names(context.spec.cohorts)
    if unknown:
        told = f"after names {', '.join(unknown)}, which is no cohort: ignored; correct the name"
        return Told("Accepted", False, "UnknownCohort", told)
    namespace, name = context.identity.namespace, context.identity.name
    if namespace == PROTOCOL_SEGMENT and "." not in name:
        told = f"gateways know it by the host {name}.{namespace} alone: {_PATHS_TAKEN}"
        return Told("Accepted", True, "ByHostOnly", told)
    return Told("Accepted", None)


def _available(context: Context, status: Status) -> Told:
    without = [c.name for c in status.cohorts if not c.stable or not context.ready(c.stable)]
    if without:
        return Told("Available", False, "NoReadyPods", f"no ready pod serves {', '.join(without)}")
    return Told("Available", True, "Serving", "every cohort has ready pods")


def _ready(context: Context, status: Status) -> Told:
    told = message(context, status)
    back = _rejecting(status)
    if back:
        return Told("Ready", False, _why_back(back), told)
    if _halted(context, status):
        return Told("Ready", False, "Paused", told)
    if _unfinished(status):
        return Told("Ready", False, _problem(status) or phase(context, status).value, told)
    if _short_of_pods(status):
        return Told("Ready", False, _problem(status) or "PodsNotReady", told)
    if status.pinned:
        return Told("Ready", False, "Undone", _undone(status))
    if addressing.unrouted(context, status):
        return Told("Ready", False, "RoutesNotAccepted", told)
    held_back = any(c.holds_back for c in status.cohorts)
    return Told("Ready", True, "HoldingBack" if held_back else "Promoted", told)


def _reconciling(context: Context, status: Status, stalled: Told) -> Told:
    if stalled.status and stalled.reason not in _WENT_BACK:
        return Told("Reconciling", None)  # or kstatus would not hear of the other
    if _halted(context, status):
        return Told("Reconciling", True, "Paused", message(context, status))
    waiting = _short_of_pods(status) or addressing.unrouted(context, status)
    if _moving(context, status) or waiting:
        return Told(
            "Reconciling",
            True,
            phase(context, status).value,
            message(context, status),
        )
    return Told("Reconciling", None)


def _recorded(context: Context, status: Status) -> Told:
    """What the spec asks for is recorded again; of another revision nobody knows the pod template."""
    known = context.world.recorded.keys() | {asked_for(context)}
    lost = [r for r in status.revisions if r.name in referenced(status) and r.name not in known]
    if not lost:
        return Told("Recorded", None)
    names = ", ".join(f"v{r.number} ({r.name})" for r in lost)
    told = (
        f"the ControllerRevision of {names} was deleted: pods serve on as they are, but can neither be "
        "scaled nor made again; restore it from a backup, or apply another model"
    )
    return Told("Recorded", False, "RecordDeleted", told)


def _stalled(context: Context, status: Status) -> Told:
    if context.identity.namespace == PROTOCOL_SEGMENT and "." in context.identity.name:
        told = (
            f"no gateway can serve it: {_PATHS_TAKEN}, and a name with dots makes no host;"
            " take another name or namespace"
        )
        return Told("Stalled", True, "NoAddress", told)
    if context.world.gateways.refused:
        return Told("Stalled", True, "RoutesRefused", context.awaited_gateways())
    circles = waiting_in_circles(context.spec.cohorts)
    if circles:
        told = f"cohorts {', '.join(circles)} wait for each other; change after"
        return Told("Stalled", True, "CircularAfter", told)
    late = overdue(context, status)
    if late:
        told = "; ".join(f"{_pods_told(r)} after {context.spec.progress_deadline}" for r in late)
        return Told("Stalled", True, "ProgressDeadlineExceeded", told)
    back = _rejecting(status)
    if back:
        told = "; ".join(f"{c.name}: {c.message}" for c in back)
        return Told("Stalled", True, _why_back(back), told)
    if status.pinned and not _moving(context, status):
        return Told("Stalled", True, "Undone", _undone(status))
    return Told("Stalled", None)


def _stall_events(status: Status, stalled: Told) -> tuple[Event, ...]:
    """A warning when a rollout stalls for a reason that nothing else has told."""
    former = next((c for c in status.conditions if c.type == "Stalled"), None)
    if not stalled.status or stalled.reason in _WENT_BACK:
        return ()
    if former is not None and former.reason == stalled.reason:
        return ()
    return (warning(stalled.reason, stalled.message),)


def _condition(context: Context, status: Status, told: Told) -> Condition:
    """The condition with the time at which its status last changed."""
    value = "True" if told.status else "False"
    former = next((c for c in status.conditions if c.type == told.type), None)
    same = former is not None and former.status == value
    return Condition(
        type=told.type,
        status=value,
        reason=told.reason,
        message=cut(told.message),
        last_transition_time=former.last_transition_time
        if former is not None and same
        else to_time(context.now),
        observed_generation=context.identity.generation,
    )


def _halted(context: Context, status: Status) -> bool:
    """Whether all that is left to do waits for a person."""
    open_cohorts = [
        c for c in status.cohorts if not _finished(status, c) and c.rejected != status.desired
    ]
    if is_paused(context, status):
        return bool(open_cohorts)
    steps = {c.name: c.stages for c in context.spec.cohorts}

    def waits_for_a_person(cohort: CohortStatus) -> bool:
        step = steps[cohort.name][cohort.step : cohort.step + 1] if cohort.canary else ()
        on_it = cohort.step_started_at is not None and cohort.canary == status.desired
        return cohort.held or (on_it and any(map(context.waits_for_person, step)))

    rolling = [c for c in open_cohorts if c.phase is not CohortPhase.WAITING]
    return bool(rolling) and all(map(waits_for_a_person, rolling))


def _why_back(back: Iterable[CohortStatus]) -> str:
    """Whether harm or a person sent the cohorts back."""
    newest = {c.decisions[0].action for c in back if c.decisions}
    return "Aborted" if newest == {"Aborted"} else "RolledBack"


def _undone(status: Status) -> str:
    return (
        f"{label(status, status.pinned)} serves because a person undid "
        f"{label(status, status.pinned_over)}, which the spec asks for: apply another model, or "
        f"undo to={label(status, status.pinned_over)} to try it again"
    )


def _finished(status: Status, cohort: CohortStatus) -> bool:
    settled = cohort.stable == status.desired and cohort.phase is CohortPhase.STABLE
    return settled or (cohort.holds_back and cohort.canary == status.desired)


def _unfinished(status: Status) -> bool:
    return not all(_finished(status, c) for c in status.cohorts)


def _rejecting(status: Status) -> tuple[CohortStatus, ...]:
    return tuple(c for c in status.cohorts if c.rejected == status.desired)


def _leaves(status: Status, cohort: CohortStatus) -> bool:
    """Whether clients are to leave the revision that they have: it failed in another cohort, or is a
    canary that the spec asks for no more."""
    if cohort.rejected and cohort.rejected == cohort.stable:
        return True
    return bool(cohort.weight) and cohort.canary != target(status, cohort)


def _moving(context: Context, status: Status) -> bool:
    """Whether any cohort can still get nearer to what the spec asks for."""
    stuck: set[str] = {c.name for c in _rejecting(status)}
    stuck |= set(waiting_in_circles(context.spec.cohorts))
    known = {c.name: c for c in status.cohorts}
    for _ in context.spec.cohorts:
        stuck |= {
            spec.name
            for spec in context.spec.cohorts
            if known[spec.name].phase is CohortPhase.WAITING
            and any(a.name in stuck for a in awaited_cohorts(context, status, spec))
        }
    return any(not _finished(status, c) and c.name not in stuck for c in status.cohorts)


def _short_of_pods(status: Status) -> tuple[RevisionStatus, ...]:
    used = referenced(status)
    return tuple(r for r in status.revisions if r.name in used and r.ready_replicas < r.replicas)


def _problem(status: Status) -> str:
    """The reason of the first revision whose pods have a problem."""
    return next((r.reason for r in status.revisions if r.reason), "")


def _pods_told(revision: RevisionStatus) -> str:
    why = f": {revision.message}" if revision.message else ""
    return f"{revision.ready_replicas} of {revision.replicas} pods of v{revision.number} are ready{why}"


def _listed(texts: Iterable[str]) -> str:
    return ",".join(dict.fromkeys(texts))
