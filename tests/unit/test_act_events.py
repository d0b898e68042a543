"""Kubernetes events: tried again, written once, and counted when they are lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from kohort.act import events
from kohort.act.events import ATTEMPTS, Recorder
from kohort.act.manifests import Owner
from kohort.kube import JSON, ApiError
from kohort.plan.outcome import Event, EventType

OWNER = Owner("shop", "burger", "u1")


class Server:
    """An API server that keeps events by name, and has an answer of its own to the first calls."""

    def __init__(self, *answers: int, retry_after: float = 0.0) -> None:
        self.events: dict[str, Any] = {}
        self.tried: list[str] = []
        self._answers = list(answers)
        self._retry_after = retry_after

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
    ) -> bytes:
        name = body["metadata"]["name"]
        self.tried.append(name)
        answer = self._answers.pop(0) if self._answers else 201
        if answer in (201, 0):  # an answer that is lost is to a call that was taken
            if name in self.events:
                raise ApiError(409, "AlreadyExists", "", path)
            self.events[name] = body
        if answer != 201:
            raise ApiError(answer, "Trouble", "", path, self._retry_after)
        return b"{}"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(events, "LONGEST_PAUSE", 0.001)
    monkeypatch.setattr(events, "SECONDS_BETWEEN", 0.0)


async def told(server: Server, *messages: str) -> tuple[list[str], Counter[str]]:
    """The notes that arrive of these messages, the last of which does; and why others were lost."""
    lost: Counter[str] = Counter()
    recorder = Recorder(server, "one", lambda why: lost.update([why]))
    for message in messages:
        recorder.record(OWNER, Event(EventType.NORMAL, "Said", message))
    task = asyncio.create_task(recorder.run())
    async with asyncio.timeout(20):
        while not any(e["note"] == messages[-1] for e in server.events.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    task.cancel()
    return [event["note"] for event in server.events.values()], lost


@pytest.mark.parametrize("trouble", [500, 503, 429])
async def test_an_event_that_is_not_taken_is_written_later(trouble: int) -> None:
    notes, lost = await told(Server(trouble, trouble), "one", "two")
    assert notes == ["one", "two"]
    assert not lost


async def test_an_event_whose_answer_was_lost_is_not_written_twice() -> None:
    server = Server(0)
    notes, lost = await told(server, "one", "two")
    assert notes == ["one", "two"]
    assert server.tried[0] == server.tried[1]
    assert not lost


async def test_an_event_that_is_refused_is_lost_and_counted() -> None:
    assert await told(Server(403), "one", "two") == (["two"], Counter(refused=1))


async def test_an_event_is_not_tried_for_ever() -> None:
    assert await told(Server(*[500] * ATTEMPTS), "one", "two") == (
        ["two"],
        Counter(unreachable=1),
    )


async def test_when_too_many_wait_the_oldest_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "WAITING_AT_MOST", 3)
    notes, lost = await told(Server(), *(str(n) for n in range(10)))
    assert notes == ["7", "8", "9"]
    assert lost == Counter(overflow=7)
    assert "7 Kubernetes events were dropped" in caplog.text or "oldest are dropped" in caplog.text


async def test_the_server_is_left_alone_for_as_long_as_it_asks() -> None:
    server = Server(429, retry_after=0.3)
    began = asyncio.get_running_loop().time()
    await told(server, "one")
    assert asyncio.get_running_loop().time() - began >= 0.3
