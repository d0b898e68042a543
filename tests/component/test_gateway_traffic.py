"""What clients meet at a real gateway: addresses, stickiness, headers that nobody can fake, counters."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from kohort.analysis.split import canary_order
from kohort.contract import SLOTS, TABLE_VERSION_PATH, TOOK_MS, failed
from kohort.observe.gateways import scrape, table_versions
from kohort.route.table import Endpoint, ModelKey, with_fallback
from tests.client_slots import slot_of
from tests.component.gateway_parts import (
    KEY,
    LOCALHOST,
    Fleet,
    Gateway,
    ModelServer,
    ask,
    fleet,
    free_port,
    requests_by,
    table,
    until,
    upstream,
)

BASE = f"/{KEY.namespace}/{KEY.name}"
PATH = f"{BASE}/v2/models/m/infer"
CLIENTS = 10_000


@pytest_asyncio.fixture(scope="module")
async def servers() -> AsyncIterator[dict[str, ModelServer]]:
    made = {revision: await ModelServer(revision).start() for revision in ("r1", "r2")}
    yield made
    for server in made.values():
        await server.stop()


@pytest_asyncio.fixture(scope="module")
async def two(
    servers: dict[str, ModelServer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("fleet"), 2) as made:
        yield made


async def serve(made: Fleet, servers: dict[str, ModelServer], weight: int, **options: str) -> None:
    wanted = table(weight, **options)  # type: ignore[arg-type]
    made.server.publish(wanted, {name: (server.endpoint,) for name, server in servers.items()})
    await made.effective(wanted)


async def arms(gateway: Gateway, clients: int = CLIENTS) -> list[bytes]:
    """The revision of each client, asked at one gateway."""
    requests = requests_by(PATH, "gateway", clients, clients)
    heads = await ask(gateway.address.port, requests)
    served = [_value(head, b"x-arm") for head in heads]
    assert served == [_value(head, b"x-kohort-revision") for head in heads]
    return served


def _value(head: bytes, name: bytes) -> bytes:
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


async def split_by(made: Fleet, light: Mapping[str, tuple[Endpoint, ...]], **options: Any) -> None:
    wanted = table(**options)
    made.server.publish(wanted, light)
    await made.effective(wanted)


@pytest_asyncio.fixture(scope="module")
async def light() -> dict[str, tuple[Endpoint, ...]]:
    return {revision: (await upstream(revision),) for revision in ("r1", "r2")}


async def get(
    made: Fleet, target: str, gateway: Gateway | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    gateway = gateway or made.gateways[0]
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with made.session.get(gateway.url + target, headers=sent) as response:
        return response.status, dict(response.headers), await response.text()


async def test_a_client_keeps_its_revision_across_gateways_restarts_and_rising_weights(
    two: Fleet, light: Mapping[str, tuple[Endpoint, ...]]
) -> None:
    before: set[int] = set()
    first: list[bytes] = []
    for weight in (0, 5, 25):
        await split_by(two, light, weight=weight)
        first = await arms(two.gateways[0])
        canary = {number for number, arm in enumerate(first) if arm == b"r2"}
        assert before <= canary
        assert abs(len(canary) - CLIENTS * weight / 100) < 4 * (CLIENTS * 0.25) ** 0.5
        before = canary
    assert await arms(two.gateways[1]) == first

    again = await two.add("gateway-again")
    assert await arms(again) == first
    two.gateways.remove(again)
    await again.kill()

    await split_by(two, light, weight=10)
    lower = await arms(two.gateways[0])
    assert {number for number, arm in enumerate(lower) if arm == b"r2"} < before


async def test_who_is_on_the_canary_can_be_computed_offline(
    two: Fleet, light: Mapping[str, tuple[Endpoint, ...]]
) -> None:
    for salt in ("one", "two"):
        await split_by(two, light, weight=25, salt=salt)
        canary = canary_order(salt)[: SLOTS // 4]
        expected = [
            b"r2" if slot_of(f"client-{number}") in canary else b"r1" for number in range(CLIENTS)
        ]
        assert await arms(two.gateways[0]) == expected


async def test_another_salt_picks_other_clients(
    two: Fleet, light: Mapping[str, tuple[Endpoint, ...]]
) -> None:
    """A tenth of a tenth is in both; bounds are five standard deviations of drawing slots."""
    picked = []
    for salt in ("one", "two"):
        await split_by(two, light, weight=10, salt=salt)
        told = await arms(two.gateways[0])
        picked.append({number for number, arm in enumerate(told) if arm == b"r2"})
    assert abs(len(picked[0]) - CLIENTS / 10) < 5 * 30
    assert len(picked[0] & picked[1]) < CLIENTS / 100 + 5 * 60


@pytest.mark.parametrize(
    ("target", "host", "arrives"),
    [
        (PATH, "anything", "/v2/models/m/infer"),
        (f"{BASE}/v2?verbose=1", "anything", "/v2?verbose=1"),
        (BASE, "anything", "/"),
        ("/v2/models/m/infer", "burger.shop", "/v2/models/m/infer"),
        ("/v2", "burger.shop.svc", "/v2"),
        ("/v2/health/ready", "burger.shop.svc.cluster.local", "/v2/health/ready"),
        ("/v2/health/live?a=b", "burger.shop.svc.cluster.local:8080", "/v2/health/live?a=b"),
        ("/v2", "burger.shop.svc.cluster.local.", "/v2"),
        ("/v2?verbose=1", "burger.shop", "/v2?verbose=1"),
        ("//v2//models/m", "burger.shop:80", "/v2/models/m"),
        ("/v2/models/m?of=/shop/other/v2/x", "burger.shop", "/v2/models/m?of=/shop/other/v2/x"),
        (f"{BASE}?verbose=1", "anything", "/?verbose=1"),
        (f"{BASE}/v2?of=/v2/models/x", "burger.other", "/v2?of=/v2/models/x"),
        (f"{BASE}/v2/models/v2/infer", "nope.shop", "/v2/models/v2/infer"),
        (
            "/inference.GRPCInferenceService/ModelInfer",
            "burger.shop",
            "/inference.GRPCInferenceService/ModelInfer",
        ),
        ("/", "burger.shop", "/"),
    ],
)
async def test_a_model_is_found_by_path_and_by_host(
    two: Fleet, servers: dict[str, ModelServer], target: str, host: str, arrives: str
) -> None:
    await serve(two, servers, 0, canary="")
    status, headers, body = await get(two, target, host=host)
    assert (status, headers["x-kohort-cohort"]) == (200, "everyone")
    assert f'"path": "{arrives}"' in body


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/shop/nope/v2", "anything"),
        ("/v2", "nope.shop"),
        ("/v2/models/m/infer", "burger.other.svc"),
        ("/v2", "burger.shop.svc.evil.example"),
        ("/", "anything"),
        ("/shop", "anything"),
        (f"{BASE}/metrics", "anything"),
        (f"{BASE}/stage/v2", "anything"),
        ("/shop/burgers/v2", "anything"),
        ("/healthcheck/fail", "anything"),
    ],
)
async def test_what_leads_to_no_model_is_told_so_in_json(
    two: Fleet, servers: dict[str, ModelServer], target: str, host: str
) -> None:
    await serve(two, servers, 0, canary="")
    status, headers, body = await get(two, target, host=host)
    assert status == 404
    assert headers["Content-Type"] == "application/json"
    assert "no model here" in body
    assert '"error"' in body


@pytest.mark.parametrize("host", [",/shop/burger", "x/v2/burger.shop,"])
@pytest.mark.parametrize("target", ["/v2", "/v2/models", "/shop/nope/v2"])
async def test_a_host_with_a_slash_which_could_pass_for_a_path_is_refused(
    two: Fleet, servers: dict[str, ModelServer], target: str, host: str
) -> None:
    await serve(two, servers, 0, canary="")
    assert (await get(two, target, host=host))[0] == 400


async def test_headers_of_the_gateway_cannot_be_faked(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    await serve(two, servers, 0, canary="", staff="r2")
    servers["r1"].headers.clear()
    status, headers, _ = await get(
        two,
        PATH,
        x_keep="1",
        x_kohort_cohort="staff",
        x_kohort_revision="r2",
        x_kohort_scope="/shop/other",
        x_kohort_anything="1",
        x_envoy_upstream_rq_timeout_ms="1",
        x_envoy_max_retries="9",
        x_wait="0.1",
    )
    assert (status, headers["x-kohort-cohort"], headers["x-kohort-revision"]) == (
        200,
        "everyone",
        "r1",
    )
    (arrived,) = servers["r1"].headers
    ours = {k.lower(): v for k, v in arrived.items() if k.lower().startswith("x-kohort")}
    assert ours == {"x-kohort-cohort": "everyone", "x-kohort-revision": "r1"}


async def test_a_cohort_is_matched_by_its_header_in_order(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    await serve(two, servers, 0, canary="", staff="r2")
    _, headers, _ = await get(two, PATH, x_org="acme")
    assert (headers["x-kohort-cohort"], headers["x-kohort-revision"]) == ("staff", "r2")
    _, headers, _ = await get(two, PATH, x_org="acme-not")
    assert headers["x-kohort-cohort"] == "everyone"


async def test_who_asks_for_the_preview_reaches_the_canary_at_weight_0_and_is_no_evidence(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    key = ModelKey("shop", "previewed")
    intended = table(0, key=key, preview="x-preview")
    gateway = two.gateways[0]

    async def serve(serving: set[str]) -> None:
        wanted = with_fallback(intended, serving)
        two.server.publish(wanted, {name: (servers[name].endpoint,) for name in serving})
        await two.effective(wanted)

    async def asked(**headers: str) -> list[str]:
        status, told, body = await get(two, "/shop/previewed/v2", **headers)
        assert status == 200
        return [told["x-kohort-cohort"], told["x-kohort-revision"], json.loads(body)["revision"]]

    await serve({"r1"})
    assert await asked(x_preview="") == ["everyone", "r1", "r1"]
    await serve({"r1", "r2"})
    assert await asked() == ["everyone", "r1", "r1"]
    for value in ("", "yes"):
        assert await asked(x_preview=value) == ["everyone", "r2", "r2"]

    async def counted() -> dict[str, dict[str, int]]:
        seen = await scrape(two.session, [gateway.address])
        return {
            cohort: {arm: count.requests for arm, count in arms.items()}
            for (model, cohort), reading in seen.items()
            if model == key
            for arms in reading.sources.values()
        }

    apart = {"everyone": {"r1": 2}, "everyone/preview": {"r2": 2}}

    async def told_apart() -> bool:
        return await counted() == apart

    await until(told_apart)
    two.server.withdraw(key)


async def test_a_client_of_http_1_0_is_answered(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    wanted = table(0, key=ModelKey("shop", "old-client"))
    two.server.publish(wanted, {"r1": (servers["r1"].endpoint,)})
    await two.effective(wanted)
    address = two.gateways[0].address
    reader, writer = await asyncio.open_connection(address.address, address.port)
    writer.write(b"GET /shop/old-client/v2 HTTP/1.0\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert b" 200 OK\r\n" in answer.splitlines(keepends=True)[0]
    writer.close()
    two.server.withdraw(wanted.key)


async def test_requests_under_way_on_a_pod_that_dies_are_all_answered_by_another(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    held: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    dying = await asyncio.start_server(hold, LOCALHOST, 0)
    pods = (servers["r1"].endpoint, Endpoint(LOCALHOST, dying.sockets[0].getsockname()[1]))
    wanted = table(0, key=ModelKey("shop", "dying"))
    two.server.publish(wanted, {"r1": pods})
    await two.effective(wanted)
    before = servers["r1"].requests.total()

    async def ask(number: int) -> int:
        headers = {"x-client-id": f"c{number}", "x-wait": "2"}
        url = f"{two.gateways[0].url}/shop/dying/v2"
        async with two.session.get(url, headers=headers) as response:
            return response.status

    async def under_way() -> bool:
        return servers["r1"].requests.total() - before + len(held) >= 80

    asking = [asyncio.create_task(ask(number)) for number in range(80)]
    await until(under_way)
    assert len(held) > 20
    dying.close()
    for writer in held:
        writer.transport.abort()
    assert [await each for each in asking] == [200] * 80
    two.server.withdraw(wanted.key)


async def test_a_canary_whose_only_pod_dies_loses_no_request_and_stable_answers_as_itself(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    held: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    dying = await asyncio.start_server(hold, LOCALHOST, 0)
    only = Endpoint(LOCALHOST, dying.sockets[0].getsockname()[1])
    wanted = table(50, key=ModelKey("shop", "alone"), canary="dying")
    two.server.publish(wanted, {"r1": (servers["r1"].endpoint,), "dying": (only,)})
    await two.effective(wanted)
    canary = canary_order("salt")[: SLOTS // 2]
    clients = [f"c{number}" for number in range(200) if slot_of(f"c{number}") in canary]

    async def ask(client: str) -> tuple[int, str]:
        url, headers = f"{two.gateways[0].url}/shop/alone/v2", {"x-client-id": client}
        async with two.session.get(url, headers=headers) as response:
            return response.status, response.headers["x-kohort-revision"]

    async def under_way() -> bool:
        return len(held) == len(clients)

    asking = [asyncio.create_task(ask(client)) for client in clients]
    await until(under_way)
    dying.close()
    for writer in held:
        writer.transport.abort()
    assert [await each for each in asking] == [(200, "r1")] * len(clients)
    # Nobody knows yet that the pod is gone.
    assert [await ask(client) for client in clients] == [(200, "r1")] * len(clients)
    two.server.withdraw(wanted.key)


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


async def test_a_refused_table_touches_no_other_model(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    await serve(two, servers, 5)
    bad = ModelKey("shop", "bad")
    endpoints = {"r1": (servers["r1"].endpoint,)}
    good_table = table(0, key=bad, canary="")
    two.server.publish(good_table, endpoints)
    await two.effective(good_table)
    bad_table = replace(table(5, key=bad), client_key="line\nbreak\0")
    two.server.publish(bad_table, endpoints)

    async def refused() -> bool:
        return any(key == bad for key, _ in two.refusals)

    await until(refused)
    await serve(two, servers, 25)
    assert (await get(two, "/shop/bad/v2"))[0] == 200
    two.server.withdraw(bad)

    async def unreachable() -> bool:
        return (await get(two, "/shop/bad/v2"))[0] == 404

    await until(unreachable)


async def test_http2_without_tls_is_served_on_the_same_port(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    await serve(two, servers, 0, canary="")
    target = f"{two.gateways[0].url}{BASE}{TABLE_VERSION_PATH}"
    process = await asyncio.create_subprocess_exec(
        *("curl", "-s", "--http2-prior-knowledge", "-o", "/dev/null"),
        *("-w", "%{http_version} %{http_code}", target),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert output.decode() == "2 200"


async def test_a_body_goes_through_unchanged(two: Fleet, servers: dict[str, ModelServer]) -> None:
    await serve(two, servers, 0, canary="")
    body = b"x" * (3 << 20)
    async with two.session.post(two.gateways[0].url + PATH, data=body) as response:
        assert response.status == 200


async def test_no_pod_is_told_in_json_with_the_revision(two: Fleet) -> None:
    key = ModelKey("shop", "empty")
    wanted = table(0, key=key, canary="")
    two.server.publish(wanted, {})
    await two.effective(wanted)
    status, headers, body = await get(two, "/shop/empty/v2")
    assert (status, headers["x-kohort-revision"]) == (503, "r1")
    assert '"error"' in body
