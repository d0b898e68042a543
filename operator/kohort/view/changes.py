"""What has changed between two views of a rollout, a line each: a live view for pipes and logs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kohort.view.rollout import CohortView, ModelView, PodView, RevisionView
from kohort.view.words import asked_by, plural

_FIGURES = re.compile(r"\d[\d.,:]*")


def changes(before: ModelView | None, after: ModelView) -> list[str]:
    """Lines about what is new, the model first; everything there is when ``before`` is None.

    A message in which only figures moved is no change, nor is a growing tally: a watcher of a pipe
    wants events, not every scrape.
    """
    lines = []
    if before is None or _headline(before) != _headline(after):
        lines.append(_joined(f"{after.name}: {after.phase}", after.own_message))
    told = after.command
    if told and (before is None or before.command != told):
        what = "carried out" if told.accepted else "refused"
        lines.append(_joined(f"{after.name}: {what}: {told.line}", told.message))
    known = {c.name: c for c in before.cohorts} if before else {}
    for cohort in after.cohorts:
        lines += _cohort(known.get(cohort.name), cohort, after.name)
    lines += [
        f"{after.name}/{name}: gone" for name in known.keys() - {c.name for c in after.cohorts}
    ]
    revisions = {r.label: r for r in before.revisions} if before else {}
    for revision in after.revisions:
        lines += _revision(revisions.get(revision.label), revision, after.name)
    return lines


def _headline(view: ModelView) -> tuple[str, str]:
    return view.phase, _FIGURES.sub("#", view.own_message)


def _cohort(before: CohortView | None, after: CohortView, model: str) -> list[str]:
    name = f"{model}/{after.name}"
    old = before.decisions[:1] if before else after.decisions[:1]
    lines = [
        _joined(
            f"{name}: {decision.action} {decision.revision}{asked_by(decision.by, decision.why)}",
            decision.message,
        )
        for decision in after.decisions[:1]
        if (decision,) != old
    ]
    if before is None or _where(before) != _where(after):
        lines.append(f"{model}/{place(after)}")
    verdicts = {e.metric: e.verdict for e in before.evidence} if before else {}
    lines += [
        f"{name}: {e.metric} {e.verdict}, {e.canary.failed:,}/{e.canary.requests:,} vs "
        f"{e.stable.failed:,}/{e.stable.requests:,} failed"
        for e in after.evidence
        if verdicts.get(e.metric) != e.verdict
    ]
    return lines


def place(cohort: CohortView) -> str:
    """Where a cohort is, in one line: ``staff: Analyzing v1 -> v2 5% step 1/3, MESSAGE``."""
    arms = cohort.stable
    if cohort.canary:
        arms = f"{cohort.stable} -> {cohort.canary} {cohort.weight}%"
    step = f" step {cohort.step_text}" if cohort.step_text else ""
    held = ", held" if cohort.held else ""
    return _joined(f"{cohort.name}: {cohort.phase} {arms}{step}".rstrip() + held, cohort.message)


def _where(cohort: CohortView) -> tuple[object, ...]:
    message = _FIGURES.sub("#", cohort.message)
    arms = cohort.stable, cohort.canary, cohort.weight, cohort.step_text, cohort.held
    return cohort.phase, *arms, message


def _revision(before: RevisionView | None, after: RevisionView, model: str) -> list[str]:
    name = f"{model} {after.label}"
    lines = []
    counted = after.ready, after.wanted
    if (before.ready, before.wanted) != counted if before else any(counted):
        lines.append(f"{name}: {after.ready} of {plural(after.wanted, 'pod')} ready")
    problem = ": ".join(filter(None, (after.reason, after.message)))
    if problem and (before is None or before.reason != after.reason):
        lines.append(f"{name}: {problem}")
    return lines + _pods(before.pods if before else (), after.pods, name)


def _pods(before: Iterable[PodView], after: Iterable[PodView], revision: str) -> list[str]:
    old = {pod.name: pod for pod in before}
    new = {pod.name: pod for pod in after}
    lines = [
        f"{revision}: pod {name} {_state(pod)}"
        for name, pod in new.items()
        if name not in old or _state(old[name]) != _state(pod)
    ]
    return lines + [f"{revision}: pod {name} gone" for name in sorted(old.keys() - new.keys())]


def _state(pod: PodView) -> str:
    restarts = f", {plural(pod.restarts, 'restart')}" if pod.restarts else ""
    return ("Ready" if pod.ready else pod.state) + restarts


def _joined(place: str, message: str) -> str:
    return f"{place}, {message}" if message else place
