"""Events about pods, as `kubectl describe` shows them."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from kohort_local.client import MERGE_PATCH, Client, RequestFailed
from kohort_local.node.clock import now
from kohort_local.node.fields import PodContext

log = logging.getLogger(__name__)
_REMEMBERED = 500
_LONGEST_MESSAGE = 1000


@dataclass(frozen=True)
class _Event:
    namespace: str
    pod: str
    uid: str
    kind: str
    reason: str
    message: str


class Recorder:
    """Writes events in order; one that is repeated counts up instead."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node
        self._queue: asyncio.Queue[_Event] = asyncio.Queue(maxsize=1000)
        self._written: dict[_Event, tuple[str, int]] = {}

    def normal(self, pod: PodContext, reason: str, message: str) -> None:
        """Something happened that was to be expected."""
        self._put(pod, "Normal", reason, message)

    def warning(self, pod: PodContext, reason: str, message: str) -> None:
        """Something went wrong."""
        self._put(pod, "Warning", reason, message)

    def _put(self, pod: PodContext, kind: str, reason: str, message: str) -> None:
        event = _Event(pod.namespace, pod.name, pod.uid, kind, reason, message[:_LONGEST_MESSAGE])
        if not self._queue.full():  # events are for people; losing some loses nothing else
            self._queue.put_nowait(event)

    async def run(self) -> None:
        """Write events for ever."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except RequestFailed as error:
                log.warning(
                    "event %s of %s/%s: %s", event.reason, event.namespace, event.pod, error
                )

    async def _write(self, event: _Event) -> None:
        path = f"/api/v1/namespaces/{event.namespace}/events"
        if event in self._written:
            name, count = self._written[event]
            self._written[event] = (name, count + 1)
            change = {"count": count + 1, "lastTimestamp": now()}
            await self._client.request("PATCH", f"{path}/{name}", change, MERGE_PATCH)
            return
        name = f"{event.pod}.{time.time_ns():x}"
        await self._client.request(
            "POST",
            path,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name},
                "type": event.kind,
                "reason": event.reason,
                "message": event.message,
                "count": 1,
                "firstTimestamp": now(),
                "lastTimestamp": now(),
                "source": {"component": "kubelet", "host": self._node},
                "involvedObject": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "namespace": event.namespace,
                    "name": event.pod,
                    "uid": event.uid,
                },
            },
        )
        self._written[event] = (name, 1)
        while len(self._written) > _REMEMBERED:
            del self._written[next(iter(self._written))]
