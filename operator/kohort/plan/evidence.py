"""A cohort's evidence: begun with its first weighted step, carried on by readings, asked by gates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Protocol

from msgspec import structs

from kohort.analysis import counts, latency, mirroring, score, sequential
from kohort.analysis.reading import Reading
from kohort.analysis.sequential import Rates, Trial, relabelled
from kohort.analysis.slots import SlotState, decode
from kohort.analysis.split import canary_slots
from kohort.analysis.timestamps import from_time
from kohort.analysis.wording import NO_PAIRS, unseen_message
from kohort.api.analysis import Metric, MetricName
from kohort.api.status import CohortStatus, Evidence, Verdict
from kohort.contract import MIRROR
from kohort.plan.context import Context


class Analysis(Protocol):
    """How evidence on a metric is begun, carried on, and found to lack an arm."""

    def begin(
        self, metric: Metric, reading: Reading | None, trial: Trial, weight: int, now: datetime
    ) -> Evidence: ...

    def advance(
        self,
        evidence: Evidence,
        reading: Reading,
        trial: Trial,
        metric: Metric,
        rates: Rates,
        now: datetime,
    ) -> Evidence: ...

    def unseen_since(self, evidence: Evidence, moment: datetime) -> tuple[str, ...]: ...

    def accused(self, evidence: Evidence, alpha: float) -> bool: ...


ANALYSES: dict[str, Analysis] = {
    MetricName.ERRORS: sequential,
    MetricName.LATENCY: latency,
    mirroring.METRIC: sequential,
}


def analysis(metric: Metric) -> Analysis:
    """How evidence on a metric is gathered."""
    return ANALYSES.get(metric.name, score if metric.score is not None else counts)


def gathered(evidence: Evidence) -> Analysis:
    """How evidence was gathered."""
    scored = evidence.state.startswith(score.FORMAT)
    return ANALYSES.get(evidence.metric, score if scored else counts)


def counters_name(cohort: str, metric: Metric) -> str:
    """What readings of a metric's own counters are called in ``World.readings``."""
    return f"{cohort}/{metric.name}"


def begun(context: Context, cohort: CohortStatus) -> tuple[Evidence, ...]:
    """Evidence from when a step's weight is in effect: fresh if it is the first of its kind (metrics,
    or the mirror), else carried on."""
    if not deciding(cohort):
        fresh = _metrics(context, cohort) if cohort.weight else (_mirror(context, cohort),)
        return (*fresh, *cohort.evidence)
    return tuple(
        e if e.metric == mirroring.METRIC else relabelled(e, cohort.weight) for e in cohort.evidence
    )


def deciding(cohort: CohortStatus) -> tuple[Evidence, ...]:
    """The evidence that decides on the step in hand: at weight 0 the mirror's, else that of the metrics
    that are not only watched."""
    mirror = not cohort.weight
    return tuple(
        e for e in cohort.evidence if (e.metric == mirroring.METRIC) == mirror and not e.watched
    )


def _mirror(context: Context, cohort: CohortStatus) -> Evidence:
    return mirroring.begin(
        context.world.readings.get(cohort.name + MIRROR),
        canary=cohort.canary,
        stable=cohort.stable,
        now=context.now,
    )


def _metrics(context: Context, cohort: CohortStatus) -> tuple[Evidence, ...]:
    told = (
        analysis(metric).begin(
            metric, _reading(context, cohort, metric), _trial(cohort), cohort.weight, context.now
        )
        for metric in context.spec.analysis.metrics
    )
    return _by_role(context, told)


def _by_role(context: Context, evidence: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """The evidence with whether it decides anything, as the spec has it now."""
    decide = {metric.name for metric in context.spec.analysis.deciding}
    return tuple(structs.replace(e, watched=e.metric not in decide) for e in evidence)


def _reading(context: Context, cohort: CohortStatus, metric: Metric) -> Reading | None:
    """What was newly read of a metric."""
    name = cohort.name if metric.queried is None else counters_name(cohort.name, metric)
    return context.world.readings.get(name)


def watched(context: Context, cohort: CohortStatus) -> CohortStatus:
    """The cohort with what its counters brought, if they were read and there is a canary to judge."""
    if not cohort.canary:
        return cohort
    return structs.replace(
        cohort, evidence=(*_counted(context, cohort), *_compared(context, cohort))
    )


def _compared(context: Context, cohort: CohortStatus) -> tuple[Evidence, ...]:
    """The mirror's evidence, carried on."""
    reading = context.world.readings.get(cohort.name + MIRROR)
    return tuple(
        e
        if reading is None
        else mirroring.advance(
            e,
            reading,
            canary=cohort.canary,
            stable=cohort.stable,
            alpha=context.alpha(cohort),
            now=context.now,
        )
        for e in cohort.evidence
        if e.metric == mirroring.METRIC
    )


def _counted(context: Context, cohort: CohortStatus) -> tuple[Evidence, ...]:
    """The metrics' evidence, carried on."""
    counted = tuple(e for e in cohort.evidence if e.metric != mirroring.METRIC)
    if not counted:
        return counted
    known = {e.metric: e for e in counted}
    trial, rates = _trial(cohort), Rates(context.alpha(cohort), context.beta)

    def carried_on(metric: Metric) -> Evidence | None:
        reading, evidence = _reading(context, cohort, metric), known.get(metric.name)
        if reading is None:
            return evidence
        way, now = analysis(metric), _moment(context, reading)
        if evidence is None or way is not gathered(evidence):
            return way.begin(metric, reading, trial, cohort.weight, now)
        return way.advance(evidence, reading, trial, metric, rates, now)

    told = map(carried_on, context.spec.analysis.metrics)
    return _by_role(context, (each for each in told if each is not None))


def _moment(context: Context, reading: Reading) -> datetime:
    """When what a reading tells was so: of samples that others took, some time ago."""
    if not reading.sampled or reading.errors:
        return context.now
    return min(context.now, datetime.fromtimestamp(reading.at, UTC))


def _trial(cohort: CohortStatus) -> Trial:
    return Trial(cohort.canary, cohort.stable, cohort.salt, cohort.weight)


def closed(cohort: CohortStatus) -> tuple[Evidence, ...]:
    """The evidence as a record: what was seen, without the counters that only an analysis needs."""
    return tuple(structs.replace(e, state="", slots="") for e in cohort.evidence)


def harm(cohort: CohortStatus) -> Evidence | None:
    """Evidence that the canary is worse, if there is any."""
    failed = (e for e in cohort.evidence if e.verdict is Verdict.FAIL and not e.watched)
    return next(failed, None)


def untrusted(cohort: CohortStatus) -> str:
    """Why nothing can be learned now: counters cannot be read, or all fare badly; empty when it can."""
    doubtful = (e for e in deciding(cohort) if e.verdict is Verdict.METRICS_ERROR or e.disturbed)
    return next((e.message for e in doubtful), "")


def unseen(cohort: CohortStatus, since: str | None) -> str:
    """Which arm had no request since a step began; empty when both had."""
    if since is None:
        return ""
    moment = from_time(since)
    missing = (gathered(e).unseen_since(e, moment) for e in deciding(cohort))
    told = (unseen_message(arms) if cohort.weight else NO_PAIRS for arms in missing if arms)
    return next(told, "")


def awaited_clients(context: Context, cohort: CohortStatus) -> str:
    """Which metric still lacks clients on the canary; empty when none does.

    No more are asked for than the weight has slots for.
    """
    canary, border = canary_slots(cohort.weight, cohort.salt)
    theirs = canary if border is None else canary | {border}
    wanted = {m.name: min(m.min_clients, len(theirs)) for m in context.spec.analysis.metrics}
    for evidence in deciding(cohort):
        least, slots = wanted.get(evidence.metric, 0), _slots(cohort, evidence)
        if not least or slots is None:
            continue
        sent = slots.since().requests
        seen = sum(sent[slot] > 0 for slot in theirs)
        if seen < least:
            return (
                f"{evidence.metric} waits for clients: {seen} of {least} client slots have called"
            )
    return ""


def _slots(cohort: CohortStatus, evidence: Evidence) -> SlotState | None:
    """The slots of a metric, or of another one of the cohort: the clients are the same."""
    told = (decode(e.slots) for e in (evidence, *deciding(cohort)))
    return next((slots for slots in told if slots is not None), None)


def read_since(cohort: CohortStatus, moment: datetime) -> bool:
    """Whether every counter was read completely at or after a moment."""
    return all(e.updated is not None and from_time(e.updated) >= moment for e in deciding(cohort))


def unproven(context: Context, cohort: CohortStatus) -> str:
    """What a proof of non-inferiority still lacks; empty when it is there for every goal."""
    known = {e.metric: e for e in deciding(cohort)}
    for goal in sorted(context.spec.analysis.goals):
        told = known.get(goal)
        if told is None:
            return f"{goal} was not read yet"
        if told.verdict is Verdict.METRICS_ERROR:
            return told.message
        if told.verdict is not Verdict.PASS:
            way = sequential if goal in ANALYSES else counts
            return f"proof at {way.proof_share(told, context.beta):.0%}: {told.message}"
    return ""


def accusation(context: Context, cohort: CohortStatus) -> str:
    """What single requests say against the canary, though client slots do not bear it out; or empty."""
    alpha = context.alpha(cohort)
    accusing = (e for e in deciding(cohort) if gathered(e).accused(e, alpha))
    return next((e.message for e in accusing), "")


def undecided(cohort: CohortStatus) -> str:
    """What counters say against the canary where nobody tells client slots; empty when nothing."""
    return next((e.message for e in deciding(cohort) if e.undecided), "")


def unpassed(context: Context, cohort: CohortStatus) -> str:
    """What still keeps a step from passing: evidence of harm, or too little to see any; empty if nothing."""
    if accused := accusation(context, cohort):
        return f"not passed: {accused}"
    lacking = (
        f"harm of {metric.tolerated} of requests would not have been seen yet; {told}"
        for metric, enough, told in _visible(context, cohort)
        if not enough
    )
    return next(lacking, "")


def visible(context: Context, cohort: CohortStatus) -> str:
    """What harm would have been seen by now; empty where no metric can tell."""
    return "; ".join(told for _, _, told in _visible(context, cohort))


def _visible(context: Context, cohort: CohortStatus) -> Iterator[tuple[Metric, bool, str]]:
    """Of each metric that can tell: whether harm of its margin would have been seen, and which would."""
    known = {e.metric: e for e in deciding(cohort)}
    for metric in context.spec.analysis.metrics:
        if metric.name == MetricName.ERRORS and metric.name in known:
            rate, seen = sequential.visible_harm(known[metric.name], context.alpha(cohort))
            told = f"a failed share of {seen:.2%} instead of {rate:.2%} would have been seen"
            yield metric, seen < 1 and seen <= rate + metric.allowed, told


def summary(cohort: CohortStatus) -> str:
    """What was seen, in one line."""
    return "; ".join(e.message for e in cohort.evidence)
