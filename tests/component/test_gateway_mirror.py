"""Mirrored requests at a real gateway: both revisions answer, answers are compared, no client notices."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientTimeout, web

from kohort.analysis.reading import Count
from kohort.gateway.comparer import CONCURRENCY
from kohort.observe.gateways import scrape
from kohort.observe.mirrors import scrape_mirrors
from kohort.route.table import Endpoint, ModelKey
from tests.component.gateway_parts import LOCALHOST, Fleet, Gateway, fleet, free_port, table, until

LINE = re.compile(r"^kohort_gateway_mirrored_requests_total\{(.*)\} (\d+)$", re.MULTILINE)


@dataclass
class Model:
    """A model server of one number for a request: what it is told to think of ``x-case``."""

    answers: dict[str, float | int | None] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    cases: set[str] = field(default_factory=set)
    port: int = field(default_factory=free_port)
    _runner: web.AppRunner | None = None

    async def start(self) -> Model:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOCALHOST, self.port).start()
        return self

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        """A float is an answer, an int a status, None is none at all."""
        self.asked[request.headers["x-kohort-cohort"]] += 1
        assert await request.json() == {"inputs": []}
        self.cases.add(request.headers["x-case"])
        thought = self.answers.get(request.headers["x-case"], 1.0)
        if thought is None:
            await asyncio.Event().wait()
        if isinstance(thought, int):
            return web.json_response({"error": "as told"}, status=thought)
        output = {"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [thought]}
        return web.json_response({"outputs": [output], "id": str(id(request))})


@pytest_asyncio.fixture
async def models() -> AsyncIterator[dict[str, Model]]:
    made = {revision: await Model().start() for revision in ("r1", "r2")}
    yield made
    for model in made.values():
        await model.stop()


@pytest_asyncio.fixture(scope="module")
async def one(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("mirror")) as made:
        await until(lambda: counts_are_read(made.gateways[0], made))
        yield made


async def counters(made: Fleet, key: ModelKey) -> dict[str, int]:
    """Mirrored requests of a model by what came of them."""
    async with made.session.get(f"{made.gateways[0].status_url}/stats/mirror") as response:
        response.raise_for_status()
        text = await response.text()
    found = {}
    for labels, value in LINE.findall(text):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if told["canary"] == f"{key}/r2":
            assert (told["stable"], told["cohort"]) == (f"{key}/r1", "everyone")
            found[told["outcome"]] = int(value)
    return found


async def counts_are_read(gateway: Gateway, made: Fleet) -> bool:
    async with made.session.get(f"{gateway.status_url}/stats/mirror") as response:
        return response.status == 200


async def serve(made: Fleet, models: dict[str, Model], key: ModelKey, percent: int = 100) -> None:
    wanted = table(0, key=key, mirror=percent)
    pods = {name: (Endpoint(LOCALHOST, model.port),) for name, model in models.items()}
    made.server.publish(wanted, pods)
    await made.effective(wanted)


async def infer(made: Fleet, key: ModelKey, case: str = "") -> Any:
    url = f"{made.gateways[0].url}/{key}/v2/models/m/infer"
    headers = {"x-case": case, "x-client-id": "a"}
    async with made.session.post(
        url, json={"inputs": []}, headers=headers, timeout=ClientTimeout(total=20)
    ) as response:
        assert response.headers["x-kohort-cohort"] == "everyone"
        assert response.headers["x-kohort-revision"] == "r1"
        return response.status, await response.json()


async def test_answers_are_compared_and_counted_and_clients_meet_stable_alone(
    one: Fleet, models: dict[str, Model]
) -> None:
    key = ModelKey("shop", "compared")
    cases: dict[str, tuple[float | int, float | int, str]] = {
        "alike": (1.0, 1.0, "same"),
        "near": (1.0, 1.001, "close"),
        "far": (1.0, 2.0, "different"),
        "worse": (1.0, 500, "canary_failed"),
        "better": (503, 1.0, "stable_failed"),
        "nonsense": (400, 400, "both_failed"),
    }
    for case, (stable, canary, _) in cases.items():
        models["r1"].answers[case] = stable
        models["r2"].answers[case] = canary
    await serve(one, models, key)
    expected: Counter[str] = Counter()

    async def compared() -> bool:
        return await counters(one, key) == expected

    for number, (case, (stable, _, outcome)) in enumerate(cases.items(), 1):
        for _ in range(number):
            status, body = await infer(one, key, case)
            assert status == (stable if isinstance(stable, int) else 200)
            assert status != 200 or body["outputs"][0]["data"] == [stable]
            expected[outcome] += 1
            await until(compared)  # one by one, so that none is too much
    total = expected.total()
    assert models["r1"].asked == {"everyone": total, "everyone/mirror": total}
    assert models["r2"].asked == {"everyone/mirror": total}

    addresses = [gateway.address for gateway in one.gateways]
    read = await scrape_mirrors(one.session, addresses)
    assert not read.errors
    (arms,) = read[key, "everyone/mirror"].sources.values()
    assert arms == {"r1": Count(total, 5), "r2": Count(total, 4), "different": Count(3, 0)}
    clients = (await scrape(one.session, addresses))[key, "everyone"]
    assert list(clients.sources.values()) == [{"r1": Count(total, 5 + 6)}]


async def test_a_share_of_requests_is_mirrored_and_none_without_a_share(
    one: Fleet, models: dict[str, Model]
) -> None:
    key = ModelKey("shop", "shared")
    await serve(one, models, key, percent=30)
    for _ in range(300):
        await infer(one, key)

    async def many() -> bool:
        return models["r2"].asked["everyone/mirror"] > 50

    await until(many)
    assert models["r2"].asked["everyone/mirror"] < 130  # five standard deviations, as 50 is
    await serve(one, models, key, percent=0)
    for _ in range(50):
        await infer(one, key, "later")
    await serve(one, models, key, percent=100)

    async def last() -> bool:
        await infer(one, key, "last")
        return "last" in models["r2"].cases

    await until(last)
    assert models["r2"].cases == {"", "last"}


async def test_a_canary_that_hangs_costs_no_client_a_request_and_what_is_too_much_is_dropped(
    one: Fleet, models: dict[str, Model]
) -> None:
    key = ModelKey("shop", "hanging")
    models["r2"].answers[""] = None
    await serve(one, models, key)
    for _ in range(100):
        assert (await infer(one, key))[0] == 200

    async def dropped() -> bool:
        return (await counters(one, key)).get("dropped", 0) == 100 - CONCURRENCY

    await until(dropped)
    assert models["r2"].asked["everyone/mirror"] == CONCURRENCY


async def test_a_comparer_that_hangs_or_dies_costs_no_client_a_request_and_comes_back(
    one: Fleet, models: dict[str, Model]
) -> None:
    key = ModelKey("shop", "alone")
    gateway = one.gateways[0]
    await serve(one, models, key)
    first = gateway.comparer()
    os.kill(first, signal.SIGSTOP)
    for _ in range(200):
        assert (await infer(one, key))[0] == 200
    os.kill(first, signal.SIGKILL)
    for _ in range(50):
        assert (await infer(one, key))[0] == 200

    async def another() -> bool:
        return gateway.comparer() not in (0, first)

    await until(another)

    async def compares_again() -> bool:
        assert (await infer(one, key))[0] == 200
        return await counts_are_read(gateway, one) and (await counters(one, key)).get("same", 0) > 0

    await until(compares_again)
    assert models["r1"].asked["everyone"] >= 250
