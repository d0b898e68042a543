"""Sends CloudEvents to one HTTP sink: tried again with patience, never in the way of a rollout."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
import msgspec

from kohort.act.cloudevents import CONTENT_TYPE, CloudEvent
from kohort.act.outbox import Outbox
from kohort.kube import retry_after

log = logging.getLogger(__name__)

WAITING_AT_MOST = 2000
SENDERS = 4
ANSWER_SECONDS = 5.0
# An event that is not taken is old news after this.
KEPT_SECONDS = 3600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
# Answers after which the same again may be taken; all others of 300 and more refuse it for good.
PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True)
class _Entry:
    event: CloudEvent
    since: float


class _NotTakenError(Exception):
    """The sink may take it later."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class Sink:
    """Queues CloudEvents for ``url``; a failure makes all of them wait, each time longer.

    ``on_result`` hears what became of each event: delivered, overflow, refused or expired; and
    ``failed`` of each attempt that is made again.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        on_result: Callable[[str], None],
        *,
        limit: int = WAITING_AT_MOST,
        answer_seconds: float = ANSWER_SECONDS,
        kept_seconds: float = KEPT_SECONDS,
    ) -> None:
        self._session = session
        self._url = url
        self._on_result = on_result
        self._timeout = aiohttp.ClientTimeout(total=answer_seconds)
        self._kept = kept_seconds
        self._outbox: Outbox[_Entry] = Outbox("CloudEvents", limit, on_result)
        self._failures = 0
        self._resume_at = 0.0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._outbox)

    def send(self, event: CloudEvent) -> None:
        """Queues an event."""
        self._outbox.put(_Entry(event, asyncio.get_running_loop().time()))

    async def run(self) -> None:
        """Sends until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(self._send_all())

    async def _send_all(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            entry = await self._outbox.get()
            # Looked at anew after each wait: meanwhile another sender may have met a failure.
            while self._resume_at > clock():  # noqa: ASYNC110
                await asyncio.sleep(self._resume_at - clock())
            if clock() - entry.since > self._kept:
                self._outbox.lost("expired", entry.event.id)
                continue
            try:
                await self._post(entry.event)
            except _NotTakenError as error:
                self._on_result("failed")
                self._pause(error)
                # To the end: an event that the sink cannot digest must not hold up the others.
                self._outbox.put(entry)
            else:
                self._failures, self._resume_at = 0, 0.0

    async def _post(self, event: CloudEvent) -> None:
        try:
            async with self._session.post(
                self._url,
                data=msgspec.json.encode(event),
                headers={"Content-Type": CONTENT_TYPE},
                timeout=self._timeout,
                allow_redirects=False,
            ) as answer:
                status, wait = answer.status, retry_after(answer.headers.get("Retry-After", ""))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _NotTakenError(str(error) or "no answer in time") from error
        if status >= 500 or status in PASSING:
            raise _NotTakenError(f"it answered {status}", wait)
        if status >= 300:
            self._outbox.lost("refused", f"the sink answered {status} to {event.id}")
        else:
            self._on_result("delivered")

    def _pause(self, error: _NotTakenError) -> None:
        if not self._failures:
            log.warning("The sink of CloudEvents takes nothing, trying again: %s", error)
        pause = min(FIRST_PAUSE * 2.0**self._failures, LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311
        now = asyncio.get_running_loop().time()
        if self._resume_at <= now:  # else this failure began before the pause did
            self._failures += 1
            self._resume_at = now + max(pause, error.wait)
