"""What clients and rollouts meet when parts die in the middle."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from functools import partial
from typing import Any

from kohort_local.cluster import Cluster
from kohort_local.install import NAMESPACE, Installation
from kohort_local.traffic import Traffic
from tests.e2e.world import (
    Model,
    in_thread,
    kill,
    kill_processes,
    nobody_noticed,
    pids_of_pod,
    pod_names,
    processes_of,
    until,
)

KILLS = 20


async def test_a_rollout_ends_the_same_however_often_the_operator_is_killed(
    model: Model, installation: Installation
) -> None:
    """Every operator process is killed at once, at random moments of rollouts to and fro."""
    chance = random.Random(20)
    model.apply("v1")
    until("v1 serves both", partial(model.serves, singles="v1", batchers="v1"))
    killed = 0
    ends = [
        ("v2", {"singles": "v2", "batchers": "v2"}),
        ("v3", {"singles": "v3", "batchers": "v2"}),
    ]
    rollout = 0
    async with model.traffic() as traffic:
        await in_thread("clients are served", lambda: traffic.account.total > 50)
        while killed < KILLS:
            version, end = ends[rollout % 2]
            model.apply(version)
            while not await asyncio.to_thread(partial(model.serves, **end)):
                await asyncio.sleep(chance.uniform(0.2, 4))
                killed += bool(
                    await asyncio.to_thread(kill_processes, installation.kubectl, "operator")
                )
                if killed >= KILLS:
                    break
            await in_thread(f"{version} ends as it must", partial(model.serves, **end), 120)
            rollout += 1
    assert killed >= KILLS
    nobody_noticed(traffic.account)
    assert not traffic.account.refused("singles")
    revisions = installation.kubectl.get(
        "controllerrevisions", "-l", f"kohort.dev/model={model.name}"
    )
    applied = 1 + min(
        rollout, len(ends)
    )  # v1, and as many of the others as the kills left time for
    assert len(revisions["items"]) == applied, "a restart made a revision of its own"


async def test_a_gateway_that_is_deleted_loses_no_request(
    model: Model, installation: Installation
) -> None:
    async with model.served("v1") as traffic:
        first = pod_names(installation.kubectl, "gateway")[0]
        await asyncio.to_thread(installation.kubectl, "delete", "pod", first, "-n", NAMESPACE)
        before = traffic.account.total
        await in_thread("clients go on", lambda: traffic.account.total > before + 200)
    nobody_noticed(traffic.account)


async def test_a_rollout_goes_on_after_a_gateway_was_killed(
    model: Model, installation: Installation
) -> None:
    async with model.served("v1") as traffic:
        model.apply("v2")
        await in_thread("v2 has clients", lambda: model.cohort("singles").get("weight", 0) > 0)
        victim = pod_names(installation.kubectl, "gateway")[0]
        killed = [kill(pid) for pid in pids_of_pod("gateway", victim)]
        assert killed == [True, True, True], "Envoy, what compares answers, and what starts both"
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    account = traffic.account
    # What was on the wire of the killed process has no answer; nothing else may be missing.
    assert len(account.lost) <= 80, account.lost[:3]
    assert not account.misrouted
    assert all(len(path) <= 2 for path in account.paths.values()), "a client went back"


async def test_a_model_pod_that_is_killed_costs_no_request(
    model: Model, installation: Installation
) -> None:
    model.apply("v1")
    until("v1 serves both", partial(model.serves, singles="v1", batchers="v1"))
    until("two pods", lambda: model.status.get("readyReplicas") == 2)
    async with model.traffic() as traffic:
        await in_thread("clients are served", lambda: traffic.account.total > 50)
        revision = model.cohort("singles")["stable"]
        pids = processes_of("kohort-server", revision)
        assert kill(pids[0])
        before = traffic.account.total
        await in_thread("clients go on", lambda: traffic.account.total > before + 200)
        await in_thread("two pods again", lambda: model.status.get("readyReplicas") == 2)
    nobody_noticed(traffic.account)


async def test_pods_that_are_all_too_slow_to_say_that_they_are_ready_lose_no_request(
    model: Model,
) -> None:
    async with model.served("v1") as traffic:
        pids = processes_of("kohort-server", model.cohort("singles")["stable"])
        tell(pids, signal.SIGSTOP)
        try:
            await in_thread("no pod is ready", lambda: not model.status.get("readyReplicas"))
            async with model.traffic() as late:
                await asyncio.sleep(
                    1
                )  # for requests to come: nobody can tell of one, none is answered
                tell(pids, signal.SIGCONT)
                await in_thread("two pods", lambda: model.status.get("readyReplicas") == 2)
        finally:
            tell(pids, signal.SIGCONT)
    nobody_noticed(traffic.account)
    nobody_noticed(late.account)


def tell(pids: list[int], number: signal.Signals) -> None:
    """Send processes a signal."""
    for pid in pids:
        os.kill(pid, number)


async def test_a_model_pod_that_is_deleted_costs_no_request(
    model: Model, installation: Installation
) -> None:
    async with model.served("v1") as traffic:
        for name in sorted(model.pods().values()):
            await asyncio.to_thread(installation.kubectl, "delete", "pod", name)
            await in_thread("two pods again", lambda: model.status.get("readyReplicas") == 2)
    nobody_noticed(traffic.account)


async def test_clients_of_a_canary_that_has_lost_all_pods_are_served_by_stable(
    model: Model,
) -> None:
    steps = [{"weight": 50, "hold": "1h"}]
    async with model.served("v1", cohorts=cohorts_with(model, steps)) as traffic:
        model.apply("v2", cohorts=cohorts_with(model, steps))
        await in_thread("v2 has clients", lambda: model.cohort("singles").get("weight") == 50)
        canary = model.cohort("singles")["canary"]
        for _ in range(3):
            names = [name for name in model.pods().values() if name.startswith(canary)]
            await asyncio.to_thread(model.kubectl, "delete", "pod", *names)
            enough = traffic.account.total + 300
            await in_thread("clients go on", partial(has_answered, traffic, enough))
    nobody_noticed(traffic.account)
    assert model.cohort("singles")["weight"] == 50
    assert any(len(path) > 2 for path in traffic.account.paths.values()), "nobody fell back"


def has_answered(traffic: Traffic, requests: int) -> bool:
    """Whether clients have had more answers than that."""
    return traffic.account.total > requests


def cohorts_with(model: Model, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The two cohorts with other steps."""
    listed: list[dict[str, Any]] = model.manifest("v1")["spec"]["cohorts"]
    return [{**cohort, "steps": steps} for cohort in listed]


async def test_a_restart_of_the_api_server_stops_no_request_and_no_rollout(
    model: Model, e2e_cluster: Cluster
) -> None:
    async with model.served("v1") as traffic:
        model.apply("v2")
        await in_thread("v2 has clients", lambda: model.cohort("singles").get("weight", 0) > 0)
        await asyncio.to_thread(e2e_cluster.restart, "kube-apiserver")
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"), 180)
    nobody_noticed(traffic.account)


async def test_of_two_operators_one_leads_and_either_can_serve_routes(
    model: Model, installation: Installation
) -> None:
    """The leader's death in the middle of a rollout is followed by the other's lead."""
    kubectl = installation.kubectl

    def leader() -> str:
        lease = kubectl.get("lease", "kohort-operator", "-n", NAMESPACE)
        return str(lease["spec"].get("holderIdentity") or "")

    model.apply("v1")
    until("v1 serves both", partial(model.serves, singles="v1", batchers="v1"))
    names = pod_names(kubectl, "operator")
    assert len(names) == 2
    first = until("one leads", leader)
    assert first in names
    async with model.traffic() as traffic:
        await in_thread("clients are served", lambda: traffic.account.total > 50)
        model.apply("v2")
        await in_thread("v2 has clients", lambda: model.cohort("singles").get("weight", 0) > 0)
        await asyncio.to_thread(kubectl, "delete", "pod", first, "-n", NAMESPACE)
        await in_thread("the other leads", lambda: leader() not in ("", first))
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    nobody_noticed(traffic.account)
