"""A cache that follows the API server: list, then watch from there, list again when it must."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Generic

import msgspec

from kohort.kube import ApiError, Kube, resource_of
from kohort.observe.listing import list_all
from kohort.observe.objects import T
from kohort.observe.store import Store
from kohort.observe.wire import Metadata

log = logging.getLogger(__name__)

WATCH_SECONDS = 300
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
# A server that nobody can reach is not spared by waiting. The first informer, or whoever else calls,
# that finds it back wakes the others.
LONGEST_PAUSE_UNREACHABLE = 3.0
GONE = 410


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bare(msgspec.Struct):
    """Any object, or the metav1.Status of an ERROR event."""

    metadata: Metadata = Metadata()
    code: int = 0
    message: str = ""


_EVENTS = msgspec.json.Decoder(_Event)
_BARE = msgspec.json.Decoder(_Bare)


class Informer(Generic[T]):
    """Keeps ``store`` equal to what the API server has under ``path`` (of ``namespace``, if given).

    ``synced`` is set once the first list is in. ``beat`` is the loop's time of the last sign that
    this task is alive, whether or not the server answers; ``heard`` that of the server's last word.
    """

    def __init__(
        self,
        kube: Kube,
        store: Store[T],
        path: str,
        parse: Callable[[bytes | msgspec.Raw], T],
        *,
        selector: Mapping[str, str] | None = None,
        namespace: str = "",
        resync: float = 600.0,
    ) -> None:
        self._kube = kube
        self._store = store
        self._path = path
        self._parse = parse
        self._params = dict(selector or {})
        self._namespace = namespace
        self._resync = resync
        self._version = ""
        self.synced = asyncio.Event()
        self.resource = resource_of(path)
        self.beat = self.heard = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Follows the server until cancelled."""
        loop = asyncio.get_running_loop()
        pause, silent = FIRST_PAUSE, False
        listed_at = -self._resync
        while True:
            self.beat = loop.time()
            wait = 0.0
            try:
                if not self._version or loop.time() - listed_at >= self._resync:
                    await self._list()
                    listed_at = loop.time()
                began = loop.time()
                await self._watch()
                if loop.time() - began > FIRST_PAUSE:
                    pause = FIRST_PAUSE
            except (ApiError, msgspec.MsgspecError) as error:
                if isinstance(error, ApiError):
                    wait = error.retry_after
                    if error.status == 0:
                        pause = min(pause, LONGEST_PAUSE_UNREACHABLE)
                    elif silent:
                        pause = FIRST_PAUSE  # it is only starting
                    silent = error.status == 0
                    if error.status == GONE:
                        self._version = ""
                log.warning("Cannot follow %s, trying again: %s", self._path, error)
            # Also after a watch that ended well: one that ends at once must not become a storm.
            await self._kube.pause(max(wait, pause * random.uniform(0.5, 1.0)))  # noqa: S311
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _list(self) -> None:
        objects, version = await list_all(self._kube, self._path, self._params, self._parse)
        self._store.replace(objects, int(version or 0), self._namespace)
        self._version = version
        self.heard = asyncio.get_running_loop().time()
        self.synced.set()

    async def _watch(self) -> None:
        params = {
            **self._params,
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(WATCH_SECONDS * random.uniform(0.8, 1.2))),  # noqa: S311
        }
        async for line in self._kube.watch(self._path, params):
            self.beat = self.heard = asyncio.get_running_loop().time()
            event = _EVENTS.decode(line)
            if event.type in ("ADDED", "MODIFIED"):
                new = self._parse(event.object)
                self._store.put(new)
                self._version = str(new.version)
            elif event.type == "DELETED":
                bare = _BARE.decode(event.object).metadata
                self._store.remove(bare.namespace, bare.name, bare.version)
                self._version = bare.resource_version
            elif event.type == "BOOKMARK":
                self._version = _BARE.decode(event.object).metadata.resource_version
            elif event.type == "ERROR":
                told = _BARE.decode(event.object)
                raise ApiError(told.code, "WatchError", told.message, f"WATCH {self._path}")
