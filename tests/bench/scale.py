"""What many idle ModelDeployments cost the operator: memory, API calls, seconds, CPU.

``python -m tests.bench.scale [--count 1000] [--kubeconfig FILE]``: without a kubeconfig it starts a
control plane of its own. There is no node: pods stay pending, which is the worst of quiet states.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from kohort.api.crd import definition
from kohort.kube import APPLY, ApiError, Kube, from_kubeconfig
from kohort.runtime.lag import LONGEST_SECONDS
from tests.component.operator_parts import free_port

NAMESPACE = "scale"
OPERATOR_NAMESPACE = "kohort-system"
STATUS_PORT, ROUTES_PORT = free_port(), free_port()
MODELS = f"/apis/kohort.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"
# Statuses of a wave may lag, with nothing to be seen meanwhile.
QUIET_SECONDS = LONGEST_SECONDS + 5.0
QUIET_SECONDS_OF_A_START = 8.0
PATIENCE_SECONDS = 1800.0


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


async def create_models(kube: Kube, first: int, last: int) -> None:
    """Minimal models with numbers in [first, last)."""
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

    await asyncio.gather(*(create(number) for number in range(first, last)))


@contextlib.asynccontextmanager
async def operator(kubeconfig: Path) -> AsyncIterator[asyncio.subprocess.Process]:
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
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def figures(session: aiohttp.ClientSession) -> dict[str, float]:
    """The operator's own metrics, summed over labels except verb and path of calls."""
    async with session.get(f"http://127.0.0.1:{STATUS_PORT}/metrics") as answer:
        text = await answer.text()
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(\w+)(\{[^}]*\})? (\S+)$", text, re.MULTILINE):
        found[name + labels] = float(value)
    return found


def calls(now: dict[str, float], verbs: tuple[str, ...]) -> float:
    """Calls with these verbs, whatever was answered."""
    return sum(
        value
        for name, value in now.items()
        if name.startswith("kohort_operator_api_calls_total")
        and any(f'verb="{verb}"' in name for verb in verbs)
    )


WRITES = ("PATCH", "PUT", "POST", "DELETE")


async def settle(
    session: aiohttp.ClientSession, models: int, quiet: float = QUIET_SECONDS_OF_A_START
) -> tuple[dict[str, float], float]:
    """Figures and the time of the last pass, once nothing has happened for ``quiet`` seconds."""
    passes, since = -1.0, time.monotonic()
    limit = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < limit:
        with contextlib.suppress(aiohttp.ClientError):
            now = await figures(session)
            count = sum(
                v for n, v in now.items() if n.startswith("kohort_operator_reconcile_seconds_count")
            )
            if count != passes or now.get("kohort_operator_models") != models:
                passes, since = count, time.monotonic()
            elif time.monotonic() - since > quiet:
                return now, since
        await asyncio.sleep(0.25)
    raise SystemExit("the operator does not come to rest")


async def measure(kubeconfig: Path, count: int) -> None:
    """Prints one row each for an empty cluster, after settling, and after a restart."""
    async with (
        Kube(from_kubeconfig(kubeconfig)) as kube,
        aiohttp.ClientSession() as session,
    ):
        await prepare(kube)
        async with operator(kubeconfig):  # makes certificates, which is done once
            await settle(session, 0)
        print("| state | RSS MB | calls per model | passes per model | seconds | CPU s |")
        print("|---|---|---|---|---|---|")
        async with operator(kubeconfig):
            empty, _ = await settle(session, 0)
            row("no models", empty, empty, 1, 0.0)
            began = time.monotonic()
            await create_models(kube, 0, count)
            settled, ended = await settle(session, count, QUIET_SECONDS)
            row(f"{count} applied and settled", settled, empty, count, ended - began)
            await asyncio.sleep(10)
            idle = await figures(session)
            row("10 s of idleness later", idle, settled, count, 10.0)
        async with operator(kubeconfig):
            began = time.monotonic()
            again, ended = await settle(session, count)
            row("restarted", again, {}, count, ended - began)


def row(
    title: str, now: dict[str, float], before: dict[str, float], count: int, seconds: float
) -> None:
    """One row of the table, as a difference to ``before``."""
    verbs = {verb: calls(now, (verb,)) - calls(before, (verb,)) for verb in (*WRITES, "GET")}
    total = sum(verbs.values())
    shown = ", ".join(f"{verb} {n / count:.2f}" for verb, n in verbs.items() if n)
    passes = sum(
        (v - before.get(n, 0.0))
        for n, v in now.items()
        if n.startswith("kohort_operator_reconcile_seconds_count")
    )
    cpu = now["process_cpu_seconds_total"] - before.get("process_cpu_seconds_total", 0.0)
    print(
        f"| {title} | {now['process_resident_memory_bytes'] / 2**20:.1f} "
        f"| {total / count:.2f} ({shown}) | {passes / count:.2f} | {seconds:.1f} | {cpu:.2f} |",
        flush=True,
    )


def main() -> None:
    """Measures on the given or an own control plane."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kubeconfig", type=Path)
    arguments = parser.parse_args()
    if arguments.kubeconfig:
        asyncio.run(measure(arguments.kubeconfig, arguments.count))
        return
    from kohort_local.cluster import Cluster

    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), nodes=0) as cluster:
        asyncio.run(measure(Path(cluster.kubeconfig), arguments.count))


if __name__ == "__main__":
    main()
