"""Looks at the gateways' counters while a canary has clients, and hands them to each model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from kohort.analysis.reading import Reading
from kohort.api.status import CohortStatus
from kohort.observe.gateways import GatewayAddress, Scrape
from kohort.observe.slots import SlotLedger
from kohort.route.table import ModelKey
from kohort.runtime.models import Model, Models
from kohort.runtime.reconcile import Reconciler, analysing

Look = Callable[[Sequence[GatewayAddress]], Awaitable[Scrape]]


class Scraper:
    """One look per interval serves all models; without a canary anywhere there is none.

    Slots are counted as soon as a canary is named, so that what they did before is known. Nobody is
    woken up for that.
    """

    def __init__(
        self,
        *,
        models: Models,
        gateways: Callable[[], Sequence[GatewayAddress]],
        scrape: Look,
        reconciler: Reconciler,
        wake: Callable[[ModelKey], None],
        interval: float,
    ) -> None:
        self._models = models
        self._gateways = gateways
        self._scrape = scrape
        self._reconciler = reconciler
        self._wake = wake
        self._interval = interval
        self._slots = SlotLedger()

    async def run(self) -> None:
        """Scrapes until cancelled."""
        while True:
            began = asyncio.get_running_loop().time()
            await self._once()
            spent = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(0.0, self._interval - spent))

    async def _once(self) -> None:
        gateways = self._gateways()
        if not gateways or not any(map(rolling, self._models)):
            self._slots.keep(())
            return
        scrape = await self._scrape(gateways)
        # Status as it is now: a weight of 0 says that no request in the scrape had the canary.
        models = [model for model in self._models if rolling(model)]
        self._slots.keep((m.key, c.name) for m in models for c in m.status.cohorts if c.canary)
        for model in models:
            self._reconciler.take_readings(
                model.key,
                {c.name: self._reading(scrape, model, c) for c in model.status.cohorts if c.canary},
            )
            if analysing(model.status):
                self._wake(model.key)

    def _reading(self, scrape: Scrape, model: Model, cohort: CohortStatus) -> Reading:
        """What all gateways counted for one cohort, by arm and by slot."""
        key = (model.key, cohort.name)
        found = scrape.counts.get(key, {})
        counts = {process: found.get(process, {}) for process in scrape.processes}
        slots = self._slots.take(key, cohort.salt, cohort.weight, counts)
        return replace(scrape[key], slots=slots)


def rolling(model: Model) -> bool:
    """Whether any cohort has a canary, with clients or without, at gateways that count."""
    return model.own_gateways and any(cohort.canary for cohort in model.status.cohorts)
