"""Services of type NodePort: connections to a node port go on to a ready pod."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import signal
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop

from kohort_local.client import Changed, Client, Object

log = logging.getLogger(__name__)
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 2.0
_PAUSED_ABOVE = 256 * 1024  # bytes waiting for one side before the other is read no further
Address = tuple[str, int]


def is_backend(pod: Object) -> bool:
    """Whether new connections may go to a pod: it is ready and not on its way out."""
    conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
    deleted = "deletionTimestamp" in pod["metadata"]
    return conditions.get("Ready") == "True" and not deleted and bool(pod["status"].get("podIP"))


def target_port(port: Object, pod: Object) -> int | None:
    """The number of a Service port's target in a pod; None if the pod has none of that name."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports", []):
            if declared.get("name") == target:
                return int(declared["containerPort"])
    return None


@dataclass
class View:
    """Services and pods as the API tells of them, by uid."""

    services: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)

    def node_ports(self) -> dict[int, tuple[str, int]]:
        """Every TCP node port: the Service's uid and which of its ports."""
        return {
            port["nodePort"]: (uid, index)
            for uid, service in self.services.items()
            for index, port in enumerate(service["spec"].get("ports", []))
            if port.get("nodePort") and port.get("protocol", "TCP") == "TCP"
        }

    def backends(self, node_port: int) -> list[Address]:
        """Addresses behind a node port, in random order."""
        uid, index = self.node_ports().get(node_port, ("", 0))
        service = self.services.get(uid)
        selector = service["spec"].get("selector") if service else None
        if service is None or not selector:
            return []
        found = []
        for pod in self.pods.values():
            labels = pod["metadata"].get("labels") or {}
            chosen = pod["metadata"]["namespace"] == service["metadata"]["namespace"] and all(
                labels.get(key) == value for key, value in selector.items()
            )
            port = target_port(service["spec"]["ports"][index], pod)
            if chosen and port is not None and is_backend(pod):
                found.append((pod["status"]["podIP"], port))
        random.shuffle(found)
        return found


class _Side(asyncio.Protocol):
    """One side of a connection: what it receives, the other one sends."""

    def __init__(self) -> None:
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None
        self.early = b""  # received before there was another side
        self.ended = False  # it sends no more

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.transport.set_write_buffer_limits(_PAUSED_ABOVE)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early += data
        elif self.other.transport:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.other is None:
            return True
        if self.other.transport is None or self.other.ended:
            return False  # nothing comes from either side any more
        self.other.transport.write_eof()
        return True

    def join(self, other: _Side) -> None:
        """From now on each sends what the other one receives, and has received so far."""
        self.other, other.other = other, self
        for side, opposite in ((self, other), (other, self)):
            assert opposite.transport is not None
            opposite.transport.write(side.early)
            side.early = b""
            if side.ended:
                opposite.transport.write_eof()

    def pause_writing(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other and self.other.transport:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other and self.other.transport:
            self.other.transport.close()


class _Incoming(_Side):
    """A client's side: it may speak before a pod has been found."""

    def __init__(self, proxy: Proxy, node_port: int) -> None:
        super().__init__()
        self._proxy = proxy
        self._node_port = node_port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._proxy.begin(self._connect())

    async def _connect(self) -> None:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        for host, port in self._proxy.view.backends(self._node_port):
            try:
                _, outgoing = await asyncio.wait_for(
                    loop.create_connection(_Side, host, port), _CONNECT_SECONDS
                )
            except (OSError, TimeoutError):
                continue
            assert outgoing.transport is not None
            if self.transport.is_closing():
                outgoing.transport.close()
                return
            self.join(outgoing)
            return
        self.transport.abort()


class Proxy:
    """Listens on every node port of the cluster."""

    def __init__(self, client: Client, address: str) -> None:
        self.view = View()
        self._client = client
        self._address = address
        self._listening: dict[int, asyncio.Server] = {}
        self._services_changed = asyncio.Event()
        self._connecting: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside."""
        task = asyncio.create_task(work)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def run(self) -> None:
        """Follow the API for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow("/api/v1/pods", self.view.pods))
            tasks.create_task(
                self._follow("/api/v1/services", self.view.services, self._services_changed)
            )
            tasks.create_task(self._listen())

    async def _follow(
        self, path: str, known: dict[str, Object], changed: asyncio.Event | None = None
    ) -> None:
        async for news in self._client.watch(path):
            if not isinstance(news, Changed):
                known.clear()
                known.update({o["metadata"]["uid"]: o for o in news.objects})
            elif news.deleted:
                known.pop(news.object["metadata"]["uid"], None)
            else:
                known[news.object["metadata"]["uid"]] = news.object
            if changed:
                changed.set()

    async def _listen(self) -> None:
        """Listen on the ports that Services have, and on no others."""
        while True:
            self._services_changed.clear()
            wanted = set(self.view.node_ports())
            for port in set(self._listening) - wanted:
                self._listening.pop(port).close()  # connections that are open go on
            for port in wanted - set(self._listening):
                await self._open(port)
            missing = wanted - set(self._listening)
            with contextlib.suppress(TimeoutError):
                pause = _RETRY_SECONDS if missing else None
                await asyncio.wait_for(self._services_changed.wait(), pause)

    async def _open(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._listening[port] = await loop.create_server(
                lambda: _Incoming(self, port), self._address, port
            )
        except OSError as error:
            log.warning("node port %d: %s; trying again", port, error)


async def run(server: str, pki: Path, address: str) -> None:
    """Forward connections until SIGTERM or SIGINT."""
    client = Client(server, pki, "proxy")
    working = asyncio.create_task(Proxy(client, address).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, working.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await working
    await client.close()


def main() -> None:
    """Start the proxy with the settings given on the command line."""
    parser = argparse.ArgumentParser(prog="kohort_local.proxy", description=__doc__)
    parser.add_argument("--server", required=True, help="URL of the API server")
    parser.add_argument("--pki", type=Path, required=True, help="directory of proxy.crt and .key")
    parser.add_argument("--address", required=True, help="address to listen on")
    uvloop.run(run(**vars(parser.parse_args())))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    main()
