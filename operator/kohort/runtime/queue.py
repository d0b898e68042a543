"""A queue of keys: each key is worked on by one worker at a time, and never forgotten."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_RETRY, LONGEST_RETRY = 0.1, 60.0


class WorkQueue(Generic[K]):
    """Keys that want work. A key added while it is worked on comes again afterwards.

    ``on_taken`` hears of each key that a worker takes for how many seconds it has wanted that.
    """

    def __init__(self, on_taken: Callable[[float], None] = lambda seconds: None) -> None:
        self._on_taken = on_taken
        self._loop = asyncio.get_running_loop()
        self._dirty: OrderedDict[K, float] = OrderedDict()  # since when
        self._processing: dict[K, float] = {}  # since when
        self._again: dict[K, float] = {}  # since when
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._counter = 0
        self._timer: asyncio.TimerHandle | None = None
        self._failures: dict[K, int] = {}
        self._some = asyncio.Event()

    def add(self, key: K) -> None:
        """Wants work on ``key`` now."""
        self._add(key, self._loop.time())

    def _add(self, key: K, since: float) -> None:
        if key in self._processing:
            self._again.setdefault(key, since)
        elif key not in self._dirty:
            self._dirty[key] = since
            self._some.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Wants work on ``key`` after a while; of several such wishes the earliest counts."""
        at = self._loop.time() + max(0.0, seconds)
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            self._counter += 1  # keys need not be comparable
            heapq.heappush(self._heap, (at, self._counter, key))
            self._arm()

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Wants work on a key that failed, each time later; returns in how many seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = max(min(FIRST_RETRY * 2.0**failures, LONGEST_RETRY), at_least)
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """Forgets a key's failures."""
        self._failures.pop(key, None)

    def retry_now(self) -> None:
        """Wants work on all keys that failed, which they did for a reason that is over."""
        for key in self._failures:
            self.add(key)
        self._failures.clear()

    async def get(self) -> K:
        """The key that has waited longest; :meth:`done` must follow."""
        while not self._dirty:
            self._some.clear()
            await self._some.wait()
        key, since = self._dirty.popitem(last=False)
        now = self._processing[key] = self._loop.time()
        self._on_taken(now - since)
        return key

    def done(self, key: K) -> None:
        """Ends the work on a key."""
        del self._processing[key]
        if key in self._again:
            self._add(key, self._again.pop(key))

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._dirty)

    def age(self) -> float:
        """Seconds that the oldest key has been waited for or worked on."""
        since = [next(iter(self._dirty.values()))] if self._dirty else []
        since += self._processing.values()
        return self._loop.time() - min(since) if since else 0.0

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = self._loop.call_at(self._heap[0][0], self._wake)

    def _wake(self) -> None:
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now + 1e-4:
            at, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == at:  # else an earlier wish has been served
                del self._due[key]
                self._add(key, min(at, now))
        self._arm()
