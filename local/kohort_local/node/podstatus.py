"""A pod's phase and conditions, from the statuses of its containers."""

from __future__ import annotations

from dataclasses import dataclass, field

from kohort_local.client import Object
from kohort_local.node.clock import now

_REASONS = {
    "Initialized": "ContainersNotInitialized",
    "Ready": "ContainersNotReady",
    "ContainersReady": "ContainersNotReady",
}


def _ran(status: Object) -> bool:
    return "running" in status["state"] or "terminated" in (*status["state"], *status["lastState"])


def phase(policy: str, initialized: bool, containers: list[Object], *, deleted: bool) -> str:
    """The phase of a pod.

    Args:
        policy: Its restartPolicy.
        initialized: Whether its init containers are through.
        containers: The statuses of its other containers.
        deleted: Whether it is being deleted, so that nothing starts again.
    """
    if not initialized:
        return "Failed" if deleted else "Pending"
    ends = [status["state"].get("terminated") for status in containers]
    if all(ends):
        codes = [int(end["exitCode"]) for end in ends if end]
        if deleted or policy == "Never" or (policy == "OnFailure" and not any(codes)):
            return "Failed" if any(codes) else "Succeeded"
    return "Running" if any(map(_ran, containers)) else "Pending"


@dataclass
class Conditions:
    """A pod's conditions; remembers since when each is as it is."""

    _since: dict[str, tuple[str, str]] = field(default_factory=dict)

    def told(self, held: dict[str, bool]) -> list[Object]:
        """The conditions to tell: whether each type holds; no reason is a null, to remove one."""
        conditions = []
        for name, holds in held.items():
            value = "True" if holds else "False"
            if self._since.get(name, ("", ""))[0] != value:
                self._since[name] = (value, now())
            conditions.append(
                {
                    "type": name,
                    "status": value,
                    "lastTransitionTime": self._since[name][1],
                    "reason": None if holds else _REASONS.get(name),
                    "message": None,
                }
            )
        return conditions


def held(pod: Object, now_phase: str, initialized: bool, ready: bool) -> dict[str, bool]:
    """Which conditions hold for a pod whose containers are all `ready` or not."""
    active = now_phase == "Running"
    told = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates", [])]
    open_gates = all(told.get(gate) == "True" for gate in gates)
    return {
        "PodReadyToStartContainers": True,
        "Initialized": initialized,
        "Ready": active and ready and open_gates,
        "ContainersReady": active and ready,
        "PodScheduled": True,
    }


def differs(pod: Object, conditions: list[Object]) -> bool:
    """Whether the API tells other conditions of a pod than its node does."""
    told = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
    return any(told.get(c["type"]) != c["status"] for c in conditions)
