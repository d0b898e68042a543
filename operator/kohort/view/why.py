"""Why each cohort is where it is, in plain words: one paragraph per cohort."""

from __future__ import annotations

import re
from collections.abc import Callable

from kohort.analysis.wording import figures
from kohort.api.cohorts import Until
from kohort.api.quantity import seconds
from kohort.api.status import CohortPhase, Decision, Evidence
from kohort.view.rollout import CohortView, ModelView
from kohort.view.words import asked_by, clock, duration, parse_time, sentence, stopped

_SETTLED = (CohortPhase.STABLE, CohortPhase.ROLLED_BACK)


def why(view: ModelView) -> list[str]:
    """One paragraph per cohort, in the order of the spec; one in all while there is no cohort yet."""
    if not view.cohorts:
        return [
            f"{view.name}: Kohort has not looked at it yet. If this lasts, see whether its operator "
            "runs and whether it watches this namespace."
        ]
    return [why_cohort(cohort, view) for cohort in view.cohorts]


def why_cohort(cohort: CohortView, view: ModelView) -> str:
    """Where one cohort is, why, since when, what is awaited, and what was decided last."""
    parts = [
        *_PLACES[cohort.phase](cohort, view),
        _outage(cohort, view),
        _awaited(cohort),
        _paused(cohort, view),
        _last_decision(cohort, view),
    ]
    return " ".join(filter(None, parts))


def _pending(cohort: CohortView, view: ModelView) -> list[str]:
    return [
        f"{cohort.name} has no revision yet, so its clients get no answer.",
        _pods(cohort, view, view.desired),
    ]


def _waiting(cohort: CohortView, view: ModelView) -> list[str]:
    return [f"{cohort.name} stays on {cohort.stable} and has not begun with {view.desired}."]


def _preparing(cohort: CohortView, view: ModelView) -> list[str]:
    return [
        f"{cohort.name} is on {cohort.stable}; none of its clients has {cohort.canary} yet.",
        _pods(cohort, view, cohort.canary),
    ]


def _waiting_for_gpu(cohort: CohortView, view: ModelView) -> list[str]:
    place = (_preparing if cohort.stable else _pending)(cohort, view)
    return [*place, "It goes on by itself when there is a GPU."]


def _starting(cohort: CohortView, view: ModelView) -> list[str]:
    return (_preparing if cohort.stable else _pending)(cohort, view)


def _analyzing(cohort: CohortView, view: ModelView) -> list[str]:
    step = f" (step {cohort.step_text.replace('/', ' of ')})" if cohort.step_text else ""
    share = f"{cohort.name} has {cohort.weight}% of its clients on {cohort.canary}{step}"
    if cohort.since is None:
        place = f"{share}, or soon will: not every gateway has taken this weight yet."
    else:
        held = duration((view.now - cohort.since).total_seconds())
        place = f"{share} since {clock(cohort.since, view.now)}, {held} ago"
        place += f"; the others are on {cohort.stable}." if cohort.weight < 100 else "."
    return [place, *map(_seen, cohort.evidence), _step_ends(cohort, view)]


def _holding_back(cohort: CohortView, view: ModelView) -> list[str]:
    ends = ""
    if cohort.since and cohort.steps:
        last = cohort.steps[-1].hold or ""
        ends = f" {last} from {clock(cohort.since, view.now)} on"
    return [
        f"{cohort.name} is on {cohort.canary}, but for {100 - cohort.weight}% of its clients, which are held "
        f"back on {cohort.stable}{ends} to go on comparing: harm sends all of them back.",
        *map(_seen, cohort.evidence),
    ]


def _promoting(cohort: CohortView, view: ModelView) -> list[str]:
    return [
        f"{cohort.name} passed every step and is being promoted from {cohort.stable} to "
        f"{cohort.canary}: pods for all of its clients first, then the clients.",
        _pods(cohort, view, cohort.canary),
        *map(_seen, cohort.evidence),
    ]


def _stable(cohort: CohortView, view: ModelView) -> list[str]:
    place = f"{cohort.name} is on {cohort.stable}"
    asked = ""
    if cohort.stable == view.desired:
        asked = ", which the spec asks for"
        if view.instead_of:
            asked = f", {_wanted(cohort)} instead of {view.instead_of}, until the spec changes"
    promoted = _decision(cohort, "Promoted")
    if promoted is None or promoted.revision != cohort.stable:
        return [f"{place}{asked}."]
    told = f": {promoted.message}" if promoted.message else ""
    return [stopped(f"{place}{asked}. It was promoted{_at(promoted, view)}{told}")]


def _wanted(cohort: CohortView) -> str:
    """Who wants the revision, and why."""
    undone = _decision(cohort, "Undone")
    if undone is None:
        return "which a person wants"
    return f"which {undone.by or 'a person'} wants" + (f" ({undone.why})" if undone.why else "")


def _rolled_back(cohort: CohortView, view: ModelView) -> list[str]:
    back = _decision(cohort, "RolledBack", "Aborted")
    failed = cohort.rejected or (back.revision if back else "its canary")
    if back is None:
        place = f"{cohort.name} went back from {failed} to {cohort.stable}."
        return [place, *map(_seen, cohort.evidence), _not_again(cohort, view)]
    told = f": {back.message}" if back.message else ""
    if back.action == "Aborted":
        told = f": it was aborted{asked_by(back.by, back.why)}"
    place = f"{cohort.name} went back from {failed} to {cohort.stable}{_at(back, view)}"
    return [stopped(f"{place}{_after(cohort, back, failed)}{told}"), _not_again(cohort, view)]


_PLACES: dict[CohortPhase, Callable[[CohortView, ModelView], list[str]]] = {
    CohortPhase.PENDING: _pending,
    CohortPhase.WAITING: _waiting,
    CohortPhase.PREPARING: _preparing,
    CohortPhase.WAITING_FOR_GPU: _waiting_for_gpu,
    CohortPhase.COMPILING: _starting,
    CohortPhase.DOWNLOADING: _starting,
    CohortPhase.ANALYZING: _analyzing,
    CohortPhase.PROMOTING: _promoting,
    CohortPhase.HOLDING_BACK: _holding_back,
    CohortPhase.STABLE: _stable,
    CohortPhase.ROLLED_BACK: _rolled_back,
}


def _pods(cohort: CohortView, view: ModelView, label: str) -> str:
    """How many pods of a revision are ready, since when they are awaited, and what stops them."""
    revision = next((r for r in view.revisions if r.label == label), None)
    if revision is None:
        return ""
    told = f"pods of {label} are ready" in cohort.message
    since = ""
    if revision.since and revision.ready < revision.wanted:
        waited = duration((view.now - revision.since).total_seconds())
        since = f"awaited since {clock(revision.since, view.now)}, {waited} ago"
    if told:
        return f"Pods are {since}." if since else ""
    counted = f"{revision.ready:,} of {revision.wanted:,} pods of {label} are ready"
    return f"{', '.join(filter(None, (counted, since)))}." + (
        f" {stopped(revision.problem)}" if revision.problem else ""
    )


def _outage(cohort: CohortView, view: ModelView) -> str:
    """That nothing serves the clients on stable, and why."""
    revision = next((r for r in view.revisions if r.label == cohort.stable), None)
    if revision is None or revision.ready or cohort.weight == 100:
        return ""
    told = f"No pod of {cohort.stable} is ready, so its clients get errors"
    return stopped(f"{told}: {revision.problem}" if revision.problem else told)


def _seen(evidence: Evidence) -> str:
    """What one metric shows, in the words of the analysis where it left some."""
    seen = evidence.message or figures(evidence.canary, evidence.stable)
    watched = ", which is only watched" if evidence.watched else ""
    return stopped(f"On {evidence.metric}{watched}: {seen}")


def _step_ends(cohort: CohortView, view: ModelView) -> str:
    """What ends the present step, as the spec has it."""
    if cohort.since is None or cohort.step >= len(cohort.steps):
        return ""
    step = cohort.steps[cohort.step]
    if step.until is Until.NON_INFERIOR:
        return f"The step lasts until {cohort.canary} is proven to be not worse than the margin allows."
    if not step.hold or view.paused_since or cohort.held:
        return ""
    passing = ", and until harm of the margin would have been seen" if step.until else ""
    left = seconds(step.hold) - max(0.0, (view.now - cohort.since).total_seconds())
    if left <= 0:
        return f"The step's {step.hold} are over{passing.replace('and', 'but it is held')}."
    return f"The step is held for {step.hold}, {duration(left)} more{passing}."


def _awaited(cohort: CohortView) -> str:
    """What the cohort's message adds to what is told of its weight, step, pause and evidence."""
    if cohort.phase in _SETTLED:
        return ""
    message = cohort.message
    for evidence in cohort.evidence:
        message = message.replace(evidence.message, "") if evidence.message else message
    message = _WEIGHT.sub("", message).strip(" ;:")
    return "" if message.startswith(_TOLD_OTHERWISE) else sentence(message)


_WEIGHT = re.compile(r"^\d+%: ")
_TOLD_OTHERWISE = ("holds until ", "paused ")  # with times of the reader's own zone


def _paused(cohort: CohortView, view: ModelView) -> str:
    """That a pause of the spec or of a person holds the cohort, and how it goes on."""
    by_hand = cohort.held or view.held
    paused_since = (cohort.held_since if cohort.held else None) or view.paused_since
    if paused_since is None or cohort.phase == CohortPhase.STABLE:
        return ""
    since = clock(paused_since, view.now)
    limits = "it goes no further, but evidence of harm still sends it back."
    if not by_hand:
        return f"Paused since {since}: {limits}"
    again = f"kubectl kohort resume {view.name}" + ("" if view.held else f" {cohort.name}")
    return f"Held by hand since {since}, until {again}: {limits}"


def _last_decision(cohort: CohortView, view: ModelView) -> str:
    """The newest decision, where the sentence about the cohort's place has not told it already."""
    if cohort.phase in _SETTLED or not cohort.decisions:
        return ""
    last = cohort.decisions[0]
    told = last.message
    if not told.startswith(last.revision):
        action = _ACTIONS.get(last.action, last.action)
        told = f"{last.revision} {action}" + (f": {told}" if told else "")
    if last.by or last.why:
        told = f"{stopped(told)} {sentence(f'asked for{asked_by(last.by, last.why)}')}"
    return stopped(f"The last decision{_at(last, view)}: {told}")


_ACTIONS = {
    "Promoted": "was promoted",
    "RolledBack": "was rolled back",
    "Superseded": "was given up for another revision",
    "Held": "was held",
    "Released": "was released",
    "StepSkipped": "was urged on",
    "Aborted": "was aborted",
    "Retried": "was tried again",
    "Undone": "was wanted back",
}


def _decision(cohort: CohortView, *actions: str) -> Decision | None:
    return next((d for d in cohort.decisions if d.action in actions), None)


def _at(decision: Decision, view: ModelView) -> str:
    at = parse_time(decision.at)
    return f" at {clock(at, view.now)}" if at else ""


def _after(cohort: CohortView, decision: Decision, failed: str) -> str:
    """How long after the analysis began a decision fell; empty when the evidence is another one's."""
    at = parse_time(decision.at)
    begins = [b for e in cohort.evidence if (b := parse_time(e.since))]
    if at is None or not begins or at < min(begins):
        return ""
    return f", {duration((at - min(begins)).total_seconds())} after {failed} got its first clients here"


def _not_again(cohort: CohortView, view: ModelView) -> str:
    if not cohort.rejected:
        return ""
    again = f"kubectl kohort retry {view.name} {cohort.name}"
    return f"{cohort.rejected} is not tried again until the spec changes, or {again}."
