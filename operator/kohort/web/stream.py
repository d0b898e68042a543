"""Server-sent events: what changed, when it changed, to somebody who may still see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

# Between two events, whatever changes; where there are thousands of models, something always does.
PACE_SECONDS, LIST_PACE_SECONDS = 0.5, 2.0
TICK_SECONDS = 5.0  # durations in sentences go on even if nothing happens
QUIET_SECONDS = 15.0  # then a comment shows that the connection stands
WRITE_SECONDS = 10.0
RECHECK_SECONDS = 30.0

Payload = Callable[[], bytes | None]
"""What is to be seen now, as JSON on one line; None: it is gone."""


async def stream(
    response: web.StreamResponse,
    payload: Payload,
    changed: asyncio.Event,
    recheck: Callable[[], Awaitable[str]],
    stopping: asyncio.Event,
    pace: float,
) -> None:
    """Sends events until the person goes, what they look at is gone, or ``recheck`` says why not on.

    Raises:
        TimeoutError, ConnectionError: the person does not read any more.
    """
    clock = asyncio.get_running_loop().time
    sent = b""
    spoke = checked = clock()
    while not stopping.is_set():
        changed.clear()
        now = clock()
        if now - checked >= RECHECK_SECONDS:
            checked = now
            if refusal := await recheck():
                await _write(response, _event("refused", refusal.encode()))
                return
        content = payload()
        if content is None:
            await _write(response, _event("gone", b"{}"))
            return
        if content != sent:
            await _write(response, _event("seen", content))
            sent, spoke = content, now
        elif now - spoke >= QUIET_SECONDS:
            await _write(response, b":\n\n")
            spoke = now
        await _first_of(TICK_SECONDS, changed, stopping)
        await _first_of(pace, stopping)
    await _write(response, _event("restarting", b"{}"))


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


async def _write(response: web.StreamResponse, content: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(content)


async def _first_of(seconds: float, *events: asyncio.Event) -> None:
    """Until one of them is set, or time is up."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
