"""``kubectl kohort plan`` counts the GPUs that are free, where a person may see nodes."""

from __future__ import annotations

from typing import Any

import pytest

from kohort.api.spec import GPU
from kohort.cli.room import pods_that_fit

L4 = "NVIDIA-L4"


def node(name: str, gpus: int, product: str = L4, **spec: Any) -> dict[str, Any]:
    labels = {"nvidia.com/gpu.product": product}
    allocatable = {"cpu": "8", "nvidia.com/gpu": str(gpus)}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": allocatable},
    }


def pod(gpus: int, on: str, phase: str = "Running", init: int = 0) -> dict[str, Any]:
    def container(count: int) -> dict[str, Any]:
        return {"resources": {"limits": {"nvidia.com/gpu": str(count)} if count else {}}}

    spec = {"nodeName": on, "containers": [container(gpus)], "initContainers": [container(init)]}
    return {"spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("nodes", "pods", "gpu", "fit"),
    [
        ([node("a", 4), node("b", 1)], [], GPU(), 5),
        ([node("a", 4), node("b", 1)], [pod(3, "a"), pod(1, "b")], GPU(), 1),
        ([node("a", 3), node("b", 1)], [], GPU(count=2), 1),  # a pod is on one node
        ([node("a", 4), node("b", 4, "NVIDIA-T4")], [], GPU(products=(L4,)), 4),
        ([node("a", 4, unschedulable=True)], [], GPU(), 0),
        ([node("a", 1)], [pod(1, "a", "Succeeded"), pod(0, "a", "Pending")], GPU(), 1),
        ([node("a", 4)], [pod(1, "a", init=3)], GPU(), 1),
        ([node("a", 1)], [pod(2, "a")], GPU(), 0),  # fewer than there were
        ([node("a", 4)], [], GPU(resource="nvidia.com/mig-1g.10gb"), 0),
        ([{"metadata": {"name": "new"}}], [{"spec": {}}], GPU(), 0),
    ],
)
def test_what_fits_is_what_nodes_can_allocate_less_what_pods_have(
    nodes: list[dict[str, Any]], pods: list[dict[str, Any]], gpu: GPU, fit: int
) -> None:
    assert pods_that_fit(nodes, pods, gpu) == fit
