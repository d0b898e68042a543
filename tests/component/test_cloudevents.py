"""CloudEvents and a real HTTP receiver that is down, slow, broken, and well again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from kohort.act import sink as sending
from kohort.act.cloudevents import CloudEvent, plain_event
from kohort.act.manifests import Owner
from kohort.act.sink import Sink
from kohort.analysis.timestamps import from_time
from kohort.plan.outcome import Event, EventType
from tests.component.operator_parts import free_port

OWNER = Owner("shop", "burger", "u1")


class Receiver:
    """An HTTP server that answers ``status``, after ``delay`` seconds; keeps what it was sent."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status, self.delay, self.headers = 200, 0.0, dict[str, str]()
        self.taken: list[dict[str, Any]] = []
        self.types: list[str] = []
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/kohort"

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.taken]

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/kohort", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.asked += 1
        status = self.status
        await asyncio.sleep(self.delay)
        if status < 300:
            self.taken.append(msgspec.json.decode(await request.read()))
            self.types.append(request.headers["Content-Type"])
        return web.Response(status=status, headers=self.headers)


class World:
    """A sink that sends, and what became of the events."""

    def __init__(self, sink: Sink, results: Counter[str]) -> None:
        self.sink, self.results = sink, results

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.sink.send(event(number))

    async def ends(self, **results: int) -> None:
        """Returns once that many have ended so."""
        async with asyncio.timeout(30):
            while any(self.results[what] < count for what, count in results.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


def event(number: int) -> CloudEvent:
    told = Event(EventType.NORMAL, "WeightChanged", f"{number}% of clients")
    return plain_event(OWNER, 7, number, told, from_time("2026-01-31T12:00:00.000Z"))


def ids(*numbers: int) -> list[str]:
    return [event(number).id for number in numbers]


@asynccontextmanager
async def sending_to(url: str, **settings: Any) -> AsyncIterator[World]:
    results: Counter[str] = Counter()
    async with aiohttp.ClientSession() as session:
        sink = Sink(session, url, lambda what: results.update([what]), **settings)
        task = asyncio.create_task(sink.run())
        try:
            yield World(sink, results)
        finally:
            task.cancel()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(sending, "LONGEST_PAUSE", 0.1)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


async def test_an_event_arrives_as_a_cloudevent_in_structured_mode(receiver: Receiver) -> None:
    async with receiver.up(), sending_to(receiver.url) as world:
        world.send(5)
        await world.ends(delivered=1)
    assert receiver.types == ["application/cloudevents+json; charset=utf-8"]
    assert receiver.taken == [
        {
            "specversion": "1.0",
            "id": "u1/7/5",
            "source": "/apis/kohort.dev/v1alpha1/namespaces/shop/modeldeployments/burger",
            "type": "dev.kohort.event.weightchanged",
            "subject": "burger",
            "time": "2026-01-31T12:00:00.000Z",
            "datacontenttype": "application/json",
            "data": {
                "namespace": "shop",
                "name": "burger",
                "uid": "u1",
                "message": "5% of clients",
                "reason": "WeightChanged",
                "severity": "Normal",
            },
        }
    ]


async def test_nothing_is_lost_while_the_receiver_is_down_slow_and_broken(
    receiver: Receiver,
) -> None:
    async with sending_to(receiver.url, answer_seconds=0.2) as world:
        world.send(*range(10))
        await world.ends(failed=3)  # nobody listens
        async with receiver.up():
            receiver.status = 500
            await world.ends(failed=6)
            receiver.status, receiver.delay = 200, 30.0
            failed = world.results["failed"]
            await world.ends(failed=failed + 3)
            receiver.delay = 0.0
            await world.ends(delivered=10)
    assert sorted(receiver.ids) == ids(*range(10))
    assert world.results.keys() == {"failed", "delivered"}


async def test_sending_waits_for_nobody(receiver: Receiver) -> None:
    """A rollout goes on in the very moment, whatever the receiver does."""
    receiver.delay = 30.0
    async with receiver.up(), sending_to(receiver.url) as world:
        world.send(*range(100))
        assert world.sink.waiting == 100
        assert receiver.asked == 0


async def test_when_too_many_wait_the_oldest_are_dropped_and_counted(receiver: Receiver) -> None:
    async with sending_to(receiver.url, limit=5) as world:
        world.send(*range(20))
        assert world.results["overflow"] == 15
        async with receiver.up():
            await world.ends(delivered=5)
    assert sorted(receiver.ids) == sorted(ids(*range(15, 20)))


async def test_what_is_refused_is_not_sent_again(receiver: Receiver) -> None:
    receiver.status = 400
    async with receiver.up(), sending_to(receiver.url) as world:
        world.send(1)
        await world.ends(refused=1)
        receiver.status = 200
        world.send(2)
        await world.ends(delivered=1)
    assert receiver.ids == ids(2)
    assert receiver.asked == 2


async def test_an_event_that_nobody_takes_expires(receiver: Receiver) -> None:
    async with sending_to(receiver.url, kept_seconds=0.3) as world:
        world.send(1)
        await world.ends(expired=1)
        assert world.sink.waiting == 0


async def test_the_receiver_is_left_alone_for_as_long_as_it_asks(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 429, {"Retry-After": "1"}
    async with receiver.up(), sending_to(receiver.url) as world:
        world.send(1)
        await world.ends(failed=1)
        began = asyncio.get_running_loop().time()
        receiver.status = 200
        await world.ends(delivered=1)
        assert asyncio.get_running_loop().time() - began > 0.8
    assert receiver.asked == 2


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    """Where events go is what the operator's owner said, and nobody else."""
    receiver.status, receiver.headers = 307, {"Location": "http://127.0.0.1:1/elsewhere"}
    async with receiver.up(), sending_to(receiver.url) as world:
        world.send(1)
        await world.ends(refused=1)
