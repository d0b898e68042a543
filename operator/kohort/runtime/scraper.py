"""Looks at the gateways' counters while there is a canary, and hands them to each model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from kohort.analysis.reading import Reading
from kohort.analysis.shares import Requests, requests, shares
from kohort.api.prometheus import Source
from kohort.api.status import CohortStatus
from kohort.contract import MIRROR
from kohort.observe.gateways import GatewayAddress, Scrape
from kohort.observe.slots import SlotLedger, Split
from kohort.plan.mirroring import mirrored_percent
from kohort.route.table import ModelKey
from kohort.runtime.models import Model, Models
from kohort.runtime.reconcile import Reconciler

SHARES_SECONDS = 60.0
"""Between looks that are for the cohorts' shares alone, so that a rollout begins with them."""

LOOKS_PER_SECOND = 20
"""At models, of which each may end in a write: what a small control plane takes beside all else."""

Look = Callable[[Sequence[GatewayAddress]], Awaitable[Scrape]]


def _mirroring(model: Model) -> tuple[str, ...]:
    """Names of the cohorts of which requests are mirrored."""
    known = {cohort.name: cohort for cohort in model.status.cohorts}
    cohorts = model.spec.cohorts if model.spec else ()
    return tuple(c.name for c in cohorts if c.name in known and mirrored_percent(c, known[c.name]))


class Scraper:
    """One look per interval serves all models with a canary; without one anywhere, a look now and then
    serves those with several cohorts.

    Models are worked on one after the other and not all at once, and where there are very many, not
    after every look: what cannot wait must not have to.

    Slots are counted as soon as a canary is named, so that what they did before is known; in ``slots``,
    which whoever leads again goes on with.
    """

    def __init__(
        self,
        *,
        models: Models,
        gateways: Callable[[], Sequence[GatewayAddress]],
        scrape: Look,
        mirrors: Look,
        reconciler: Reconciler,
        wake: Callable[[ModelKey, float], None],
        slots: SlotLedger,
        interval: float,
    ) -> None:
        self._models = models
        self._gateways = gateways
        self._scrape = scrape
        self._mirrors = mirrors
        self._reconciler = reconciler
        self._wake = wake
        self._interval = interval
        self._slots = slots
        self._counted: dict[ModelKey, Requests] = {}  # when shares were last measured
        self._measured: float | None = None
        self._rounds = 0

    async def run(self) -> None:
        """Scrapes until cancelled."""
        while True:
            began = asyncio.get_running_loop().time()
            await self._once()
            spent = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(0.0, self._interval - spent))

    async def _once(self) -> None:
        gateways = self._gateways()
        clock = asyncio.get_running_loop().time
        late = self._measured is None or clock() - self._measured >= SHARES_SECONDS
        due = late and any(map(_shared, self._models))
        if not gateways or not (due or any(map(_read, self._models.busy))):
            self._keep_slots()
            return
        if due:
            self._measured = clock()
            known = {model.key for model in self._models}
            self._counted = {key: seen for key, seen in self._counted.items() if key in known}
        scrape = await self._scrape(gateways)
        mirrored = any(_mirroring(model) for model in self._models.busy if _judged(model))
        mirrors = await self._mirrors(gateways) if mirrored else {}
        # Status as it is now: a weight of 0 says that no request in the scrape had the canary.
        judged = [model for model in self._models.busy if _read(model)]
        self._keep_slots()
        shared = [model for model in self._models if model.own_gateways] if due else judged
        for model in shared:
            self._reconciler.take_shares(model.key, self._shares(model, scrape))
        for place, model in enumerate(self._turn(judged)):
            clients = {
                c.name: self._reading(scrape, model, c)
                for c in model.status.cohorts
                if c.canary and _counted_here(model)
            }
            pairs = {name + MIRROR: mirrors[model.key, name + MIRROR] for name in _mirroring(model)}
            self._reconciler.take_readings(model.key, clients | pairs)
            self._wake(model.key, place / LOOKS_PER_SECOND)

    def _keep_slots(self) -> None:
        """Forgets slots of rollouts that are over, whoever reads them."""
        judged = [model for model in self._models.busy if _judged(model)]
        self._slots.keep((m.key, c.name) for m in judged for c in m.status.cohorts if c.canary)

    def _turn(self, models: Sequence[Model]) -> Sequence[Model]:
        """Those that have their turn: as many as can be worked on until the next look."""
        most = max(1, round(self._interval * LOOKS_PER_SECOND))
        turns = -(-len(models) // most)
        self._rounds += 1
        return models[self._rounds % turns :: turns] if turns else ()

    def _shares(self, model: Model, scrape: Scrape) -> Mapping[str, float]:
        """The cohorts' shares since they were last measured; empty when nothing can be said yet."""
        readings = {c.name: scrape[model.key, c.name] for c in model.status.cohorts}
        if len(readings) <= 1 or any(reading.errors for reading in readings.values()):
            return {}
        counted = requests(readings)
        measured = shares(self._counted.get(model.key, {}), counted)
        if measured:
            self._counted[model.key] = counted
        return measured

    def _reading(self, scrape: Scrape, model: Model, cohort: CohortStatus) -> Reading:
        """What all gateways counted for one cohort, by arm and by slot."""
        key = (model.key, cohort.name)
        found = scrape.counts.get(key, {})
        counts = {process: found.get(process, {}) for process in scrape.processes}
        settled = cohort.step_started_at is not None and cohort.weight > 0
        split = Split(cohort.canary, cohort.weight) if settled else None
        slots = self._slots.take(key, cohort.salt, cohort.weight, counts, split)
        reading, misrouted = scrape[key], self._slots.misrouted(key)
        errors = (*reading.errors, misrouted) if misrouted else reading.errors
        return replace(reading, slots=slots, errors=errors)


def _judged(model: Model) -> bool:
    """Whether a canary, with clients or without, is at gateways that count."""
    return model.own_gateways and model.rolling


def _counted_here(model: Model) -> bool:
    """Whether gateways are asked themselves, and not the Prometheus that scrapes them."""
    return model.spec is None or model.spec.analysis.source is Source.GATEWAYS


def _read(model: Model) -> bool:
    """Whether something of a canary is read at gateways."""
    return _judged(model) and (_counted_here(model) or bool(_mirroring(model)))


def _shared(model: Model) -> bool:
    """Whether several cohorts have a share each."""
    return model.own_gateways and len(model.status.cohorts) > 1
