"""A cohort's evidence: begun with its first weighted step, carried on by readings, asked by gates."""

from __future__ import annotations

from datetime import datetime

from msgspec import structs

from kohort.analysis.sequential import advance, begin, proof_share, unseen_since
from kohort.analysis.timestamps import from_time
from kohort.analysis.wording import unseen_message
from kohort.api.status import CohortStatus, Evidence, Verdict
from kohort.plan.context import Context


def begun(context: Context, cohort: CohortStatus) -> tuple[Evidence, ...]:
    """Fresh evidence of every metric."""
    reading = context.world.readings.get(cohort.name)
    return tuple(
        begin(metric, reading, canary=cohort.canary, stable=cohort.stable, now=context.now)
        for metric in context.spec.analysis.metrics
    )


def watched(context: Context, cohort: CohortStatus) -> CohortStatus:
    """The cohort with what its counters brought, if they were read and there is a canary to judge."""
    reading = context.world.readings.get(cohort.name)
    if reading is None or not cohort.canary or not cohort.evidence:
        return cohort
    known = {e.metric: e for e in cohort.evidence}
    evidence = tuple(
        advance(
            known[metric.name],
            reading,
            canary=cohort.canary,
            stable=cohort.stable,
            metric=metric,
            alpha=context.alpha,
            beta=context.beta,
            now=context.now,
        )
        if metric.name in known
        else begin(metric, reading, canary=cohort.canary, stable=cohort.stable, now=context.now)
        for metric in context.spec.analysis.metrics
    )
    return structs.replace(cohort, evidence=evidence)


def closed(cohort: CohortStatus) -> tuple[Evidence, ...]:
    """The evidence as a record: what was seen, without the counters that only an analysis needs."""
    return tuple(structs.replace(e, state="") for e in cohort.evidence)


def harm(cohort: CohortStatus) -> Evidence | None:
    """Evidence that the canary is worse, if there is any."""
    return next((e for e in cohort.evidence if e.verdict is Verdict.FAIL), None)


def untrusted(cohort: CohortStatus) -> str:
    """Why counters cannot be trusted now; empty when they can."""
    return next((e.message for e in cohort.evidence if e.verdict is Verdict.METRICS_ERROR), "")


def unseen(cohort: CohortStatus, since: str | None) -> str:
    """Which arm had no request since a step began; empty when both had."""
    if since is None:
        return ""
    moment = from_time(since)
    missing = (unseen_since(e, moment) for e in cohort.evidence)
    return next((unseen_message(arms) for arms in missing if arms), "")


def read_since(cohort: CohortStatus, moment: datetime) -> bool:
    """Whether every counter was read completely at or after a moment."""
    return all(e.updated is not None and from_time(e.updated) >= moment for e in cohort.evidence)


def unproven(context: Context, cohort: CohortStatus) -> str:
    """What a proof of non-inferiority still lacks; empty when it is there for every metric."""
    lacking = next((e for e in cohort.evidence if e.verdict is not Verdict.PASS), None)
    if lacking is None:
        return ""
    if lacking.verdict is Verdict.METRICS_ERROR:
        return lacking.message
    return f"proof at {proof_share(lacking, context.beta):.0%}: {lacking.message}"


def summary(cohort: CohortStatus) -> str:
    """What was seen, in one line."""
    return "; ".join(e.message for e in cohort.evidence)
