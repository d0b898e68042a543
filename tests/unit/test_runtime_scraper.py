"""When the operator looks at the gateways' counters, and whom it tells what."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kohort.analysis.reading import Count, Reading
from kohort.observe.counters import Cell
from kohort.observe.gateways import GatewayAddress, Scrape
from kohort.observe.slots import SlotLedger
from kohort.route.table import ModelKey
from kohort.runtime.models import Models, convert_model
from kohort.runtime.scraper import LOOKS_PER_SECOND, Scraper

KEY = ModelKey("shop", "burger")
GATEWAY = GatewayAddress("gateway-a", "127.0.0.1", 1, 2)
PAIRS = {"g": {Cell("v1", None, 0): 6, Cell("v1", None, None): 1}}


class Told:
    """Takes what a reconciler is told."""

    def __init__(self) -> None:
        self.readings: Mapping[str, Reading] = {}
        self.shares: Mapping[str, float] = {}

    def take_readings(self, key: ModelKey, readings: Mapping[str, Reading]) -> None:
        self.readings = readings

    def take_shares(self, key: ModelKey, shares: Mapping[str, float]) -> None:
        self.shares = shares


def models(*mirrored: str, **canaries: str) -> Models:
    """One model with these cohorts and their canaries; the first step of some mirrors requests."""
    steps = [{"weight": 0, "mirror": {"percent": 10}, "hold": "1m"}]
    listed = [{"name": n, "steps": steps} for n in mirrored] or [{"name": "everyone"}]
    cohorts = [{"name": n, "stable": "v1", "canary": c} for n, c in canaries.items()]
    content: dict[str, Any] = {
        "metadata": {"namespace": "shop", "name": "burger", "uid": "u", "resourceVersion": "1"},
        "spec": {"model": {"uri": "file:///m.onnx"}, "cohorts": listed},
        "status": {"cohorts": cohorts},
    }
    known = Models(lambda _: None)
    known.put(convert_model(msgspec.json.decode(msgspec.json.encode(content))))
    return known


async def look_once(
    known: Models,
    requests: Mapping[str, int],
    errors: tuple[str, ...] = (),
    slots: SlotLedger | None = None,
) -> tuple[Told, int, list[ModelKey]]:
    """What one look brings: what was told, how often gateways were asked, who was woken."""
    told, woken, looks, looked = Told(), list[ModelKey](), 0, asyncio.Event()

    async def scrape(_: Sequence[GatewayAddress]) -> Scrape:
        nonlocal looks
        looks += 1
        counts = {(KEY, name): {"g": {Cell("v1", 3, 0): count}} for name, count in requests.items()}
        return Scrape(0, counts, ("g",), errors)

    async def mirrors(_: Sequence[GatewayAddress]) -> Scrape:
        return Scrape(0, {(KEY, f"{name}/mirror"): PAIRS for name in requests}, ("g",))

    def gateways() -> list[GatewayAddress]:
        looked.set()
        return [GATEWAY]

    scraper = Scraper(
        models=known,
        gateways=gateways,
        scrape=scrape,
        mirrors=mirrors,
        reconciler=told,  # type: ignore[arg-type]
        wake=lambda key, _: woken.append(key),
        slots=slots or SlotLedger(),
        interval=3600,
    )
    task = asyncio.create_task(scraper.run())
    await looked.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    return told, looks, woken


async def test_a_model_without_a_canary_is_measured_so_that_a_rollout_begins_with_shares() -> None:
    told, looks, woken = await look_once(models(staff="", rest=""), {"staff": 100, "rest": 1900})
    assert told.shares == {"staff": 0.05, "rest": 0.95}
    assert (told.readings, woken, looks) == ({}, [], 1)


async def test_a_canary_is_judged_and_its_model_is_woken() -> None:
    told, _, woken = await look_once(models(staff="v2", rest=""), {"staff": 1000, "rest": 1000})
    assert set(told.readings) == {"staff"}
    assert told.shares == {"staff": 0.5, "rest": 0.5}
    assert woken == [KEY]


async def test_nobody_looks_for_a_single_cohort_without_a_canary() -> None:
    _, looks, _ = await look_once(models(everyone=""), {"everyone": 5000})
    assert looks == 0


async def test_counters_that_could_not_all_be_read_tell_no_shares() -> None:
    known = models(staff="v2", rest="")
    told, _, woken = await look_once(known, {"staff": 1000, "rest": 1000}, ("gateway-b: silent",))
    assert told.shares == {}
    assert set(told.readings) == {"staff"}
    assert woken == [KEY]


async def test_mirrored_requests_are_read_for_cohorts_on_such_a_step_alone() -> None:
    known = models("staff", staff="v2", rest="v2")
    told, _, _ = await look_once(known, {"staff": 1000, "rest": 1000})
    assert told.readings.keys() == {"staff", "rest", "staff/mirror"}
    assert told.readings["staff/mirror"] == Reading(0, {"g": {"v1": Count(7, 1)}})
    told, _, _ = await look_once(models(staff="v2"), {"staff": 1000})
    assert told.readings.keys() == {"staff"}


async def test_of_very_many_models_each_has_its_turn_and_none_has_to_wait_for_all_others() -> None:
    interval, count = 0.2, 10
    known = Models(lambda _: None)
    for number in range(count):
        known.put(msgspec.structs.replace(next(iter(models(everyone="v2"))), key=at(number)))
    woken: list[tuple[int, ModelKey, float]] = []
    looks, enough = 0, asyncio.Event()

    async def scrape(_: Sequence[GatewayAddress]) -> Scrape:
        nonlocal looks
        looks += 1
        if looks == 7:
            enough.set()
        return Scrape(0, {}, ("g",), ())

    scraper = Scraper(
        models=known,
        gateways=lambda: [GATEWAY],
        scrape=scrape,
        mirrors=scrape,
        reconciler=Told(),  # type: ignore[arg-type]
        wake=lambda key, seconds: woken.append((looks, key, seconds)),
        slots=SlotLedger(),
        interval=interval,
    )
    task = asyncio.create_task(scraper.run())
    await enough.wait()
    task.cancel()
    turns = [[key for look, key, _ in woken if look == number] for number in range(1, 7)]
    assert max(map(len, turns)) <= interval * LOOKS_PER_SECOND
    for first in (0, 3):
        had_their_turn = [key for turn in turns[first : first + 3] for key in turn]
        assert sorted(had_their_turn) == sorted(map(at, range(count)))
    assert max(seconds for _, _, seconds in woken) < interval


def at(number: int) -> ModelKey:
    """The key of one of many models."""
    return ModelKey("shop", f"burger-{number}")


async def test_a_leader_that_leads_again_goes_on_counting_slots_where_it_stopped() -> None:
    slots, known = SlotLedger(), models(everyone="v2")
    before, *_ = await look_once(known, {"everyone": 5}, slots=slots)
    after, *_ = await look_once(known, {"everyone": 12}, slots=slots)
    first, then = before.readings["everyone"].slots, after.readings["everyone"].slots
    assert first is not None
    assert then is not None
    assert then.counter == first.counter
    assert sum(then.now.requests) - sum(first.now.requests) == 7
