"""Rollouts through a Gateway API implementation that is not ours: Contour, which drives an Envoy.

``python -m tests.bench.contour --contour PROGRAM [--rollouts 10] [--by-host]``, where PROGRAM is
built from the Go module github.com/projectcontour/contour (docs/gateway-api.md says how). Clients of
two cohorts send requests all the while; each answer tells by its factor which revision gave it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from kohort.act import permissions
from kohort.kube import from_kubeconfig
from kohort_local.cluster import Cluster
from kohort_local.gateway_api import GATEWAY_API
from kohort_local.kubectl import Kubectl
from tests.bench.contour_process import running
from tests.component.operator_parts import free_port, install, make_model, operator

CRD = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"
NAME, CLIENTS, PERIOD = "burger", 20, 0.05
STEPS = [{"weight": 20, "hold": "2s"}, {"weight": 60, "hold": "2s"}]
HOST = "burger.example.com"
PATIENCE = 90.0
# Contour's Envoy listens this far above the port of a Gateway's listener.
PORT_OFFSET = 8000
Json = dict[str, Any]


def manifests(port: int) -> list[Json]:
    """The class, and a Gateway with one listener."""
    api = "gateway.networking.k8s.io/v1"
    return [
        {
            "apiVersion": api,
            "kind": "GatewayClass",
            "metadata": {"name": "contour"},
            "spec": {"controllerName": "projectcontour.io/gateway-controller"},
        },
        {
            "apiVersion": api,
            "kind": "Gateway",
            "metadata": {"name": "public", "namespace": "default"},
            "spec": {
                "gatewayClassName": "contour",
                "listeners": [{"name": "http", "protocol": "HTTP", "port": port}],
            },
        },
    ]


def model(uri: str, hosts: list[str]) -> Json:
    """A model of two cohorts behind the Gateway."""
    gateway = {"parentRefs": [{"name": "public"}], "stepsByTime": True, "hostnames": hosts}
    staff = [{"headers": [{"name": "x-org", "values": ["acme", "other"]}]}]
    return {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": NAME, "namespace": "default"},
        "spec": {
            "model": {"uri": uri},
            "replicas": 2,
            "keepWarm": "0s",
            "route": {"type": "GatewayAPI", "gatewayAPI": gateway},
            "cohorts": [
                {"name": "staff", "match": staff, "steps": STEPS},
                {"name": "everyone", "after": ["staff"], "steps": STEPS},
            ],
        },
    }


class Clients:
    """What each cohort's clients were answered, by factor, in the present weight of things."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self.answers: Counter[tuple[str, str]] = Counter()

    async def run(self, cohort: str, headers: dict[str, str]) -> None:
        """One client, until cancelled."""
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
        while True:
            try:
                async with self._session.post(
                    self._url, json={"inputs": [tensor]}, headers=headers
                ) as answer:
                    told = await answer.text()
                    factor = f"{json.loads(told)['outputs'][0]['data'][0]:g}"
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
                factor = f"{told[:80]!r} {type(error).__name__}"
            self.answers[cohort, factor] += 1
            await asyncio.sleep(PERIOD)


async def until(what: str, look: Callable[[], bool]) -> None:
    """Waits in a thread, so that clients go on."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while not await asyncio.to_thread(look):
        if asyncio.get_running_loop().time() > end:
            raise SystemExit(f"never happened: {what}")
        await asyncio.sleep(0.1)


def prepare(cluster: Cluster, contour: Path, directory: Path, gateway: int) -> Path:
    """CRDs, the Gateway and the operator's permissions; returns its kubeconfig."""
    kubectl = Kubectl(cluster.kubeconfig)
    for path in (*GATEWAY_API.crds(print), *contour.parent.glob("*crds.yaml")):
        kubectl("apply", "--server-side", "-f", str(path))
    kubectl.apply(*manifests(gateway - PORT_OFFSET))
    return install(
        lambda *a, stdin=None: kubectl(*a, stdin=stdin),
        CRD,
        cluster.kubeconfig,
        directory / "operator.kubeconfig",
        permissions.GATEWAY_API_RULES,
    )


async def measure(
    cluster: Cluster,
    contour: Path,
    directory: Path,
    gateway: int,
    rollouts: int,
    by_host: bool,
) -> None:
    """Prints what clients were answered in each rollout."""
    kubectl = Kubectl(cluster.kubeconfig)
    uris = [make_model(directory / f"{n}.onnx", float(n)).as_uri() for n in range(1, rollouts + 2)]
    hosts = [HOST] if by_host else []
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        server = from_kubeconfig(cluster.kubeconfig)
        await stack.enter_async_context(running(server, contour, directory))
        clients = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        )
        prefix = "" if by_host else f"/default/{NAME}"
        url = f"http://127.0.0.1:{gateway}{prefix}/v2/models/{NAME}/infer"
        await rollout(kubectl, uris[0], hosts)
        seen, tasks = Clients(url, clients), []
        for number in range(CLIENTS):
            cohort, headers = [("staff", {"x-org": "acme"}), ("everyone", {})][number % 2]
            named = {"Host": HOST} if by_host else {}
            tasks.append(group.create_task(seen.run(cohort, {**headers, **named})))
        print("| rollout | cohort | answers of the old revision, of the new, lost |\n|---|---|---|")
        for number in range(1, rollouts + 1):
            seen.answers.clear()
            await rollout(kubectl, uris[number], hosts)
            row(number, seen.answers, f"{number}", f"{number + 1}")
        for task in tasks:
            task.cancel()


async def rollout(kubectl: Kubectl, uri: str, hosts: list[str]) -> None:
    """Applies a model and waits until it serves everybody."""
    kubectl.apply(model(uri, hosts))

    def arrived() -> bool:
        found = kubectl.get("mdep", NAME, "-n", "default")
        status = found.get("status", {})
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])
        )
        return ready and status["observedGeneration"] == found["metadata"]["generation"]

    await until(f"{uri} serves", arrived)


def row(number: int, answers: Counter[tuple[str, str]], old: str, new: str) -> None:
    """What both cohorts' clients were answered."""
    for cohort in ("staff", "everyone"):
        mine = {factor: n for (c, factor), n in answers.items() if c == cohort}
        lost = {factor: n for factor, n in mine.items() if factor not in (old, new)}
        print(
            f"| {number} | {cohort} | {mine.get(old, 0)}, {mine.get(new, 0)}, {lost or 0} |",
            flush=True,
        )


def main() -> None:
    """Runs on a control plane of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--contour", type=Path, required=True, help="the program, its CRDs beside it"
    )
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument("--by-host", action="store_true", help="call a host instead of a path")
    parser.add_argument("--logs", type=Path, help="keep the programs' logs in this folder")
    arguments = parser.parse_args()
    server = str(shutil.which("kohort-server", path=str(Path(sys.executable).parent)))
    images = {"kohort/server": {"entrypoint": [server]}}
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.logs or Path(temporary)
        with Cluster(Path(temporary) / "cluster", images=images) as cluster:
            gateway = free_port()
            account = prepare(cluster, arguments.contour, directory, gateway)
            with operator(account, "one", directory / "operator.log", ["--gateway-api"]):
                asyncio.run(
                    measure(
                        cluster,
                        arguments.contour,
                        directory,
                        gateway,
                        arguments.rollouts,
                        arguments.by_host,
                    )
                )


if __name__ == "__main__":
    main()
