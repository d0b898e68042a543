"""A whole Kohort in a namespace of its own whose operator can be ended at a chosen call or push.

Several lanes share a control plane and go on beside each other: a rollout is mostly waiting.
"""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kohort.act.permissions import GATEWAY_SECRET, OPERATOR_SECRET
from kohort.kube import ApiError, Kube, Server, from_kubeconfig
from kohort.route.envoy.identity import Identity
from kohort_local import manifests
from kohort_local.cluster import Cluster
from kohort_local.kubectl import Kubectl
from kohort_local.models import Digits
from kohort_local.traffic import Clients
from tests.component.operator_parts import LEASE, OperatorProcess, free_port
from tests.e2e.interruptions import ApiProxy, Fuse, RouteProxy, plain_kubeconfig
from tests.e2e.world import Model

NAME, BYSTANDER = "rolled", "bystander"
POINT = "example.com/point"
CLIENTS = (
    Clients("batchers", {"x-app": "archive"}, count=24, rows=16, period=0.8),
    Clients("singles", {"x-app": "scanner"}, count=24, rows=1, period=0.8),
)
PATIENCE = 180.0
LOOK_SECONDS = 0.25

Json = dict[str, Any]


class StuckError(Exception):
    """Something awaited did not come; the message is what was there instead."""


@dataclass(frozen=True)
class End:
    """How a rollout ended, in words that are the same for every repetition of it.

    ``cohorts``: name, file of the model, which revision that is (``same`` as before, of ``this``
    rollout, ``passed`` over, or a ``former``), phase. ``deployments``: which revision, pods.
    """

    cohorts: tuple[tuple[str, str, str, str], ...]
    ready: str
    deployments: tuple[tuple[str, int], ...]
    new_records: int


@dataclass
class View:
    """What the API server tells of a lane's model."""

    model: Json
    deployments: list[Json]
    pods: list[Json]
    records: list[Json]

    @property
    def status(self) -> Json:
        return dict(self.model.get("status") or {})

    @property
    def cohorts(self) -> dict[str, Json]:
        return {c["name"]: c for c in self.status.get("cohorts", [])}

    def stable(self) -> dict[str, str]:
        """Stable revision by cohort."""
        return {name: c.get("stable", "") for name, c in self.cohorts.items()}

    def record_names(self) -> set[str]:
        return {r["metadata"]["name"] for r in self.records}

    def unsettled(self) -> str:
        """What is still under way or left over; empty when nothing is."""
        status, meta = self.status, self.model["metadata"]
        line = meta.get("annotations", {}).get("kohort.dev/command", "")
        if status.get("observedGeneration") != meta["generation"]:
            return "the spec was not seen"
        if line and status.get("command", {}).get("line") != line:
            return "the command was not carried out"
        for cohort in self.cohorts.values():
            if cohort["phase"] not in ("Stable", "RolledBack") or cohort.get("canary"):
                return f"{cohort['name']} is {cohort['phase']}: {cohort.get('message')}"
        wanted = set(self.stable().values())
        found = {d["metadata"]["name"] for d in self.deployments}
        if found != wanted:
            return f"Deployments {sorted(found)} instead of {sorted(wanted)}"
        strangers = [o for o in (*self.deployments, *self.pods) if not self._belongs(o)]
        if strangers:
            return f"left over: {[o['metadata']['name'] for o in strangers]}"
        pods = sum(d["spec"]["replicas"] for d in self.deployments)
        if len(self.pods) != pods:
            return f"{len(self.pods)} pods instead of {pods}"
        ready = sum(d.get("status", {}).get("readyReplicas", 0) for d in self.deployments)
        return "" if ready == pods else f"{ready} of {pods} pods are ready"

    def _belongs(self, item: Json) -> bool:
        meta = item["metadata"]
        if "deletionTimestamp" in meta:
            return False
        owners = [o["uid"] for o in meta.get("ownerReferences", []) if o["kind"] != "ReplicaSet"]
        return not owners or owners == [self.model["metadata"]["uid"]]

    def end(self, before: View, point: str) -> End:
        """This end of a rollout that began at ``before``."""
        points = {
            d["metadata"]["name"]: d["spec"]["template"]["metadata"]
            .get("annotations", {})
            .get(POINT, "")
            for d in self.deployments
        }
        files = {r["name"]: Path(r["uri"]).stem for r in self.status["revisions"]}
        was = before.stable()

        def role(cohort: str, revision: str) -> str:
            if was.get(cohort) == revision:
                return "same"
            told = points.get(revision, "")
            return {point: "this", f"{point}-passed": "passed"}.get(told, "former")

        ready = next(c for c in self.status["conditions"] if c["type"] == "Ready")
        return End(
            cohorts=tuple(
                (name, files[c["stable"]], role(name, c["stable"]), c["phase"])
                for name, c in sorted(self.cohorts.items())
            ),
            ready=f"{ready['status']} {ready['reason']}",
            deployments=tuple(
                sorted(
                    (
                        (points[d["metadata"]["name"]] == point and "this") or "other",
                        d["spec"]["replicas"],
                    )
                    for d in self.deployments
                )
            ),
            new_records=len(self.record_names() - before.record_names()),
        )


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
            keeping = asyncio.create_task(self._keep_running())
            stack.callback(keeping.cancel)
            proxy = RouteProxy(
                self._own_routes,
                await self._identity(OPERATOR_SECRET),
                await self._identity(GATEWAY_SECRET),
                self.pushes,
            )
            await proxy.start(self._routes_port)
            stack.push_async_callback(proxy.stop)
            await asyncio.to_thread(kubectl.apply, *self._gateway())
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
            *LEASE,
            f"--namespace={self.name}",
            f"--watch-namespaces={self.name}",
            "--scrape-interval=500ms",
            f"--routes-port={self._own_routes}",
        )
        while True:
            log = self._directory / f"{self.name}.log"
            self._process = OperatorProcess(config, "operator-0", log, flags)
            await asyncio.to_thread(self._process.process.wait)
            if self._process.process.returncode != -signal.SIGKILL:
                raise StuckError(f"the operator ended by itself; see {log}")
            self.restarts += 1

    def _gateway(self) -> list[Json]:
        """The gateway of an installation, in this namespace."""
        wanted = manifests.installation(
            gateway_port=self._gateway_port,
            routes_port=self._routes_port,
            operators=0,
            gateways=1,
            scrape_interval="1s",
        )
        return [
            {**m, "metadata": {**m["metadata"], "namespace": self.name}}
            for m in wanted
            if m["metadata"]["name"] == manifests.GATEWAY
        ]

    async def _identity(self, name: str) -> Identity:
        secret = await self.until(
            lambda: self._get(f"/api/v1/namespaces/{self.name}/secrets/{name}"), f"Secret {name}"
        )
        return Identity.of({k: base64.b64decode(v) for k, v in secret["data"].items()})

    async def until(self, look: Callable[[], Any], what: str, within: float = 60) -> Any:
        """The first true value of awaiting ``look()``."""
        try:
            async with asyncio.timeout(within):
                while not (value := await look()):  # noqa: ASYNC110
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

    async def view(self) -> View | None:
        """Everything about the rolled-out model now; None while it does not exist."""
        model = await self._get(self._path(NAME))
        if model is None:
            return None
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

    async def settled(self) -> View:
        """The model once nothing is under way and nothing is left over."""
        last = ["it does not exist"]

        async def look() -> View | None:
            view = await self.view()
            if view is None:
                return None
            last[0] = view.unsettled()
            return None if last[0] else view

        try:
            view: View = await self.until(look, "a settled model")
        except StuckError as error:
            raise StuckError(f"{error}; {last[0]}") from None
        return view

    async def delete(self) -> None:
        """Delete the model; returns once it is gone."""
        kubectl = self.model.kubectl
        await asyncio.to_thread(
            kubectl, "delete", "mdep", NAME, "-n", self.name, "--ignore-not-found"
        )

    async def annotate(self, line: str) -> None:
        """Give a command as anybody can."""
        await asyncio.to_thread(
            self.model.kubectl,
            *("annotate", "--overwrite", "-n", self.name, f"mdep/{NAME}"),
            f"kohort.dev/command={line}",
        )


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
