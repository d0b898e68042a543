"""Who the cohorts are: as the spec lists them, and in which order their rollouts follow."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import structs

from kohort.api.cohorts import Cohort
from kohort.api.status import CohortPhase, CohortStatus, Status
from kohort.plan.context import Context, Draft, label


def follow_spec(context: Context, draft: Draft) -> Draft:
    """Cohorts as the spec has them, in its order; one that is new starts where its clients are."""
    known = {c.name: c for c in draft.status.cohorts}
    listed = {c.name for c in context.spec.cohorts}
    left = {c.match: c for c in draft.status.cohorts if c.name not in listed}
    serving = _serving(context.spec.cohorts, draft.status.cohorts)
    cohorts = []
    for cohort in context.spec.cohorts:
        match = match_hash(cohort)
        found = known.get(cohort.name) or left.get(match)
        if found is None:
            found = CohortStatus(name=cohort.name, stable=serving)
        elif found.match not in ("", match) and found.canary:
            found = _with_other_clients(found)
        held_back = found.held_back if _holds_back(cohort, found) else ""
        cohorts.append(structs.replace(found, name=cohort.name, match=match, held_back=held_back))
    return draft.with_status(cohorts=tuple(cohorts))


def _holds_back(spec: Cohort, cohort: CohortStatus) -> bool:
    """Whether no more clients are held back than the spec asks for."""
    return spec.holdback is not None and cohort.weight >= 100 - spec.holdback.weight


def match_hash(cohort: Cohort) -> str:
    """Names a cohort's clients."""
    content = msgspec.json.encode(cohort.match, order="sorted")
    return hashlib.sha256(content).hexdigest()[:16]


def _with_other_clients(cohort: CohortStatus) -> CohortStatus:
    """The cohort with its step to be held anew: what was seen was seen of other clients."""
    return structs.replace(cohort, evidence=(), step_started_at=None)


def _serving(listed: Sequence[Cohort], known: Sequence[CohortStatus]) -> str:
    """The revision that clients of a new cohort have had so far: that of the last cohort."""
    names = {c.name for c in listed}
    stays = [c.stable for c in known if c.stable and c.name in names]
    leaves = [c.stable for c in known if c.stable]
    return (stays or leaves or [""])[-1]


def awaited_cohorts(context: Context, status: Status, cohort: Cohort) -> tuple[CohortStatus, ...]:
    """Cohorts of ``after`` that are not yet on the desired revision; unknown names do not count."""
    named = set(cohort.after)
    return tuple(c for c in status.cohorts if c.name in named and not c.arrived(status.desired))


def waiting_message(status: Status, awaited: Sequence[CohortStatus]) -> str:
    """What a cohort waits for, and whether waiting can end."""
    failed = [c for c in awaited if c.phase is CohortPhase.ROLLED_BACK]
    if failed:
        back = ", ".join(f"{c.name}, which went back to {label(status, c.stable)}" for c in failed)
        return f"waits for {back}; apply another model, or take it out of after"
    return f"waits for {', '.join(c.name for c in awaited)}"


def unknown_names(cohorts: Sequence[Cohort]) -> tuple[str, ...]:
    """Names in ``after`` that no cohort has."""
    names = {c.name for c in cohorts}
    return tuple(dict.fromkeys(a for c in cohorts for a in c.after if a not in names))


def waiting_in_circles(cohorts: Sequence[Cohort]) -> tuple[str, ...]:
    """Cohorts that can never start, because ``after`` leads from them into a circle."""
    names = {c.name for c in cohorts}
    startable: set[str] = set()
    for _ in cohorts:
        startable |= {c.name for c in cohorts if startable.issuperset(names.intersection(c.after))}
    return tuple(c.name for c in cohorts if c.name not in startable)
