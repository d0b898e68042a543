"""A real API server, with the official CRDs and their rules, takes every route that Kohort renders."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings

from kohort.act.addresses import name_service, revision_service, route
from kohort.act.children import ROUTES, SERVICES, Children, Kind, Known, Obstacle, covers
from kohort.act.manifests import Owner
from kohort.kube import ApiError, Kube, from_kubeconfig
from kohort.route.gateway_api.matches import NotExpressible
from kohort.route.gateway_api.routes import render
from kohort_local.cluster import Cluster
from tests.component.other_crds import install_crds
from tests.conftest import Kubectl
from tests.gateway_api_tables import gateways, tables

OWNER = Owner("default", "burger", "00000000-0000-0000-0000-000000000000")
TABLES = 250


@pytest_asyncio.fixture(scope="module")
async def kube(cluster: Cluster, kubectl: Kubectl) -> AsyncIterator[Kube]:
    install_crds(kubectl)
    async with Kube(from_kubeconfig(cluster.kubeconfig)) as kube:
        yield kube


async def stored(kube: Kube, kind: Kind, manifest: dict[str, Any]) -> Any:
    """The spec as the API server would keep it, with unknown fields refused."""
    params = {"dryRun": "All", "fieldValidation": "Strict"}
    answer = await kube.call("POST", kind.path("default"), params=params, body=manifest)
    return msgspec.json.decode(answer)["spec"]


async def test_every_route_that_is_rendered_is_admitted_and_kept_as_it_is(kube: Kube) -> None:
    admitted = 0
    waiting: list[Any] = []

    @settings(max_examples=4 * TABLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tables(most=4), gateways())
    def generate(table: Any, gateway: Any) -> None:
        with contextlib.suppress(NotExpressible):
            waiting.append(render(table, gateway))

    await asyncio.to_thread(generate)
    for routes in waiting:
        for rendered in routes:
            manifest = route(OWNER, rendered)
            assert covers(await stored(kube, ROUTES[rendered.kind], manifest), rendered.spec)
        admitted += 1
    assert admitted >= TABLES


async def test_a_kind_that_the_cluster_does_not_know_is_told(kube: Kube) -> None:
    manifest = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}}
    with pytest.raises(Obstacle, match="there can be no things"):
        await Children(kube).ensure(OWNER, Kind("/apis/example.com/v1", "things"), manifest, None)


async def test_what_is_gone_before_it_is_changed_is_no_obstacle_and_tried_again(
    kube: Kube,
) -> None:
    manifest = name_service(OWNER, "gateway.example")
    known = Known("11111111-1111-1111-1111-111111111111", OWNER.uid, b"{}")
    with pytest.raises(ApiError) as refused:
        await Children(kube).ensure(OWNER, SERVICES, manifest, known)
    assert refused.value.status == 404


async def test_services_are_admitted_and_kept_as_they_are(kube: Kube) -> None:
    for manifest in (
        revision_service(OWNER, "burger-11111111"),
        name_service(OWNER, "kohort-gateway.kohort-system.svc.cluster.local"),
    ):
        assert covers(await stored(kube, SERVICES, manifest), manifest["spec"])
