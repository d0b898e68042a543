"""The node's pods: those the API assigns to it run, all others do not."""

from __future__ import annotations

import asyncio
import logging
import shutil

from kohort_local import process
from kohort_local.client import Changed, Object
from kohort_local.node.pod import Pod, finalize
from kohort_local.node.registration import Registration
from kohort_local.node.supervisor import Services

log = logging.getLogger(__name__)
_ENDED = ("Succeeded", "Failed")


class Agent:
    """Follows the pods assigned to the node."""

    def __init__(self, services: Services, registration: Registration) -> None:
        self._services = services
        self._registration = registration
        self._pods: dict[str, Pod] = {}  # by uid
        self._finalizing: set[asyncio.Task[bool]] = set()

    def end_orphans(self) -> None:
        """Kill what an earlier node left running."""
        records = self._services.settings.pods.glob("*/*.process")
        found = [(path, process.read_record(path)) for path in records]
        process.stop([orphan for _, orphan in found if orphan], grace=0)
        for path, _ in found:
            path.unlink(missing_ok=True)

    def find(self, namespace: str, name: str) -> Pod | None:
        """The pod of this name, if it is here."""
        for pod in self._pods.values():
            if (pod.context.namespace, pod.context.name) == (namespace, name):
                return pod
        return None

    async def run(self) -> None:
        """Follow the API for ever."""
        selector = f"spec.nodeName={self._services.settings.name}"
        async for news in self._services.client.watch("/api/v1/pods", fieldSelector=selector):
            if isinstance(news, Changed):
                if news.deleted:
                    self._vanished(news.object["metadata"]["uid"])
                else:
                    self._seen(news.object)
                continue
            live = {found["metadata"]["uid"] for found in news.objects}
            for uid in set(self._pods) - live:
                self._vanished(uid)
            self._remove_directories(live)
            for found in news.objects:
                self._seen(found)

    def _vanished(self, uid: str) -> None:
        if pod := self._pods.get(uid):
            pod.end(forced=True)

    def _remove_directories(self, live: set[str]) -> None:
        for directory in self._services.settings.pods.iterdir():
            if directory.name not in live and directory.name not in self._pods:
                shutil.rmtree(directory, ignore_errors=True)

    def _seen(self, found: Object) -> None:
        uid = found["metadata"]["uid"]
        if pod := self._pods.get(uid):
            pod.update(found)
        elif "deletionTimestamp" in found["metadata"]:
            task = asyncio.create_task(finalize(self._services, found))  # nothing of it runs
            self._finalizing.add(task)
            task.add_done_callback(self._finalizing.discard)
        elif found.get("status", {}).get("phase") not in _ENDED:
            try:
                allocatable = self._registration.allocatable()
                self._pods[uid] = Pod(found, self._services, allocatable, self._forget)
            except Exception:
                log.exception("pod %s cannot be taken on", found["metadata"]["name"])

    def _forget(self, uid: str) -> None:
        self._pods.pop(uid, None)

    def abandon(self) -> None:
        """Kill every pod's processes: the node ends."""
        for pod in self._pods.values():
            pod.abandon()
