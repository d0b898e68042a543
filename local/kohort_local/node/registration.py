"""The node as the API server knows it: registration, status and lease."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time

from kohort_local import binaries
from kohort_local.client import (
    MERGE_PATCH,
    STRATEGIC_MERGE_PATCH,
    Client,
    Object,
    RequestFailed,
    status_code,
)
from kohort_local.node.clock import now, now_micro
from kohort_local.node.settings import Settings

log = logging.getLogger(__name__)
GPU = "nvidia.com/gpu"
_GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
_GPU_PRODUCT = "NVIDIA-L4"
_LEASE_SECONDS = 40
_LEASE_EVERY_SECONDS = 10.0
_STATUS_EVERY_SECONDS = 60.0
_LOOK_SECONDS = 0.3  # how soon a changed number of GPUs is seen
_CPUS_PER_CPU = 16  # what pods request is no measure of what a laptop can run
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_HEALTHY = {
    "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID"),
    "Ready": ("True", "KubeletReady"),
}


class Registration:
    """Keeps the Node object and its lease alive."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings = settings
        self._client = client
        self._since = now()

    def gpus(self) -> int:
        """The number of GPUs that the node offers; 0 when nobody has said."""
        try:
            return int(self._settings.gpus.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def allocatable(self) -> dict[str, str]:
        """What pods on this node may ask for."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        return {
            "cpu": str((os.cpu_count() or 1) * _CPUS_PER_CPU),
            "memory": f"{memory}Mi",
            "pods": "110",
            "ephemeral-storage": "100Gi",
            GPU: str(self.gpus()),
        }

    async def run(self) -> None:
        """Register, and tell that the node lives, for ever."""
        told_gpus, status_at, lease_at = -1, 0.0, 0.0
        while True:
            at, gpus = time.monotonic(), self.gpus()
            try:
                if gpus != told_gpus or at >= status_at:
                    await self._write_node(gpus)
                    told_gpus, status_at = gpus, at + _STATUS_EVERY_SECONDS
                if at >= lease_at:
                    await self._renew_lease()
                    lease_at = at + _LEASE_EVERY_SECONDS
            except RequestFailed as error:
                log.warning("node status: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)

    def changed_elsewhere(self, node: Object) -> bool:
        """Whether somebody else has marked this node not ready."""
        told = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions", [])}
        return told.get("Ready") != "True"

    async def _write_node(self, gpus: int) -> None:
        path = f"/api/v1/nodes/{self._settings.name}"
        labels: dict[str, str | None] = {
            "kubernetes.io/hostname": self._settings.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": self._architecture,
            _GPU_PRODUCT_LABEL: _GPU_PRODUCT if gpus else None,
        }
        try:
            await self._client.request("PATCH", path, {"metadata": {"labels": labels}}, MERGE_PATCH)
        except RequestFailed as error:
            if status_code(error) != 404:
                raise
            metadata = {
                "name": self._settings.name,
                "labels": {key: value for key, value in labels.items() if value},
            }
            node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
            await self._client.request("POST", "/api/v1/nodes", node)
        status = {"status": self._status()}
        await self._client.request("PATCH", f"{path}/status", status, STRATEGIC_MERGE_PATCH)

    @property
    def _architecture(self) -> str:
        return _ARCHITECTURES.get(platform.machine(), platform.machine())

    def _status(self) -> Object:
        resources = self.allocatable()
        return {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                {
                    "type": name,
                    "status": status,
                    "reason": reason,
                    "message": "",
                    "lastHeartbeatTime": now(),
                    "lastTransitionTime": self._since,
                }
                for name, (status, reason) in _HEALTHY.items()
            ],
            "addresses": [
                {"type": "InternalIP", "address": self._settings.address},
                {"type": "Hostname", "address": self._settings.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._settings.port}},
            "nodeInfo": {
                "machineID": self._settings.name,
                "systemUUID": self._settings.name,
                "bootID": self._since,
                "kernelVersion": platform.release(),
                "osImage": platform.system(),
                "containerRuntimeVersion": "process://1",
                "kubeletVersion": f"v{binaries.VERSION}",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": self._architecture,
            },
        }

    async def _renew_lease(self) -> None:
        name = self._settings.name
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": _LEASE_SECONDS,
            "renewTime": now_micro(),
        }
        try:
            await self._client.request("PATCH", f"{_LEASES}/{name}", {"spec": spec}, MERGE_PATCH)
        except RequestFailed as error:
            if status_code(error) != 404:
                raise
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name},
                "spec": spec,
            }
            await self._client.request("POST", _LEASES, lease)
