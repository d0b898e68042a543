"""A whole Kohort in a namespace of its own whose operator can be ended at a chosen call or push.

Several lanes share a control plane and go on beside each other: a rollout is mostly waiting.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kohort.act.permissions import GATEWAY_SECRET, OPERATOR_SECRET
from kohort.kube import APPLY, MERGE, ApiError, Kube, Server, from_kubeconfig
from kohort.route.envoy.identity import Identity
from kohort_local.cluster import Cluster
from kohort_local.helm import Helm
from kohort_local.install import GATEWAY, SERVER_IMAGE, local_values
from kohort_local.kubectl import Kubectl
from kohort_local.models import Digits
from kohort_local.traffic import Clients
from tests.component.operator_parts import PATIENT_LEASE, OperatorProcess, free_port
from tests.e2e.ends import Json, View
from tests.e2e.interruptions import ApiProxy, Fuse, RouteProxy, plain_kubeconfig
from tests.e2e.world import Model

NAME, BYSTANDER = "rolled", "bystander"
CLIENTS = (
    Clients("batchers", {"x-app": "archive"}, count=24, rows=16, period=2.0),
    Clients("singles", {"x-app": "scanner"}, count=24, rows=1, period=2.0),
)
# So few that they may call for as long as pods take to go.
FEW = tuple(replace(group, count=4) for group in CLIENTS)
PATIENCE = 180.0  # seconds; a machine with many lanes takes several times what a rollout needs
LOOK_SECONDS = 0.5


class StuckError(Exception):
    """Something awaited did not come; the message is what was there instead."""


class Lane:
    """One namespace with its operator, gateway, a model that is rolled out, and one that is not."""

    def __init__(
        self,
        name: str,
        directory: Path,
        kubectl: Kubectl,
        server: Server,
        gateway_port: int,
        versions: dict[str, Path],
        digits: Digits,
    ) -> None:
        self.name = name
        url = f"http://127.0.0.1:{gateway_port}"
        self.model = Model(kubectl, url, NAME, versions, digits, name)
        self.bystander = Model(kubectl, url, BYSTANDER, versions, digits, name)
        self.calls = Fuse(self._kill)
        self.pushes = Fuse(self._kill)
        self._kube = Kube(server)
        self._api = ApiProxy(server, self.calls)
        self._directory = directory
        self._gateway_port = gateway_port
        self._api_port, self._own_routes, self._routes_port = free_port(), free_port(), free_port()
        self._process: OperatorProcess | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.restarts = 0

    def _kill(self) -> None:
        if self._process:
            self._process.process.kill()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Lane]:
        """The lane with everything ready in it."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._kube)
            await self._api.start(self._api_port)
            stack.push_async_callback(self._api.stop)
            kubectl = self.model.kubectl
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}}
            await asyncio.to_thread(kubectl.apply, namespace)
            stack.callback(self._kill)
            self._keeping = asyncio.create_task(self._keep_running())
            stack.callback(self._keeping.cancel)
            proxy = RouteProxy(
                self._own_routes,
                await self._identity(OPERATOR_SECRET),
                await self._identity(GATEWAY_SECRET),
                self.pushes,
            )
            await proxy.start(self._routes_port)
            stack.push_async_callback(proxy.stop)
            await asyncio.to_thread(lambda: kubectl.apply(*self._gateway()))
            stack.push_async_callback(
                partial(
                    asyncio.to_thread, kubectl, "delete", "namespace", self.name, "--wait=false"
                )
            )
            await asyncio.to_thread(
                kubectl, "rollout", "status", "deployment/kohort-gateway", "-n", self.name
            )
            await asyncio.to_thread(self.bystander.apply, "v1", replicas=1)
            await self.until(lambda: self._ready(BYSTANDER), "the bystander serves")
            yield self

    async def _keep_running(self) -> None:
        """Start the operator, and again whenever it was ended: under the same name, as a pod's is."""
        config = plain_kubeconfig(self._directory / f"{self.name}.kubeconfig", self._api_port)
        flags = (
            # The next one has the same name and need not wait; a machine with many lanes is slow.
            *PATIENT_LEASE,
            f"--namespace={self.name}",
            f"--watch-namespaces={self.name}",
            f"--server-image={SERVER_IMAGE}",
            "--scrape-interval=500ms",
            f"--routes-port={self._own_routes}",
        )
        while True:
            log = self._directory / f"{self.name}.log"
            self._process = OperatorProcess(config, "operator-0", log, flags)
            if await _ended(self._process.process) != -signal.SIGKILL:
                raise StuckError(f"the operator ended by itself; see {log}")
            self.restarts += 1

    def _gateway(self) -> list[Json]:
        """The gateway of an installation, in this namespace."""
        values = local_values(
            gateway_port=self._gateway_port,
            routes_port=self._routes_port,
            operators=0,
            gateways=1,
            scrape_interval="1s",
        )
        rendered = Helm(lambda line: None).render(self.name, values)
        return [found for found in rendered if found["metadata"]["name"] == GATEWAY]

    async def _identity(self, name: str) -> Identity:
        secret = await self.until(
            lambda: self._get(f"/api/v1/namespaces/{self.name}/secrets/{name}"), f"Secret {name}"
        )
        return Identity.of({k: base64.b64decode(v) for k, v in secret["data"].items()})

    async def until(self, look: Callable[[], Any], what: str, within: float = PATIENCE) -> Any:
        """The first true value of awaiting ``look()``."""
        try:
            async with asyncio.timeout(within):
                while not (value := await look()):
                    if self._keeping and self._keeping.done():
                        self._keeping.result()
                    await asyncio.sleep(LOOK_SECONDS)
                return value
        except TimeoutError:
            raise StuckError(f"{self.name}: never happened: {what}") from None

    async def _get(self, path: str) -> Json | None:
        try:
            found: Json = msgspec.json.decode(await self._kube.call("GET", path))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def view(self, told: Callable[[View], str] = lambda _: "") -> View | None:
        """Everything about the rolled-out model now; None while it does not exist.

        When ``told`` says something of the model alone, nothing else is asked for.
        """
        model = await self._get(self._path(NAME))
        if model is None:
            return None
        if told(view := View(model, [], [], [])):
            return view
        lists = []
        for kind in (
            "apis/apps/v1/{}/deployments",
            "api/v1/{}/pods",
            "apis/apps/v1/{}/controllerrevisions",
        ):
            path = kind.format(f"namespaces/{self.name}")
            found = await self._get(f"/{path}?labelSelector=kohort.dev/model={NAME}")
            lists.append((found or {}).get("items", []))
        return View(model, *lists)

    def _path(self, name: str) -> str:
        return f"/apis/kohort.dev/v1alpha1/namespaces/{self.name}/modeldeployments/{name}"

    async def _ready(self, name: str) -> bool:
        status = ((await self._get(self._path(name))) or {}).get("status", {})
        return any(
            c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", [])
        )

    async def ready(self) -> bool:
        """Whether the model says that clients are served by what the spec asks for."""
        return await self._ready(NAME)

    async def cohort(self, name: str) -> Json:
        """One cohort's status; empty while there is none."""
        status = ((await self._get(self._path(NAME))) or {}).get("status", {})
        return next((c for c in status.get("cohorts", []) if c["name"] == name), {})

    async def rested(self) -> View:
        """The model once nothing is under way; pods that nobody uses any more may still be there."""
        return await self._view_without(lambda _: "")

    async def settled(self) -> View:
        """The model once nothing is under way and nothing is left over."""
        return await self._view_without(View.left_over)

    async def _view_without(self, more: Callable[[View], str]) -> View:
        last = ["it does not exist"]

        async def look() -> View | None:
            view = await self.view(View.under_way)
            if view is None:
                return None
            last[0] = view.under_way() or more(view)
            return None if last[0] else view

        try:
            view: View = await self.until(look, "an end")
        except StuckError as error:
            raise StuckError(f"{error}; {last[0]}") from None
        return view

    async def apply(self, manifest: Json) -> None:
        """Server-side apply of the model, as ``kubectl apply`` does it."""
        who = {"fieldManager": "kubectl", "force": "true"}
        await self._kube.call(
            "PATCH", self._path(NAME), params=who, body=manifest, content_type=APPLY
        )

    async def delete(self) -> None:
        """Delete the model; returns once it is gone."""
        if await self._get(self._path(NAME)) is None:
            return
        await self._kube.call("DELETE", self._path(NAME))

        async def gone() -> bool:
            return await self._get(self._path(NAME)) is None

        await self.until(gone, "the model is gone")

    async def logs(self) -> str:
        """The ends of what operator and gateway have written."""
        kubectl, gateway = self.model.kubectl, f"deployment/{GATEWAY}"
        told = await asyncio.to_thread(
            kubectl, "logs", gateway, f"--namespace={self.name}", "--tail=20"
        )
        operator = (self._directory / f"{self.name}.log").read_text().splitlines()[-40:]
        return "\n".join([*operator, told])

    async def annotate(self, line: str) -> None:
        """Give a command as anybody can."""
        change = {"metadata": {"annotations": {"kohort.dev/command": line}}}
        await self._kube.call("PATCH", self._path(NAME), body=change, content_type=MERGE)


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """A process's exit code; no thread waits for it, of which there are few for many lanes."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def lanes(
    cluster: Cluster, directory: Path, versions: dict[str, Path], digits: Digits, names: list[str]
) -> list[Lane]:
    """Lanes of these names; a cluster's last node ports are theirs."""
    kubectl, server = Kubectl(cluster.kubeconfig), from_kubeconfig(cluster.kubeconfig)
    ports = list(cluster.node_port_range)[-len(names) :]
    return [
        Lane(name, directory, kubectl, server, port, versions, digits)
        for name, port in zip(names, ports, strict=True)
    ]
