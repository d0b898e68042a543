"""What clients meet at a real gateway: addresses, stickiness, headers that nobody can fake, counters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from kohort.analysis.split import canary_order
from kohort.contract import SLOTS, TABLE_VERSION_PATH
from kohort.observe.gateways import scrape
from kohort.route.table import Endpoint, ModelKey, with_fallback
from tests.client_slots import slot_of
from tests.component.gateway_parts import (
    KEY,
    Fleet,
    Gateway,
    ModelServer,
    ask,
    get,
    requests_by,
    serve,
    table,
    until,
    upstream,
)

BASE = f"/{KEY.namespace}/{KEY.name}"
PATH = f"{BASE}/v2/models/m/infer"
CLIENTS = 10_000


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
        status, told, body = await get(two, "/shop/previewed/v2", None, **headers)
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
