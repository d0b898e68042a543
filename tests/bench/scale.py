"""What many idle ModelDeployments cost the operator: seconds, memory, API calls, CPU.

``python -m tests.bench.scale [--count 1000] [--no-pods] [--idle 60] [--names]`` starts a control plane of its
own. There is no node: pods stay pending, which is the worst of quiet states. With ``--no-pods`` there
is no controller manager either, so that Deployments stay what the operator has made. With ``--names``
each model also has a name in the cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp

from kohort.api.crd import definition
from kohort.kube import APPLY, ApiError, Kube, from_kubeconfig
from kohort_local.cluster import Cluster
from tests.bench.figures import NO_PAGE, Page, cpu_seconds, read
from tests.component.operator_parts import free_port

NAMESPACE = "scale"
OPERATOR_NAMESPACE = "kohort-system"
STATUS_PORT, ROUTES_PORT = free_port(), free_port()
METRICS = f"http://127.0.0.1:{STATUS_PORT}/metrics"
MODELS = f"/apis/kohort.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"
# Longer than a status lags when nothing new comes.
QUIET_SECONDS = 12.0
QUIET_SECONDS_OF_A_START = 8.0
PATIENCE_SECONDS = 1800.0
TICK_SECONDS = 10.0


async def apply(kube: Kube, path: str, manifest: object) -> None:
    """Server-side apply under a name of our own."""
    params = {"fieldManager": "bench", "force": "true"}
    await kube.call("PATCH", path, params=params, body=manifest, content_type=APPLY)


async def prepare(kube: Kube) -> None:
    """The CRD and the namespaces."""
    crd = definition()
    await apply(
        kube,
        f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}",
        crd,
    )
    for name in (NAMESPACE, OPERATOR_NAMESPACE):
        await apply(
            kube,
            f"/api/v1/namespaces/{name}",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        )
    while True:
        with contextlib.suppress(ApiError):
            await kube.call("GET", MODELS)
            return
        await asyncio.sleep(0.2)


async def create_models(kube: Kube, count: int) -> None:
    """Minimal models."""
    places = asyncio.Semaphore(16)

    async def create(number: int) -> None:
        name = f"model-{number}"
        body = {
            "apiVersion": "kohort.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name},
            "spec": {"model": {"uri": f"file:///models/{number}.onnx"}},
        }
        async with places:
            await apply(kube, f"{MODELS}/{name}", body)

    await asyncio.gather(*(create(number) for number in range(count)))


@contextlib.asynccontextmanager
async def operator(
    kubeconfig: Path, flags: Sequence[str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """An operator as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("kohort-operator")),
        "run",
        f"--namespace={OPERATOR_NAMESPACE}",
        f"--kubeconfig={kubeconfig}",
        "--identity=bench",
        "--server-image=kohort/server",
        "--listen-address=127.0.0.1",
        f"--routes-port={ROUTES_PORT}",
        f"--status-port={STATUS_PORT}",
        *flags,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def settle(
    session: aiohttp.ClientSession, models: int, quiet: float = QUIET_SECONDS_OF_A_START
) -> tuple[Page, float]:
    """Figures and the time of the last pass, once nothing has happened for ``quiet`` seconds."""
    passes, since, last = -1.0, time.monotonic(), NO_PAGE
    limit = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < limit:
        with contextlib.suppress(aiohttp.ClientError):
            now = await read(session, METRICS)
            if now.passes != passes or now.total("kohort_operator_models") != models:
                passes, since, last = now.passes, time.monotonic(), now
            elif time.monotonic() - since > quiet:
                return last, since
        await asyncio.sleep(0.25)
    raise SystemExit("the operator does not come to rest")


class Table:
    """Rows of figures, each as a difference to a former state; also of the control plane's CPU."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        self._pids = {p.name: p.process.pid for p in cluster.status() if p.process}
        self._count = count
        self._control_plane = self._cpu()
        print(
            "| state | s | RSS, MB | CPU, s | calls each | passes each | page, KB | others' CPU |"
        )
        print("|---|---|---|---|---|---|---|---|")

    def _cpu(self) -> Counter[str]:
        return Counter({name: cpu_seconds(pid) for name, pid in self._pids.items()})

    def begin(self) -> None:
        """From here on the control plane's CPU is counted for the next row."""
        self._control_plane = self._cpu()

    def row(self, title: str, seconds: float, now: Page, before: Page = NO_PAGE) -> None:
        """A row for what has happened since ``before``."""
        calls = now.calls - before.calls
        shown = ", ".join(f"{n / self._count:.3f} {key}" for key, n in calls.most_common())
        used = self._cpu()
        used.subtract(self._control_plane)
        others = ", ".join(f"{name} {n:.1f}" for name, n in used.most_common() if n >= 0.1)
        print(
            f"| {title} | {seconds:.1f} | {now.resident / 2**20:.1f} | {now.cpu - before.cpu:.2f} "
            f"| {calls.total() / self._count:.3f} ({shown}) "
            f"| {(now.passes - before.passes) / self._count:.2f} | {now.size / 1000:.1f} "
            f"| {others} |",
            flush=True,
        )
        self.begin()


async def measure(cluster: Cluster, count: int, idle_seconds: float, flags: Sequence[str]) -> None:
    """Prints a row each for an empty cluster, after settling, after idling and after a restart."""
    async with (
        Kube(from_kubeconfig(cluster.kubeconfig)) as kube,
        aiohttp.ClientSession() as session,
    ):
        await prepare(kube)
        async with operator(cluster.kubeconfig, flags):  # makes certificates, which is done once
            await settle(session, 0)
        table = Table(cluster, count)
        async with operator(cluster.kubeconfig, flags):
            empty, _ = await settle(session, 0)
            table.row("no models", 0.0, empty, empty)
            began = time.monotonic()
            await create_models(kube, count)
            applied = time.monotonic() - began
            settled, ended = await settle(session, count, QUIET_SECONDS)
            table.row(f"{count} applied ({applied:.1f} s), settled", ended - began, settled, empty)
            before = await read(session, METRICS)
            table.begin()
            await asyncio.sleep(idle_seconds)
            idle = await read(session, METRICS)
            table.row("idle", idle_seconds, idle, before)
            ticks = count * idle_seconds / TICK_SECONDS
            print(f"\nidle: {1e6 * (idle.cpu - before.cpu) / ticks:.1f} µs per object and 10 s\n")
        async with operator(cluster.kubeconfig, flags):
            began = time.monotonic()
            table.begin()
            again, ended = await settle(session, count)
            table.row("restarted", ended - began, again)


def main() -> None:
    """Measures on a control plane of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--no-pods", action="store_true", help="without a controller manager")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds of idleness to measure")
    parser.add_argument("--names", action="store_true", help="with --gateway-service")
    arguments = parser.parse_args()
    flags = ["--gateway-service=gateway.example"] if arguments.names else []
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), nodes=0) as cluster:
        if arguments.no_pods:
            cluster.stop("kube-controller-manager")
        asyncio.run(measure(cluster, arguments.count, arguments.idle, flags))


if __name__ == "__main__":
    main()
