"""Reads what models want of a Prometheus, each at its own pace, and hands it to them as readings."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from kohort.analysis.reading import Reading
from kohort.analysis.timestamps import from_time
from kohort.api.analysis import Analysis, Metric, MetricName
from kohort.api.prometheus import Counts, Prometheus, Score, Source
from kohort.api.quantity import seconds
from kohort.api.status import CohortStatus
from kohort.observe.counter_queries import Query, queries, reading, slot_reading, slot_series
from kohort.observe.gateway_series import ArmLedger, Heard, question, scraped
from kohort.observe.gateways import GatewayAddress, Scrape
from kohort.observe.prometheus import Answer, PrometheusError, Question, ask
from kohort.observe.score_series import score_reading, score_series
from kohort.observe.slot_series import Asked, SlotSeriesLedger, Told, Totals
from kohort.observe.slots import SlotLedger, Split
from kohort.plan.evidence import counters_name
from kohort.route.table import ModelKey
from kohort.runtime.credentials import Credentials
from kohort.runtime.models import Model, Models
from kohort.runtime.reconcile import Reconciler

log = logging.getLogger(__name__)

CONCURRENCY = 16
"""Models that are read at a time."""

Answers = Sequence[Answer | PrometheusError]
_BY_GATEWAYS = frozenset({MetricName.ERRORS.value, MetricName.LATENCY.value})


@dataclass(frozen=True)
class _Wanted:
    """The counters of one metric of one cohort."""

    cohort: str
    metric: Metric
    selectors: Counts | Score
    queries: tuple[Query, ...]


class PrometheusReader:
    """Asks once per interval for each model with a canary that names a Prometheus.

    One that is slow holds up its own models alone: a model is not asked for again before its last answer.
    """

    def __init__(
        self,
        *,
        models: Models,
        gateways: Callable[[], Sequence[GatewayAddress]],
        credentials: Credentials,
        reconciler: Reconciler,
        wake: Callable[[ModelKey, float], None],
        slots: SlotLedger,
        interval: float,
    ) -> None:
        self._models = models
        self._gateways = gateways
        self._credentials = credentials
        self._reconciler = reconciler
        self._wake = wake
        self._slots = slots
        self._interval = interval
        self._arms = ArmLedger()
        self._slot_series = SlotSeriesLedger()
        self._busy: set[ModelKey] = set()
        self._places = asyncio.Semaphore(CONCURRENCY)
        self._told: dict[tuple[ModelKey, str], float] = {}

    async def run(self) -> None:
        """Reads until cancelled."""
        # Cookies of one model's Prometheus are none of another's.
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(cookie_jar=jar) as session, asyncio.TaskGroup() as group:
            while True:
                asking = [model for model in self._models.busy if asks(model)]
                self._arms.keep((m.key, c.name) for m in asking for c in m.status.cohorts)
                self._slot_series.keep(name for model in asking for name in _names(model))
                wanted = {model.key for model in asking}
                self._told = {name: at for name, at in self._told.items() if name[0] in wanted}
                for model in asking:
                    if model.key not in self._busy:
                        self._busy.add(model.key)
                        group.create_task(self._one(session, model))
                await asyncio.sleep(self._interval)

    async def _one(self, session: aiohttp.ClientSession, model: Model) -> None:
        try:
            async with self._places:
                readings = await self._read(session, model)
            if readings:
                self._reconciler.take_readings(model.key, readings)
                self._wake(model.key, 0.0)
        except Exception:
            # A defect met by one model must not stop the others.
            log.exception("%s: its Prometheus was not read", model.key)
        finally:
            self._busy.discard(model.key)

    async def _read(self, session: aiohttp.ClientSession, model: Model) -> Mapping[str, Reading]:
        """What is new, by the name that the planner looks for it."""
        if model.spec is None or model.spec.analysis.prometheus is None:
            return {}
        analysis, where = model.spec.analysis, model.spec.analysis.prometheus
        gateways = self._gateways() if analysis.source is Source.PROMETHEUS else ()
        wanted = _wanted(model.key, analysis, model.status.cohorts)
        asked = [query.question for each in wanted for query in each.queries]
        if gateways:
            asked.append(question(model.key, gateways))
        at, stale_after = time.time(), seconds(where.stale_after)
        answers = await self._ask(session, model.key.namespace, where, asked, at)
        # Status as it is now: of another rollout, what was asked for tells nothing.
        newer = self._models.get(model.key)
        now = {c.name: c for c in newer.status.cohorts} if newer else {}
        cohorts = {c.name: now[c.name] for c in model.status.cohorts if _same(c, now.get(c.name))}
        readings: dict[str, Reading] = {}
        for each in wanted:
            theirs, answers = answers[: len(each.queries)], answers[len(each.queries) :]
            if each.cohort in cohorts:
                cohort = cohorts[each.cohort]
                read = self._of_counters(model.key, each, cohort, theirs, at, stale_after)
                since = _since(cohort, {each.metric.name})
                name = counters_name(each.cohort, each.metric)
                readings |= self._fresh(model.key, name, read, since)
        if gateways:
            scrape, heard = scraped(answers[0], gateways, at, stale_after)
            for cohort in cohorts.values():
                since = _since(cohort, _BY_GATEWAYS)
                # What is older than what is known must not be what sums begin with.
                if since is None or not scrape.processes or scrape.at >= since:
                    read = self._of_gateways(model.key, cohort, scrape, heard)
                    readings |= self._fresh(model.key, cohort.name, read, since)
        return readings

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        namespace: str,
        wanted: Prometheus,
        asked: Sequence[Question],
        at: float,
    ) -> Answers:
        try:
            access = await self._credentials.access(namespace, wanted)
        except PrometheusError as error:
            return [error] * len(asked)
        answers = await ask(session, access, asked, at)
        if any(isinstance(answer, PrometheusError) for answer in answers):
            self._credentials.refused(namespace, wanted)
        return answers

    def _of_counters(
        self,
        key: ModelKey,
        wanted: _Wanted,
        cohort: CohortStatus,
        answers: Answers,
        at: float,
        stale_after: float,
    ) -> Reading:
        """What a metric's counters tell, by slot where they do."""
        asked, selectors = wanted.queries, wanted.selectors

        def summed(told: Told, kinds: tuple[str, ...]) -> Totals:
            oldest = min(sample.at for sample in told.values())
            return self._slot_series.take(
                (key, counters_name(cohort.name, wanted.metric)),
                cohort.salt,
                cohort.weight,
                told,
                Asked(asked[0].told, selectors.slot_label, kinds),
                _settled(cohort, oldest),
            )

        try:
            if isinstance(selectors, Score):
                bounds, told = score_series(asked, answers, selectors, at, stale_after)
                return score_reading(summed(told, bounds), bounds, selectors)
            if not selectors.slot_label:
                return reading(asked, answers, selectors, at, stale_after)
            told = slot_series(asked, answers, selectors, at, stale_after)
            return slot_reading(summed(told, ("events", "all")))
        except PrometheusError as error:
            return Reading(at, {}, errors=(str(error),), sampled=True)

    def _of_gateways(
        self, key: ModelKey, cohort: CohortStatus, scrape: Scrape, heard: Mapping[str, Heard]
    ) -> Reading:
        """What all gateways counted for one cohort, by arm and by slot."""
        name = (key, cohort.name)
        if not scrape.processes:
            return Reading(scrape.at, {}, errors=scrape.errors, sampled=True)
        source, arms, cells = self._arms.take(name, cohort.salt, scrape, heard)
        split = _settled(cohort, scrape.at)
        slots = self._slots.take(name, cohort.salt, cohort.weight, cells, split)
        misrouted = self._slots.misrouted(name)
        errors = (*scrape.errors, misrouted) if misrouted else scrape.errors
        return Reading(scrape.at, {source: arms}, errors, slots, sampled=True)

    def _fresh(
        self, key: ModelKey, name: str, read: Reading, since: float | None
    ) -> Mapping[str, Reading]:
        """A reading by its name if it is of any use: an error, or newer than the last one and its evidence.

        Counters that stood so before an analysis began would bring what was before.
        """
        if since is None:
            return {}
        if not read.errors or read.sources:
            if read.at < since or read.at <= self._told.get((key, name), 0.0):
                return {}
            self._told[key, name] = read.at
        return {name: read}


def _settled(cohort: CohortStatus, at: float) -> Split | None:
    """How clients were split when samples were taken (Unix time), if every gateway did so."""
    began = cohort.step_started_at
    settled = began is not None and cohort.weight > 0 and at >= from_time(began).timestamp()
    return Split(cohort.canary, cohort.weight) if settled else None


def asks(model: Model) -> bool:
    """Whether a model with a canary names a Prometheus."""
    named = model.spec is not None and model.spec.analysis.prometheus is not None
    return named and model.own_gateways and model.rolling


def _wanted(key: ModelKey, analysis: Analysis, cohorts: Sequence[CohortStatus]) -> list[_Wanted]:
    """The counters of cohorts whose canary is judged by them already; those that tell slots are read before,
    so that what clients did without the canary is known."""
    return [
        _Wanted(
            cohort.name,
            metric,
            metric.queried,
            queries(metric.queried, key, cohort.name, _arms(cohort)),
        )
        for cohort in cohorts
        if cohort.canary
        for metric in analysis.in_prometheus
        if metric.queried is not None and (cohort.weight or metric.queried.slot_label)
    ]


def _arms(cohort: CohortStatus) -> tuple[str, ...]:
    """The revisions that have clients."""
    return (cohort.canary, cohort.stable) if cohort.weight else (cohort.stable,)


def _names(model: Model) -> Iterator[tuple[ModelKey, str]]:
    """Metrics with counters of their own, of cohorts in a rollout."""
    for cohort in model.status.cohorts:
        if cohort.canary and model.spec is not None:
            for metric in model.spec.analysis.in_prometheus:
                yield model.key, counters_name(cohort.name, metric)


def _same(one: CohortStatus, other: CohortStatus | None) -> bool:
    """Whether both are of the same rollout, with a canary."""
    if other is None or not other.canary:
        return False
    return (one.canary, one.stable, one.salt) == (other.canary, other.stable, other.salt)


def _since(cohort: CohortStatus, metrics: set[str] | frozenset[str]) -> float | None:
    """Unix time up to which all is known or told nothing; None where no analysis has begun."""
    began = [
        from_time(time).timestamp()
        for evidence in cohort.evidence
        if evidence.metric in metrics
        for time in (evidence.since, evidence.updated)
        if time
    ]
    return max(began, default=None)
