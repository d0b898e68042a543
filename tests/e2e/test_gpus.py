"""Rollouts where GPUs are scarce, with the real scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from kohort_local.cluster import Cluster
from tests.e2e.test_people import carried_out
from tests.e2e.world import Model, in_thread, nobody_noticed, until


@pytest.fixture
def gpus(e2e_cluster: Cluster, installation: object) -> Iterator[Callable[[int], None]]:
    """Sets how many GPUs the node has; afterwards it has none."""
    yield e2e_cluster.set_gpus
    e2e_cluster.set_gpus(0)


def phases(model: Model) -> tuple[str, str]:
    status = model.status
    cohort = (status.get("cohorts") or [{}])[0]
    return status.get("phase", ""), cohort.get("phase", "")


def test_a_canary_without_a_gpu_says_so_stalls_and_leaves_stable_alone(
    model: Model, gpus: Callable[[int], None]
) -> None:
    gpus(2)
    spec: dict[str, Any] = {"gpu": {"products": ["NVIDIA-L4"]}, "progressDeadline": "5s"}
    model.apply("v1", **spec)
    until("v1 serves", partial(model.serves, singles="v1", batchers="v1"))
    before = model.pods()
    model.apply("v2", **spec)
    until("it waits for a GPU", lambda: phases(model) == ("WaitingForGPU", "WaitingForGPU"))
    message = model.cohort("batchers")["message"]
    assert "no node has 1 nvidia.com/gpu free of product NVIDIA-L4: 0/1 nodes" in message
    assert "1 Insufficient nvidia.com/gpu" in message
    assert model.condition("Ready")["reason"] == "WaitingForGPU"
    until("it is stalled", lambda: model.condition("Stalled"))
    assert model.condition("Stalled")["reason"] == "ProgressDeadlineExceeded"
    assert "no node has 1 nvidia.com/gpu free" in model.condition("Stalled")["message"]
    assert before.items() <= model.pods().items()
    assert model.condition("Available")["status"] == "True"
    gpus(4)
    until("it has got them", lambda: phases(model)[0] == "Analyzing")
    assert not model.condition("Stalled")


@pytest.mark.parametrize(
    ("gpu", "told"),
    [
        ({"products": ["NVIDIA-H100"]}, "no node has a GPU of product NVIDIA-H100: 0/1 nodes"),
        ({"resource": "nvidia.com/mig-1g.10gb"}, "no node has 1 nvidia.com/mig-1g.10gb free"),
        ({"claimTemplate": "half"}, "no node has the devices of claim template half"),
    ],
    ids=["product", "mig", "claim"],
)
def test_what_no_node_has_is_told_by_its_name(
    model: Model, gpus: Callable[[int], None], gpu: dict[str, Any], told: str
) -> None:
    gpus(1)
    model.kubectl.apply(*claims())
    model.apply("v1", gpu=gpu)
    until("it waits", lambda: phases(model) == ("WaitingForGPU", "WaitingForGPU"))
    assert told in model.status["message"]


def test_a_claim_template_gives_each_pod_a_device_of_its_own(
    model: Model, gpus: Callable[[int], None]
) -> None:
    model.kubectl.apply(*claims(), devices("gpu-0", "gpu-1"))
    try:
        model.apply("v1", gpu={"claimTemplate": "half"})
        until("it serves", partial(model.serves, singles="v1", batchers="v1"))
        found = model.kubectl.get("resourceclaims")["items"]
        given = [
            result["device"]
            for claim in found
            for result in claim["status"]["allocation"]["devices"]["results"]
        ]
        assert sorted(given) == ["gpu-0", "gpu-1"]
    finally:
        model.kubectl("delete", "resourceslice", "devices")


def claims() -> list[dict[str, Any]]:
    """A kind of device, and a template of claims on one of it."""
    expression = 'device.driver == "gpu.example.com"'
    request = {"name": "gpu", "exactly": {"deviceClassName": "half-gpu"}}
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": "half-gpu"},
            "spec": {"selectors": [{"cel": {"expression": expression}}]},
        },
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaimTemplate",
            "metadata": {"name": "half", "namespace": "default"},
            "spec": {"spec": {"devices": {"requests": [request]}}},
        },
    ]


def devices(*names: str) -> dict[str, Any]:
    """The devices of the node, as a driver would publish them."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": "devices"},
        "spec": {
            "driver": "gpu.example.com",
            "nodeName": "local-0",
            "pool": {"name": "local-0", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": name} for name in names],
        },
    }


async def test_a_swap_rolls_out_without_a_spare_gpu_and_no_client_notices(
    model: Model, gpus: Callable[[int], None]
) -> None:
    gpus(3)
    steps = [{"weight": 50, "hold": "2s"}]
    cohorts = [{**c, "steps": steps} for c in model.manifest("v1")["spec"]["cohorts"]]
    spec: dict[str, Any] = {"gpu": {"capacity": "Swap"}, "replicas": 3, "cohorts": cohorts}
    async with model.served("v1", **spec) as traffic:
        model.apply("v2", **spec)
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"), 180)
        await in_thread("all 3 pods are v2's", lambda: model.condition("Ready")["status"] == "True")
        await in_thread("v1's have gone", lambda: len(model.pods()) == 3)
        before = set(model.pods())
        await carried_out(model, "restart")
        await in_thread("all pods are new", lambda: not before & set(model.pods()))
        await in_thread("all are ready", lambda: ready_of(model, "v2") == 3)
    nobody_noticed(traffic.account)


def ready_of(model: Model, version: str) -> int:
    """How many pods of a version are ready."""
    ready = {r["uri"]: int(r.get("readyReplicas", 0)) for r in model.status["revisions"]}
    return ready.get(f"file://{model.versions[version]}", 0)
