"""An API server as a gateway needs it: with EndpointSlices of pods that have loopback addresses.

A real API server refuses such addresses, so the tests' cluster makes no slices. This one passes every
call on, and answers those for EndpointSlices itself, from the Services and the ready pods.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from kohort.kube import Server

SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
TICK_SECONDS = 0.05
_HOP = frozenset({"connection", "content-encoding", "content-length", "host", "transfer-encoding"})
Json = dict[str, Any]


class SlicingServer:
    """Listens on 127.0.0.1 without TLS, and speaks to ``server`` with its certificate."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session
        self._slices: dict[str, Json] = {}
        self._version = 1
        self._changed = asyncio.Condition()
        self._history: list[tuple[int, Json]] = []

    async def start(self, port: int) -> None:
        """Serves, with the slices of what there is now, until :meth:`stop`."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("GET", SLICES, self._answer_slices)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._look()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self._looking = asyncio.create_task(self._go_on())

    async def stop(self) -> None:
        """Ends it."""
        self._looking.cancel()
        await self._runner.cleanup()

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        services = await self._list("/api/v1/services")
        pods = await self._list("/api/v1/pods")
        found = {}
        for service in services:
            selector = service["spec"].get("selector")
            if selector:
                made = _slice(service, [p for p in pods if _backs(p, service, selector)])
                found[made["metadata"]["uid"]] = made
        async with self._changed:
            for uid in self._slices.keys() - found.keys():
                self._tell("DELETED", self._slices.pop(uid))
            for uid, made in found.items():
                known = self._slices.get(uid)
                if known is None or known["endpoints"] != made["endpoints"]:
                    self._slices[uid] = made
                    self._tell("MODIFIED" if known else "ADDED", made)
            self._changed.notify_all()

    def _tell(self, kind: str, made: Json) -> None:
        self._version += 1
        made["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, {"type": kind, "object": dict(made)}))

    async def _list(self, path: str) -> list[Json]:
        async with self._session.get(self._server.url + path) as answer:
            found: list[Json] = (await answer.json())["items"]
            return found

    async def _answer_slices(self, request: web.Request) -> web.StreamResponse:
        if "sendInitialEvents" in request.query:
            return web.json_response(
                {"kind": "Status", "code": 422, "reason": "Invalid"}, status=422
            )
        if request.query.get("watch") not in ("1", "true"):
            meta = {"resourceVersion": str(self._version)}
            kinds = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList"}
            return web.json_response(
                {**kinds, "metadata": meta, "items": list(self._slices.values())}
            )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        seen = int(request.query.get("resourceVersion", "0"))
        while True:
            for version, event in list(self._history):
                if version > seen:
                    seen = version
                    await response.write(msgspec.json.encode(event) + b"\n")
            async with self._changed:
                await self._changed.wait()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        async with self._session.request(
            request.method,
            self._server.url + request.path_qs,
            headers=headers,
            data=await request.read() or None,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response


def _backs(pod: Json, service: Json, selector: dict[str, str]) -> bool:
    ready = any(
        c["type"] == "Ready" and c["status"] == "True"
        for c in pod.get("status", {}).get("conditions", [])
    )
    meta = pod["metadata"]
    return (
        ready
        and "deletionTimestamp" not in meta
        and meta["namespace"] == service["metadata"]["namespace"]
        and selector.items() <= meta.get("labels", {}).items()
    )


def _slice(service: Json, pods: list[Json]) -> Json:
    meta = service["metadata"]
    ports = {p["name"]: p["containerPort"] for pod in pods for p in _ports(pod)}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{meta['name']}-1",
            "namespace": meta["namespace"],
            "uid": f"slice-{meta['uid']}",
            "labels": {"kubernetes.io/service-name": meta["name"]},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": p.get("name", ""), "port": ports.get(p["targetPort"], 0), "protocol": "TCP"}
            for p in service["spec"]["ports"]
        ],
        "endpoints": [
            {"addresses": [pod["status"]["podIP"]], "conditions": {"ready": True}} for pod in pods
        ],
    }


def _ports(pod: Json) -> list[Json]:
    return [p for c in pod["spec"]["containers"] for p in c.get("ports", [])]
