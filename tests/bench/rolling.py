"""Many rollouts at once, each with a decision every few seconds: how long do models wait for a pass?

``python -m tests.bench.rolling [--models 200] [--decision 10] [--seconds 120]`` starts a cluster of its
own. Real: the control plane, the operator as a pod, a gateway with its counters, clients that call each
model once a second through it. Pretended: the node of the models' pods, and the one server that answers
for all of them, because hundreds of model servers would be what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from kohort.contract import PORT_OPERATOR_STATUS, PORT_SERVER
from kohort.kube import Kube, from_kubeconfig
from kohort_local.client import Client
from kohort_local.cluster import Cluster
from kohort_local.install import NAMESPACE as INSTALLED
from kohort_local.install import images, install
from tests.bench.figures import Page, cpu_seconds, quantile, read
from tests.bench.pretended import PLACEMENT, PretendedNode
from tests.bench.scale import apply

NAMESPACE = "default"
MODELS = f"/apis/kohort.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"
CLIENTS = 20  # keys of each model
# As many steps as there may be; both arms have clients among so few from the first one on.
WEIGHTS = range(30, 78, 3)
SCRAPE = 5.0  # seconds
LOOK_SECONDS = 0.25
WARM_SECONDS = 20.0
PATIENCE = 600.0
CALLERS = 32
WAITS, PASSES = "kohort_operator_queue_wait_seconds", "kohort_operator_reconcile_seconds"
AGE = "kohort_operator_queue_age_seconds"


@dataclass
class Calls:
    """What clients were answered."""

    answers: Counter[int] = field(default_factory=Counter)

    async def run(self, url: str, count: int) -> None:
        """Calls one model after the other, each once a second, until cancelled."""
        numbers: asyncio.Queue[int] = asyncio.Queue(2 * CALLERS)
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            for _ in range(CALLERS):
                tasks.create_task(self._caller(session, url, numbers))
            at = time.monotonic()
            while True:
                for number in range(count):
                    await numbers.put(number)
                    at += 1 / count
                    await asyncio.sleep(max(0.0, at - time.monotonic()))

    async def _caller(
        self, session: aiohttp.ClientSession, url: str, numbers: asyncio.Queue[int]
    ) -> None:
        while True:
            name = f"model-{await numbers.get()}"
            client = {"x-client-id": f"client-{random.randrange(CLIENTS)}"}
            path = f"{url}/{NAMESPACE}/{name}/v2/models/{name}/infer"
            try:
                async with session.post(path, data=b"{}", headers=client) as answer:
                    await answer.read()
                    self.answers[answer.status] += 1
            except aiohttp.ClientError:
                self.answers[0] += 1


@contextlib.asynccontextmanager
async def model_server(address: str) -> AsyncIterator[None]:
    """The server that answers for all pods."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"{}", content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, PORT_SERVER).start()
    try:
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def beside(work: Any) -> AsyncIterator[None]:
    """Runs ``work`` meanwhile."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Operator:
    """The operator's pod, by its metrics page."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._url = f"http://{address}:{PORT_OPERATOR_STATUS}/metrics"

    async def page(self) -> Page:
        """What it says now."""
        return await read(self._session, self._url)

    async def until(self, what: str, count: int, name: str, **labels: str) -> None:
        """Waits until a metric is ``count``.

        Raises:
            SystemExit: it does not become so.
        """
        end = time.monotonic() + PATIENCE
        while (seen := (await self.page()).total(name, **labels)) != count:
            if time.monotonic() > end:
                raise SystemExit(f"{what}: {seen:.0f} of {count}")
            await asyncio.sleep(1)


def model(number: int, version: int, seconds: float) -> dict[str, Any]:
    """A ModelDeployment whose rollout takes a decision every so many seconds.

    A step ends with the first look at the counters after its hold.
    """
    hold = f"{max(1.0, seconds - SCRAPE):g}s"
    steps = [{"weight": weight, "hold": hold} for weight in WEIGHTS]
    return {
        "apiVersion": "kohort.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": f"model-{number}"},
        "spec": {
            "model": {"uri": f"file:///models/{version}.onnx"},
            "replicas": 2,
            "cohorts": [{"name": "everyone", "steps": steps}],
            "template": {"spec": PLACEMENT},
        },
    }


async def ask_for(kube: Kube, version: int, count: int, decision: float, within: float) -> None:
    """Applies a version of all models, evenly in a time if the API server can."""

    async def ask(number: int) -> None:
        await asyncio.sleep(within * number / count)
        async with places:
            await apply(kube, f"{MODELS}/model-{number}", model(number, version, decision))

    places = asyncio.Semaphore(16)
    await asyncio.gather(*map(ask, range(count)))


async def watch(operator: Operator, seconds: float) -> list[float]:
    """The age of the oldest wait at each look, in seconds."""
    ages, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        ages.append((await operator.page()).total(AGE))
        await asyncio.sleep(LOOK_SECONDS)
    return sorted(ages)


def report(
    before: Page, after: Page, ages: list[float], seconds: float, others: Counter[str]
) -> None:
    """Prints what happened between two pages."""
    rolling = (page.total("kohort_operator_models", phase="Analyzing") for page in (before, after))
    print("{:.0f} models are in a rollout at the beginning, {:.0f} at the end".format(*rolling))
    print("\n| | p50, ms | p99, ms | max, ms |\n|---|---|---|---|")
    for title, name in (("a model waits for a pass", WAITS), ("a pass takes", PASSES)):
        shown = " | ".join(f"{1000 * quantile(before, after, name, q):.1f}" for q in (0.5, 0.99))
        print(f"| {title} | {shown} | |")
    shown = " | ".join(f"{1000 * ages[int(q * (len(ages) - 1))]:.1f}" for q in (0.5, 0.99, 1.0))
    print(f"| age of the oldest wait, looked at {len(ages)} times | {shown} |")

    def grown(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    changes = grown("kohort_operator_events_total", reason="WeightChanged")
    calls = after.calls - before.calls
    print(
        f"\n{changes:.0f} changes of weights in {seconds:.0f} s: {changes / seconds:.1f} a second"
    )
    print(f"{grown(PASSES + '_count') / seconds:.0f} passes a second, by outcome:")
    for outcome in ("ok", "conflict", "error", "defect"):
        print(f"  {outcome} {grown(PASSES + '_count', outcome=outcome):.0f}")
    each = ", ".join(f"{n / changes:.2f} {what}" for what, n in calls.most_common())
    print(f"calls per change: {calls.total() / changes:.2f} ({each})")
    print(f"CPU of the operator: {(after.cpu - before.cpu) / seconds:.2f} cores", end="; others: ")
    print(", ".join(f"{name} {n / seconds:.2f}" for name, n in others.most_common() if n >= 0.1))
    print(f"operator: {after.resident / 2**20:.0f} MB; metrics page: {after.size / 1000:.0f} KB")
    for action in ("Promoted", "RolledBack"):
        print(f"{action}: {grown('kohort_operator_decisions_total', action=action):.0f}")


async def measure(cluster: Cluster, count: int, decision: float, seconds: float) -> None:
    """Brings all models into a rollout, and looks at the operator while they are."""
    address = f"{cluster.network.pod_prefix(1)}.1"
    installation = install(
        cluster.kubeconfig,
        cluster.node_port_range,
        operators=1,
        gateways=1,
        scrape_interval=f"{SCRAPE:g}s",
    )
    found = installation.kubectl.get(
        "pods", "-n", INSTALLED, "-l", "app.kubernetes.io/component=operator"
    )
    server = f"https://127.0.0.1:{cluster.network.api_server}"
    client, calls = Client(server, cluster.state_dir / "pki", "admin"), Calls()
    async with (
        Kube(from_kubeconfig(cluster.kubeconfig)) as kube,
        aiohttp.ClientSession() as session,
        model_server(address),
        beside(PretendedNode(client, address).run()),
    ):
        operator = Operator(session, found["items"][0]["status"]["podIP"])
        await ask_for(kube, 1, count, decision, 0.0)
        await operator.until("models serve", count, "kohort_operator_models", phase="Healthy")
        async with beside(calls.run(installation.gateway_url, count)):
            await ask_for(kube, 2, count, decision, decision)
            await asyncio.sleep(WARM_SECONDS)
            parts = {p.name: p.process.pid for p in cluster.status() if p.process}
            used = {name: -cpu_seconds(pid) for name, pid in parts.items()}
            calls.answers.clear()
            before, began = await operator.page(), time.monotonic()
            ages = await watch(operator, seconds)
            after, lasted = await operator.page(), time.monotonic() - began
            others = Counter({name: used[name] + cpu_seconds(pid) for name, pid in parts.items()})
        report(before, after, ages, lasted, others)
        print(f"requests by status: {dict(calls.answers)}")
    await client.close()


def main() -> None:
    """Measures on a cluster of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument(
        "--decision", type=float, default=10.0, help="seconds between two of a model"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="how long to look")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        Cluster(Path(directory), images=images()) as cluster,
    ):
        asyncio.run(measure(cluster, arguments.models, arguments.decision, arguments.seconds))


if __name__ == "__main__":
    main()
