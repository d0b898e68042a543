"""What a pod may be told of itself: the downward API."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from kohort_local.client import Object
from kohort_local.node import quantity

_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


@dataclass
class PodContext:
    """A pod as the API last told of it, and what the node has given it."""

    object: Object
    node: str
    node_address: str
    address: str
    allocatable: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return str(self.object["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.object["metadata"]["uid"])

    @property
    def spec(self) -> Object:
        return dict(self.object["spec"])

    @property
    def service_account(self) -> str:
        return str(self.object["spec"].get("serviceAccountName") or "default")

    @property
    def grace_seconds(self) -> float:
        """How long the pod may take to end."""
        grace = self.object["metadata"].get("deletionGracePeriodSeconds")
        if grace is None:
            grace = self.object["spec"].get("terminationGracePeriodSeconds", 30)
        return float(grace)

    @property
    def deleted(self) -> bool:
        """Whether somebody has asked for its end."""
        return "deletionTimestamp" in self.object["metadata"]

    def field(self, path: str) -> str:
        """The value of a `fieldRef`.

        Raises:
            ValueError: there is no such field.
        """
        metadata = self.object["metadata"]
        if keyed := _KEYED.fullmatch(path):
            return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
        if path in ("metadata.labels", "metadata.annotations"):
            entries = metadata.get(path.removeprefix("metadata.")) or {}
            return "\n".join(f"{key}={json.dumps(entries[key])}" for key in sorted(entries))
        values = {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "metadata.uid": self.uid,
            "spec.nodeName": self.node,
            "spec.serviceAccountName": self.service_account,
            "status.podIP": self.address,
            "status.podIPs": self.address,
            "status.hostIP": self.node_address,
            "status.hostIPs": self.node_address,
        }
        if path not in values:
            raise ValueError(f"fieldRef {path} is not one that a pod can be told")
        return values[path]

    def resource(self, reference: dict[str, Any], container: Object | None = None) -> str:
        """The value of a `resourceFieldRef`, in units of its divisor, rounded up.

        A limit that is not set is what the node can allocate.

        Raises:
            ValueError: there is no such resource or container.
        """
        name = reference.get("containerName")
        if name:
            every = [*self.spec["containers"], *self.spec.get("initContainers", [])]
            container = next((c for c in every if c["name"] == name), None)
        if container is None:
            raise ValueError(f"resourceFieldRef names a container {name} that the pod has not")
        kind, _, resource = str(reference["resource"]).partition(".")
        resources = container.get("resources", {})
        value = resources.get(kind, {}).get(resource)
        if value is None and kind == "requests":
            value = resources.get("limits", {}).get(resource, "0")
        if value is None:
            value = self.allocatable.get(resource, "0")
        return str(quantity.in_units_of(value, reference.get("divisor", "1")))
