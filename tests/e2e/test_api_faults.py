"""Rollouts while the API server is slow, broken or gone: clients go on, and decisions stay right."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kohort_local.cluster import Cluster
from kohort_local.install import Installation
from kohort_local.models import Digits
from tests.component.faulty_proxy import NONE, Faults, FaultyProxy
from tests.e2e.faulty_world import GONE, SHORT_WATCHES, THROTTLED, faulty_world
from tests.e2e.world import Model, in_thread, nobody_noticed

World = tuple[Cluster, Installation, FaultyProxy]

BROKEN = Faults(share=0.2, codes=(409, 500))
OUTAGE_SECONDS = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with faulty_world(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture
def faulty(
    request: pytest.FixtureRequest, world: World, trained: tuple[dict[str, Path], Digits]
) -> Iterator[Model]:
    """A model in that world; the proxy breaks nothing before and after the test."""
    _, installation, proxy = world
    name = "m" + "".join(c for c in request.node.name if c.isalnum()).lower()[-30:]
    proxy.answered.clear()
    yield Model(installation.kubectl, installation.gateway_url, name, *trained)
    proxy.faults = NONE
    installation.kubectl("delete", "mdep", name, "--ignore-not-found")


@pytest.mark.parametrize(
    ("faults", "seen"),
    [
        pytest.param(BROKEN, {("proxy", 409), ("proxy", 500)}, id="conflicts and errors"),
        pytest.param(THROTTLED, {("proxy", 429)}, id="throttled"),
        pytest.param(SHORT_WATCHES, {("server", 200)}, id="short watches"),
        pytest.param(GONE, {("server", 200)}, id="gone"),
    ],
)
async def test_rollouts_end_as_they_must_on_an_api_server_in_trouble(
    faulty: Model, world: World, faults: Faults, seen: set[tuple[str, int]]
) -> None:
    """v2 is promoted everywhere; v3 only where it does no harm."""
    proxy = world[2]
    async with faulty.served("v1") as traffic:
        proxy.faults = faults
        faulty.apply("v2")
        await in_thread("v2 serves both", partial(faulty.serves, singles="v2", batchers="v2"))
        assert faulty.decided() == {"batchers": ["Promoted"] * 2, "singles": ["Promoted"] * 2}
        faulty.apply("v3")
        await in_thread("v3 goes where it may", partial(faulty.serves, singles="v3", batchers="v2"))
    assert seen <= proxy.answered.keys()
    nobody_noticed(traffic.account)
    assert not traffic.account.refused("singles")
    assert faulty.decided() == {
        "batchers": ["RolledBack", "Promoted", "Promoted"],
        "singles": ["Promoted"] * 3,
    }
    assert faulty.records() == 3


@pytest.mark.parametrize("part", ["kube-apiserver", "etcd"])
async def test_clients_and_a_rollout_outlive_a_control_plane_that_stops(
    faulty: Model, world: World, part: str
) -> None:
    cluster = world[0]
    async with faulty.served("v1") as traffic:
        faulty.apply("v2")
        await in_thread("v2 has clients", lambda: faulty.cohort("singles").get("weight", 0) > 0)
        await asyncio.to_thread(cluster.stop, part)
        before = traffic.account.total
        await asyncio.sleep(OUTAGE_SECONDS)
        assert traffic.account.total > before
        await asyncio.to_thread(cluster.start, part)
        await in_thread("v2 serves both", partial(faulty.serves, singles="v2", batchers="v2"))
    nobody_noticed(traffic.account)
    assert faulty.decided() == {"batchers": ["Promoted"] * 2, "singles": ["Promoted"] * 2}
    assert faulty.records() == 2
