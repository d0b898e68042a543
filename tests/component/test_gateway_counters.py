"""What gateways count and tell of themselves."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from kohort.analysis.split import canary_order
from kohort.contract import SLOTS, TOOK_MS, failed
from kohort.observe.gateways import scrape, table_versions
from kohort.route.table import Endpoint, ModelKey
from tests.client_slots import slot_of
from tests.component.gateway_parts import (
    KEY,
    LOCALHOST,
    Fleet,
    ModelServer,
    free_port,
    get,
    serve,
    table,
    until,
)


async def _asked(server: ModelServer, client: str, before: int) -> bool:
    """Whether one more request of a client has arrived."""
    return server.requests[client] > before


ENDINGS: tuple[dict[str, str], ...] = (
    {},
    {"x-status": "500"},
    {"x-status": "404"},
    {"x-reset": "1"},
    {"x-kohort-slot": "300", "x-kohort-revision": "faked"},
)


@pytest.mark.parametrize("pod", ["nowhere", "refusing"])
async def test_slots_count_every_way_a_request_can_end(
    two: Fleet, servers: dict[str, ModelServer], pod: str
) -> None:
    key = ModelKey("shop", f"counted-{pod}")
    gateway = two.gateways[0]
    wanted = table(50, key=key, canary="gone")
    gone = (Endpoint(LOCALHOST, free_port()),) if pod == "refusing" else ()
    two.server.publish(wanted, {"r1": (servers["r1"].endpoint,), "gone": gone})
    await two.effective(wanted)
    canary = canary_order("salt")[: SLOTS // 2]
    url = f"{gateway.url}/shop/counted-{pod}/v2"
    expected: dict[tuple[str, int | None], list[int]] = {}

    def expect(client: str, code: int) -> None:
        """Stable answers for the canary, which has failed."""
        slot = slot_of(client)
        tally = expected.setdefault(("gone" if slot in canary else "r1", slot), [0, 0])
        tally[0] += 1
        tally[1] += slot in canary or failed(code)

    for number in range(300):
        client = f"c{number}"
        headers = {"x-client-id": client, **ENDINGS[number % len(ENDINGS)]}
        async with two.session.get(url, headers=headers) as response:
            assert response.headers["x-kohort-cohort"] == "everyone"
            assert response.headers["x-kohort-revision"] == "r1" or response.status == 503
            assert "x-kohort-slot" not in response.headers
            expect(client, response.status)

    leaving = [f"leaves-{n}" for n in range(20) if slot_of(f"leaves-{n}") not in canary]
    for client in leaving:
        seen = servers["r1"].requests[client]
        headers = {"x-client-id": client, "x-wait": "60"}
        asking = asyncio.create_task(two.session.get(url, headers=headers).__aenter__())
        await until(lambda c=client, n=seen: _asked(servers["r1"], c, n))  # type: ignore[misc]
        asking.cancel()
        expect(client, 0)

    async def counted() -> bool:
        seen = await scrape(two.session, [gateway.address])
        found = seen.counts.get((key, "everyone"), {})
        (cells,) = found.values()
        tallies: dict[tuple[str, int | None], list[int]] = {}
        for cell, number in cells.items():
            tally = tallies.setdefault((cell.revision, cell.slot), [0, 0])
            tally[0] += number
            tally[1] += number if cell.took is None else 0
        return tallies == expected

    await until(counted)
    reading = (await scrape(two.session, [gateway.address]))[(key, "everyone")]
    (counts,) = reading.sources.values()
    assert counts["gone"].requests == counts["gone"].failed > 0
    assert counts["r1"].requests + counts["gone"].requests == 300 + len(leaving)
    two.server.withdraw(key)


async def test_requests_are_counted_by_how_long_they_took(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    key = ModelKey("shop", "timed")
    wanted = table(50, key=key)
    endpoints = {revision: (server.endpoint,) for revision, server in servers.items()}
    two.server.publish(wanted, endpoints)
    await two.effective(wanted)
    waits = {0.0: 3, 0.21: 2, 1.05: 1}

    async def ask_once(wait: float) -> None:
        headers = {"x-client-id": str(wait), "x-wait": str(wait)}
        async with two.session.get(
            f"{two.gateways[0].url}/shop/timed/v2", headers=headers
        ) as answer:
            assert answer.status == 200

    for wait, times in waits.items():
        for _ in range(times):
            await ask_once(wait)

    async def counted() -> bool:
        seen = await scrape(two.session, [two.gateways[0].address])
        (cells,) = seen.counts[key, "everyone"].values()
        took = Counter[int]()
        for cell, number in cells.items():
            assert cell.took is not None
            took[TOOK_MS[cell.took]] += number
        late = took[150] + took[270] == 2 and took[1000] + took[2000] == 1
        return late and took.total() == sum(waits.values())

    await until(counted)
    two.server.withdraw(key)


async def test_a_cohort_outside_a_rollout_has_no_slots(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    key = ModelKey("shop", "calm")
    wanted = table(0, key=key, canary="")
    two.server.publish(wanted, {"r1": (servers["r1"].endpoint,)})
    await two.effective(wanted)
    await get(two, "/shop/calm/v2")

    async def counted() -> bool:
        seen = await scrape(two.session, [two.gateways[0].address])
        counted = seen.counts.get((key, "everyone"), {}).values()
        return [{cell[:2] for cell in cells} for cells in counted] == [{("r1", None)}]

    await until(counted)


async def test_a_gateway_tells_the_table_it_serves_and_that_it_has_none(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    await serve(two, servers, 5)
    addresses = [gateway.address for gateway in two.gateways]
    versions = await table_versions(two.session, addresses, KEY)
    assert set(versions.values()) == {table(5).version}
    nothing = await table_versions(two.session, addresses, ModelKey("shop", "nope"))
    assert {str(answer) for answer in nothing.values()} == {
        "Unknown(reason='it has no routes for this model yet')"
    }


async def test_a_gateway_that_is_gone_is_an_error_and_not_a_count(two: Fleet) -> None:
    gone = await two.add("gateway-gone")
    two.gateways.remove(gone)
    await gone.kill()
    asked = [two.gateways[0].address, gone.address]

    async def missed() -> bool:
        return len((await scrape(two.session, asked)).errors) == 1

    await until(missed)
    seen = await scrape(two.session, asked)
    assert len(seen.processes) == 1
    assert "gateway-gone" in seen.errors[0]


async def test_only_readiness_and_counters_are_reachable_on_the_status_port(two: Fleet) -> None:
    url = two.gateways[0].status_url
    for path in ("/", "/config_dump", "/quitquitquit", "/stats", "/stats/prometheus?usedonly"):
        async with two.session.get(url + path) as response:
            assert response.status == 404, path
    async with two.session.post(f"{url}/stats/prometheus") as response:
        assert response.status == 404
    async with two.session.get(f"{url}/ready") as response:
        assert response.status == 200
