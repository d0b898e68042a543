"""A node that is only pretended: its pods are ready as soon as they are bound to it, and are no processes.

All of them have one address, on which a server of the bench's own may answer for them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from kohort_local.client import MERGE_PATCH, STRATEGIC_MERGE_PATCH, Client, Relisted, RequestFailed
from kohort_local.node.clock import now, now_micro

Object = dict[str, Any]
NAME = "pretended"
TAINT = {"key": "bench.kohort.dev/pretended", "effect": "NoSchedule"}
PLACEMENT: Object = {
    "nodeSelector": {"kubernetes.io/hostname": NAME},
    "tolerations": [{"key": TAINT["key"], "operator": "Exists"}],
}
"""What of a pod's spec brings it here."""

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_LEASE_SECONDS = 10.0
_CAPACITY = {"cpu": "10000", "memory": "10Ti", "pods": "10000", "ephemeral-storage": "10Ti"}
_AT_A_TIME = 8


class PretendedNode:
    """Stands in for the kubelet of a node and for its pods; :meth:`run` until cancelled."""

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self._address = address
        self._places = asyncio.Semaphore(_AT_A_TIME)
        self._working: dict[str, asyncio.Task[None]] = {}
        self._since = now()

    async def run(self) -> None:
        """Registers the node, and keeps it and its pods alive."""
        await self._register()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew())
            tasks.create_task(self._follow())

    async def _register(self) -> None:
        labels = {"kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux"}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NAME, "labels": labels},
            "spec": {"taints": [TAINT]},
        }
        await self._client.request("POST", "/api/v1/nodes", node)
        ready = {"type": "Ready", "status": "True", "reason": "Pretended", "message": ""}
        status = {
            "capacity": _CAPACITY,
            "allocatable": _CAPACITY,
            "conditions": [{**ready, "lastHeartbeatTime": now(), "lastTransitionTime": now()}],
        }
        await self._client.request(
            "PATCH", f"/api/v1/nodes/{NAME}/status", {"status": status}, STRATEGIC_MERGE_PATCH
        )

    async def _renew(self) -> None:
        spec = {"holderIdentity": NAME, "leaseDurationSeconds": 40}
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME},
            "spec": spec,
        }
        await self._client.request("POST", _LEASES, lease)
        while True:
            body = {"spec": {**spec, "renewTime": now_micro()}}
            with contextlib.suppress(*RequestFailed):
                await self._client.request("PATCH", f"{_LEASES}/{NAME}", body, MERGE_PATCH)
            await asyncio.sleep(_LEASE_SECONDS)

    async def _follow(self) -> None:
        async for news in self._client.watch("/api/v1/pods", fieldSelector=f"spec.nodeName={NAME}"):
            for pod in news.objects if isinstance(news, Relisted) else [news.object]:
                self._look(pod)

    def _look(self, pod: Object) -> None:
        metadata, status = pod["metadata"], pod.get("status", {})
        if metadata.get("deletionTimestamp"):
            self._begin(f"end {metadata['uid']}", self._end(pod))
        elif not status.get("podIP"):
            self._begin(f"start {metadata['uid']}", self._start(pod))

    def _begin(self, what: str, work: Any) -> None:
        if what in self._working:
            work.close()
            return
        self._working[what] = asyncio.create_task(work)
        self._working[what].add_done_callback(lambda _: self._working.pop(what))

    async def _start(self, pod: Object) -> None:
        def condition(kind: str) -> Object:
            return {"type": kind, "status": "True", "lastTransitionTime": now()}

        containers = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now()}},
            }
            for container in pod["spec"]["containers"]
        ]
        status = {
            "phase": "Running",
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
            "startTime": now(),
            "conditions": [
                condition(kind)
                for kind in ("Initialized", "ContainersReady", "Ready", "PodScheduled")
            ],
            "containerStatuses": containers,
        }
        await self._send("PATCH", pod, "/status", {"status": status})

    async def _end(self, pod: Object) -> None:
        await self._send("DELETE", pod, "", {"gracePeriodSeconds": 0})

    async def _send(self, method: str, pod: Object, subresource: str, body: Object) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}{subresource}"
        kind = STRATEGIC_MERGE_PATCH if method == "PATCH" else "application/json"
        async with self._places:
            with contextlib.suppress(*RequestFailed):  # gone, or told again by the next list
                await self._client.request(method, path, body, kind)
