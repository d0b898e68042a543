"""What waits to be told: bounded, never in the way, and never lost without a word."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
OVERFLOW = "overflow"


class Outbox(Generic[T]):
    """A queue that drops its oldest entry when it is full: what is newest explains most.

    ``on_lost`` hears why an entry was lost.
    """

    def __init__(self, what: str, limit: int, on_lost: Callable[[str], None]) -> None:
        self._what = what
        self._limit = limit
        self._on_lost = on_lost
        self._waiting: deque[T] = deque()
        self._some = asyncio.Event()
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, entry: T) -> None:
        """Adds an entry."""
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            if not self._dropped:
                log.warning("More than %d %s wait: the oldest are dropped", self._limit, self._what)
            self._dropped += 1
            self._on_lost(OVERFLOW)
        self._waiting.append(entry)
        self._some.set()

    async def get(self) -> T:
        """The oldest entry."""
        while not self._waiting:
            if self._dropped:
                log.warning("%d %s were dropped: too many waited", self._dropped, self._what)
                self._dropped = 0
            self._some.clear()
            await self._some.wait()
        return self._waiting.popleft()

    def lost(self, why: str, detail: object) -> None:
        """Tells of an entry that was taken and could not be told."""
        log.warning("One of the %s was lost (%s): %s", self._what, why, detail)
        self._on_lost(why)
