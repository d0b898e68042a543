"""Counters in a real Prometheus decide, once each; one that is away or has lost all decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from kohort.analysis import counts
from kohort.analysis.split import canary_slots
from kohort.api.status import Verdict
from kohort.contract import SLOTS
from kohort.plan import evidence
from tests.component.gateway_parts import (
    LOCALHOST,
)
from tests.component.prometheus_parts import (
    CONVERSIONS,
    RealPrometheus,
    Shop,
    becomes,
    conversions,
    errors,
    job,
    judged,
    prometheus,
    read,
    samples,
    serving,
)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest_asyncio.fixture(scope="module")
async def scraping(
    shop: Shop, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RealPrometheus]:
    """A Prometheus that scrapes the shop."""
    async with serving(shop.answer) as port:
        directory = tmp_path_factory.mktemp("prometheus")
        async with prometheus(directory, job("shop", "/metrics", (port, {}))) as made:
            yield made


def count(shop: Shop, revision: str, pod: str, visits: int, good: int) -> None:
    """So many more visits and conversions."""
    for name, number in (("visits", visits), ("conversions", good)):
        labels = f'model="shop/burger/everyone",revision="{revision}",pod="{pod}"'
        series = f"{name}_total{{{labels}}}"
        shop.lines[series] = shop.lines.get(series, 0) + number


async def test_counts_survive_a_prometheus_that_is_away_and_has_lost_all_and_count_once(
    shop: Shop, scraping: RealPrometheus
) -> None:
    count(shop, "r1", "a", 5000, 4000)
    count(shop, "r1", "b", 700, 70)
    count(shop, "r2", "c", 900, 10)
    rollout = conversions(scraping.url)

    def tallies() -> tuple[int, int, int, int]:
        told = rollout.of("conversions")
        canary, stable = told.canary, told.stable
        return canary.requests, canary.failed, stable.requests, stable.failed

    def known() -> bool:
        state = counts.decode(rollout.of("conversions").state)
        return state is not None and len(state.series) == 6

    async with read(rollout, scraping.url):
        await becomes(known)
        for revision, pod, visits, good in (
            ("r1", "a", 50, 10),
            ("r1", "b", 40, 8),
            ("r2", "c", 30, 6),
        ):
            count(shop, revision, pod, visits, good)
        await becomes(lambda: tallies() == (30, 24, 90, 72))

        await scraping.stop(forget=True)
        count(shop, "r2", "c", 30, 6)
        await becomes(lambda: rollout.of("conversions").verdict is Verdict.METRICS_ERROR)
        assert f"Prometheus at {LOCALHOST}:{scraping.port}" in rollout.of("conversions").message
        assert tallies() == (30, 24, 90, 72)
        assert evidence.untrusted(rollout.cohort)

        await scraping.start()
        count(shop, "r1", "a", 90, 18)
        await becomes(lambda: tallies() == (60, 48, 180, 144))
        assert rollout.of("conversions").verdict is Verdict.INSUFFICIENT

        # A pod that starts anew counts from nought, and its neighbours go on.
        for name in ("visits", "conversions"):
            labels = 'model="shop/burger/everyone",revision="r1",pod="a"'
            shop.lines[f"{name}_total{{{labels}}}"] = 0
        await becomes(lambda: any(sample.value == 0 for sample in samples(rollout)))
        count(shop, "r1", "a", 10, 2)
        count(shop, "r2", "c", 10, 2)
        await becomes(lambda: tallies() == (70, 56, 190, 152))

        # Nobody converts on the canary any more.
        count(shop, "r1", "a", 9000, 1800)
        count(shop, "r2", "c", 3000, 0)
        await becomes(lambda: rollout.of("conversions").undecided)
        assert tallies() == (3070, 3056, 9190, 7352)
        assert "tell no client slots" in evidence.undecided(rollout.cohort)


async def test_counts_by_client_slot_send_back_what_slots_bear_out(
    tmp_path: Path,
) -> None:
    shop, (canary, _) = Shop(), canary_slots(25, "salt")
    arms = {"r1": set(range(SLOTS)) - canary, "r2": canary}

    def seen(visits: int, good: Mapping[str, int]) -> None:
        for revision, slots in arms.items():
            for slot in slots:
                labels = f'",slot="{slot}'
                count(shop, revision, revision + labels, visits, good[revision])

    # Told from the start, before anybody knows which slots will call.
    for revision in arms:
        count(shop, revision, revision, 0, 0)
    counted = {**CONVERSIONS["counts"], "slotLabel": "slot"}
    metrics = [{**CONVERSIONS, "counts": counted}]

    def tallies() -> tuple[int, int]:
        told = rollout.of("conversions")
        return told.canary.requests, told.stable.requests

    async with (
        serving(shop.answer) as port,
        prometheus(tmp_path, job("shop", "/metrics", (port, {}))) as scraping,
        judged({"prometheus": {"url": scraping.url}, "metrics": metrics}) as rollout,
    ):
        await becomes(lambda: len(rollout.readings) > 0 and not errors(rollout))
        seen(5, {"r1": 1, "r2": 1})
        await becomes(lambda: tallies() == (5 * 64, 5 * 192))
        count(shop, "r1", 'r1",slot="300', 1, 1)
        await becomes(lambda: rollout.of("conversions").verdict is Verdict.METRICS_ERROR)
        assert 'slot="300" is no client slot: visits_total' in errors(rollout)[0]
        shop.lines = {name: n for name, n in shop.lines.items() if "300" not in name}
        await becomes(lambda: not errors(rollout))
        seen(40, {"r1": 8, "r2": 0})
        await becomes(lambda: rollout.of("conversions").verdict is Verdict.FAIL)
    assert tallies() == (45 * 64, 45 * 192)
    assert "64 of 256 client slots bear it out" in rollout.of("conversions").message


async def test_a_histogram_of_scores_that_become_worse_sends_the_canary_back(
    tmp_path: Path,
) -> None:
    shop, (canary, _) = Shop(), canary_slots(25, "salt")
    bounds, usual, worse = ("0.5", "0.8", "+Inf"), (1, 4, 10), (4, 7, 10)

    def score(times: int, of_canary: tuple[int, ...]) -> None:
        for slot in range(SLOTS):
            revision, row = ("r2", of_canary) if slot in canary else ("r1", usual)
            for bound, number in zip(bounds, row, strict=True):
                labels = f'revision="{revision}",pod="{revision}",slot="{slot}",le="{bound}"'
                series = f"quality_bucket{{{labels}}}"
                shop.lines[series] = shop.lines.get(series, 0) + times * number

    selector = 'quality_bucket{revision="{{revision}}"}'
    histogram = {"buckets": selector, "sumOver": ["pod"], "slotLabel": "slot"}
    score(0, usual)
    async with (
        serving(shop.answer) as port,
        prometheus(tmp_path, job("shop", "/metrics", (port, {}))) as scraping,
        judged(
            {
                "prometheus": {"url": scraping.url},
                "metrics": [{"name": "quality", "score": histogram, "margin": "5%"}],
            }
        ) as rollout,
    ):
        await becomes(
            lambda: bool(rollout.readings) and not rollout.readings[-1]["everyone/quality"].errors,
            60,
        )
        score(2, usual)
        await becomes(lambda: rollout.of("quality").canary.requests == 20 * len(canary), 60)
        score(5, worse)
        await becomes(lambda: rollout.of("quality").verdict is Verdict.FAIL, 60)
    assert "of the canary's scores were at most" in rollout.of("quality").message
