"""The real HorizontalPodAutoscaler controller on a model with several revisions at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from kohort_local.cluster import Cluster
from kohort_local.install import Installation
from tests.e2e.metrics_api import Load, metrics_api
from tests.e2e.world import Model, in_thread, nobody_noticed

PATIENCE = 150.0  # the controller looks for new kinds of objects every 30 s


@pytest.fixture(scope="module")
def load(e2e_cluster: Cluster, installation: Installation) -> Iterator[Load]:
    with metrics_api(e2e_cluster, installation.kubectl) as told:
        yield told


QUEUE = {
    "type": "External",
    "external": {
        "metric": {"name": "queue"},
        "target": {"type": "AverageValue", "averageValue": "100"},
    },
}
CPU = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "100m"}},
}


def autoscaler(model: Model, metric: dict[str, Any]) -> dict[str, Any]:
    at_once = {"stabilizationWindowSeconds": 0}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": model.name, "namespace": model.namespace},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "kohort.dev/v1alpha1",
                "kind": "ModelDeployment",
                "name": model.name,
            },
            "minReplicas": 1,
            "maxReplicas": 6,
            "metrics": [metric],
            "behavior": {"scaleUp": at_once, "scaleDown": at_once},
        },
    }


@pytest.mark.parametrize(("kind", "metric"), [("queue", QUEUE), ("cpu", CPU)])
async def test_an_autoscaler_scales_every_arm_and_takes_no_canary_for_a_need(
    model: Model, load: Load, kind: str, metric: dict[str, Any]
) -> None:
    """What 4 pods do at their target is no less when 6 do it, and it must not scale for that: 425 of
    100 each are within its tolerance of 4, and would be 5 for 6 pods."""
    setattr(load, kind, {"queue": 425, "cpu": 390}[kind])

    def cohorts(hold: str) -> list[dict[str, Any]]:
        half = [{"weight": 50, "hold": hold}]
        return [{**c, "steps": half} for c in model.manifest("v1")["spec"]["cohorts"]]

    def edit(**spec: Any) -> None:
        patch = json.dumps({"spec": spec})
        model.kubectl("patch", "mdep", model.name, "--type=merge", f"--patch={patch}")

    def pods() -> dict[str, int]:
        listed = model.kubectl.get("deployments", "-l", f"kohort.dev/model={model.name}")
        return {d["metadata"]["name"]: d["status"].get("readyReplicas", 0) for d in listed["items"]}

    def hpa() -> dict[str, Any]:
        found: dict[str, Any] = model.kubectl.get("hpa", model.name)
        return dict(found["status"])

    def settled(replicas: int) -> bool:
        status = hpa()
        return status.get("currentReplicas") == status.get("desiredReplicas") == replicas

    def canary_has(pods_ready: int) -> bool:
        cohort = model.cohort("singles")
        return cohort.get("weight") == 50 and pods().get(cohort["canary"]) == pods_ready

    async with model.served("v1", replicas=4, cohorts=cohorts(hold="1h"), keepWarm="0s") as traffic:
        model.kubectl.apply(autoscaler(model, metric))
        try:
            await in_thread("it is content", partial(settled, 4), PATIENCE)
            edit(model={"uri": f"file://{model.versions['v2']}"})
            await in_thread("a canary with half of the clients", partial(canary_has, 2))
            # While one of them is not ready yet the controller takes it for a busy one, and may add a pod.
            await in_thread("it is content with them", partial(settled, 4), PATIENCE)
            await in_thread("a canary with half of the clients", partial(canary_has, 2))
            before, seen = hpa().get("lastScaleTime"), load.asked
            await in_thread("it has looked at 6 pods, twice", lambda: load.asked >= seen + 3)
            assert hpa().get("lastScaleTime") == before
            assert sum(pods().values()) == 6

            # A mean over all pods is kept down by the canary's extra ones.
            setattr(load, kind, {"queue": 590, "cpu": 790}[kind])
            stable = model.cohort("singles")["stable"]
            await in_thread("stable has 6 pods", lambda: pods().get(stable) == 6)
            await in_thread("the canary has 3", partial(canary_has, 3))
            edit(cohorts=cohorts(hold="1s"))
            await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
            setattr(load, kind, 190)
            await in_thread("2 pods are left", lambda: list(pods().values()) == [2])
            await in_thread("it is content again", partial(settled, 2))
        finally:
            model.kubectl("delete", "hpa", model.name)
    nobody_noticed(traffic.account)
