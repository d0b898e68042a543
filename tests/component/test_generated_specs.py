"""Ten thousand specs, whole and broken: what the API server takes, the operator can carry out, and lint
says the same without it."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import msgspec

from kohort.cli.documents import Document
from kohort.cli.lint import checked
from kohort.kube import ApiError, Kube, from_kubeconfig
from kohort.route.envoy.routes import route_configuration
from kohort.runtime.models import convert_model, parse_model
from kohort_local.cluster import Cluster as LocalCluster
from tests.component.generated_specs import spec
from tests.component.test_crd_rules import Kubectl, api
from tests.unit.plan_simulation import Cluster

__all__ = ["api"]

COUNT = 10_000
AT_ONCE = 16
MODELS = "/apis/kohort.dev/v1alpha1/namespaces/default/modeldeployments"
REFUSALS = (400, 422)


def carried_out(content: bytes) -> None:
    """The operator reads what the server stored, and goes some way with it."""
    model = parse_model(content)
    assert model.spec is not None, model.invalid
    world = Cluster(model.spec)
    for _ in range(6):
        world.tick()
        table = world.table()
        assert table is None or route_configuration(table).content
    assert world.status.conditions


def passes_lint(body: dict[str, Any]) -> bool:
    """Whether lint finds no error."""
    return checked(Document("model.yaml", body, {"": 1}, ()))[1] is not None


async def test_what_the_api_server_takes_the_operator_can_carry_out_and_nothing_stops_it(
    api: Kubectl, cluster: LocalCluster
) -> None:
    rng = Random(20261126)
    seen: Counter[str] = Counter()
    places = asyncio.Semaphore(AT_ONCE)

    async def offer(kube: Kube, number: int, made: dict[str, Any]) -> None:
        body = {
            "apiVersion": "kohort.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": f"m-{number}", "namespace": "default"},
            "spec": made,
        }
        params = {"dryRun": "All", "fieldValidation": "Strict"}
        async with places:
            try:
                stored = await kube.call("POST", MODELS, params=params, body=body)
            except ApiError as error:
                if error.status not in REFUSALS:
                    raise
                seen["refused"] += 1
                if passes_lint(body):
                    raise AssertionError(f"refused, but not by lint: {made}") from error
                # Rules may be looser in a CRD of another version: that must not stop the operator.
                read = convert_model({"metadata": {"name": "m"}, "spec": made})
                if read.spec is not None:
                    Cluster(read.spec).tick()
                return
        seen["taken"] += 1
        assert passes_lint(body), f"taken, but not by lint: {made}"
        try:
            carried_out(stored)
        except Exception as error:
            raise AssertionError(
                f"taken, and then: {error!r}: {msgspec.json.encode(made)!r}"
            ) from error

    server = from_kubeconfig(cluster.kubeconfig)
    async with Kube(server, lambda *_: None) as kube, asyncio.TaskGroup() as group:
        for number in range(COUNT):
            group.create_task(offer(kube, number, spec(rng)))
    assert seen["taken"] > COUNT // 10
    assert seen["refused"] > COUNT // 10
