"""Looks at the gateways' counters while there is a canary, and hands them to each model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from kohort.analysis.reading import Reading
from kohort.analysis.shares import Requests, requests, shares
from kohort.observe.gateways import GatewayAddress
from kohort.route.table import ModelKey
from kohort.runtime.models import Models
from kohort.runtime.reconcile import Reconciler, rolling

SHARES_SECONDS = 60.0
"""Between looks that are for the cohorts' shares alone, so that a rollout begins with them."""

Look = Callable[[Sequence[GatewayAddress]], Awaitable[Mapping[tuple[ModelKey, str], Reading]]]


class Scraper:
    """One look per interval serves all models with a canary; without one anywhere, a look now and then
    serves those with several cohorts."""

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
        self._counted: dict[ModelKey, Requests] = {}  # when shares were last measured
        self._measured: float | None = None

    async def run(self) -> None:
        """Scrapes until cancelled."""
        while True:
            began = asyncio.get_running_loop().time()
            await self._once()
            spent = asyncio.get_running_loop().time() - began
            await asyncio.sleep(max(0.0, self._interval - spent))

    async def _once(self) -> None:
        counted = [model for model in self._models if model.own_gateways]
        canaries = {model.key for model in counted if rolling(model.status)}
        clock = asyncio.get_running_loop().time
        shared = {model.key for model in counted if len(model.status.cohorts) > 1}
        due = self._measured is None or clock() - self._measured >= SHARES_SECONDS
        wanted = canaries | (shared if due else set())
        gateways = self._gateways()
        if not wanted or not gateways:
            return
        if due:
            self._measured = clock()
            self._counted = {key: seen for key, seen in self._counted.items() if key in shared}
        scrape = await self._scrape(gateways)
        for model in counted:
            if model.key not in wanted:
                continue
            readings = {c.name: scrape[model.key, c.name] for c in model.status.cohorts}
            self._reconciler.take_shares(model.key, self._shares(model.key, readings))
            if model.key in canaries:
                judged = {c.name: readings[c.name] for c in model.status.cohorts if c.canary}
                self._reconciler.take_readings(model.key, judged)
                self._wake(model.key)

    def _shares(self, key: ModelKey, readings: Mapping[str, Reading]) -> Mapping[str, float]:
        """The cohorts' shares since they were last measured; empty when nothing can be said yet."""
        if len(readings) == 1 or any(reading.errors for reading in readings.values()):
            return {}
        counted = requests(readings)
        measured = shares(self._counted.get(key, {}), counted)
        if measured:
            self._counted[key] = counted
        return measured
