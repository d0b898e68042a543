"""Looks at the gateways' counters while a canary has clients, and hands them to each model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from kohort.analysis.reading import Reading
from kohort.observe.gateways import GatewayAddress
from kohort.route.table import ModelKey
from kohort.runtime.models import Models
from kohort.runtime.reconcile import Reconciler, analysing

Look = Callable[[Sequence[GatewayAddress]], Awaitable[Mapping[tuple[ModelKey, str], Reading]]]


class Scraper:
    """One look per interval serves all models; without a canary anywhere there is none."""

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

    async def run(self) -> None:
        """Scrapes until cancelled."""
        while True:
            began = asyncio.get_running_loop().time()
            await self._once()
            spent = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(0.0, self._interval - spent))

    async def _once(self) -> None:
        wanted = [m for m in self._models if m.own_gateways and analysing(m.status)]
        gateways = self._gateways()
        if not wanted or not gateways:
            return
        scrape = await self._scrape(gateways)
        for model in wanted:
            self._reconciler.take_readings(
                model.key,
                {
                    cohort.name: scrape[model.key, cohort.name]
                    for cohort in model.status.cohorts
                    if cohort.canary
                },
            )
            self._wake(model.key)
