"""Real parts around a gateway: Envoy as kohort-gateway runs it, model servers, certificates."""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self, cast

import aiohttp
from aiohttp import web

from kohort.observe.gateways import GatewayAddress
from kohort.route.envoy.certificates import authority, gateway_files, operator_files
from kohort.route.envoy.identity import Identity
from kohort.route.envoy.server import RouteServer
from kohort.route.table import CohortRoute, Endpoint, HeaderMatch, ModelKey, RouteTable

LOCALHOST = "127.0.0.1"
KEY = ModelKey("shop", "burger")


_given: set[int] = set()


def free_port() -> int:
    """A port below those that the system gives to clients, and never the same one twice."""
    while True:
        port = random.randint(10000, 30000)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind((LOCALHOST, port))
            except OSError:
                continue
            return port


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
    """Wait until something holds; fail when it never does."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def table(
    weight: int = 0,
    *,
    stable: str = "r1",
    canary: str = "r2",
    salt: str = "salt",
    key: ModelKey = KEY,
    staff: str = "",
    preview: str = "",
    mirror: int = 0,
) -> RouteTable:
    """Everyone in a rollout, or not with ``canary`` empty; staff on a revision of their own if told.

    ``preview``: the header that asks for the canary. ``mirror``: percentage of everyone's requests.
    """
    everyone = CohortRoute("everyone", (), stable, canary, weight, salt if canary else "")
    cohorts = [replace(everyone, preview=canary if preview else "", mirror=mirror)]
    if staff:
        match = ((HeaderMatch("x-org", ("acme",)),),)
        cohorts.insert(0, CohortRoute("staff", match, staff, "", 0, ""))
    asks = HeaderMatch(preview, ()) if preview else None
    return RouteTable(key, "x-client-id", tuple(cohorts), asks)


_CONTENT_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Upstream(asyncio.Protocol):
    """A model server that costs next to nothing: answers every request with the same few bytes."""

    def __init__(self, revision: str) -> None:
        self._answer = (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
            b"x-arm: " + revision.encode() + b"\r\n\r\n{}"
        )
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _CONTENT_LENGTH.search(self._buffer, 0, end)
            end += 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < end:
                return
            self._buffer = self._buffer[end:]
            assert self._transport is not None
            self._transport.write(self._answer)


async def upstream(revision: str) -> Endpoint:
    """Such a server, for as long as the event loop runs."""
    port = free_port()
    await asyncio.get_running_loop().create_server(lambda: Upstream(revision), LOCALHOST, port)
    return Endpoint(LOCALHOST, port)


class Client(asyncio.Protocol):
    """Sends requests one after the other on one connection and keeps the heads of the answers."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests = list(reversed(requests))
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""
        self.heads: list[bytes] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.write(self._requests.pop())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or len(self._buffer) < end + 6:
            return
        self.heads.append(self._buffer[:end])
        self._buffer = b""
        assert self._transport is not None
        if self._requests:
            self._transport.write(self._requests.pop())
        else:
            self._transport.close()
            self.done.set_result(None)


def requests_by(path: str, host: str, number: int, clients: int, body: bytes = b"") -> list[bytes]:
    """Requests of many clients in turn."""
    content = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else ""
    return [
        f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nhost: {host}\r\n"
        f"x-client-id: client-{i % clients}\r\nuser-agent: test\r\naccept: */*\r\n"
        f"{content}\r\n".encode()
        + body
        for i in range(number)
    ]


async def ask(port: int, requests: Sequence[bytes], connections: int = 16) -> list[bytes]:
    """Heads of the answers, in the order of the requests; fails when one is not 200."""
    loop = asyncio.get_running_loop()
    heads: list[bytes] = [b""] * len(requests)
    clients = []
    for number in range(connections):
        mine = requests[number::connections]
        _, client = await loop.create_connection(partial(Client, mine), LOCALHOST, port)
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    for number, client in enumerate(clients):
        heads[number::connections] = client.heads
    bad = [head for head in heads if not head.startswith(b"HTTP/1.1 200")]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(requests)} requests failed: {bad[0]!r}")
    return heads


@dataclass
class ModelServer:
    """A small HTTP server that says who it is and answers as it is told by request headers."""

    revision: str
    port: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(LOCALHOST, self.port)

    async def start(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        self.port = self.port or free_port()
        await web.TCPSite(self._runner, LOCALHOST, self.port, backlog=1024).start()
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.headers.get("x-client-id", "")] += 1
        if "x-keep" in request.headers:
            self.headers.append(dict(request.headers) | {"path": request.path_qs})
        await request.read()
        if "x-reset" in request.headers and request.transport is not None:
            request.transport.abort()
        if wait := request.headers.get("x-wait"):
            await asyncio.sleep(float(wait))
        return web.json_response(
            {"revision": self.revision, "path": request.path_qs},
            status=int(request.headers.get("x-status", "200")),
        )


@dataclass
class Certificates:
    """The Secrets that the operator would make, as files."""

    directory: Path
    signer: Mapping[str, bytes] = field(default_factory=dict)
    operator: Mapping[str, bytes] = field(default_factory=dict)

    def issue(self, now: datetime | None = None) -> Certificates:
        """New ones, or the same while they are good."""
        now = now or datetime.now(UTC)
        self.signer = authority(self.signer or None, now)
        self.operator = operator_files(self.operator or None, self.signer, ("127.0.0.1",), now)
        self.write(gateway_files(self._files(), self.signer, now))
        return self

    @property
    def identity(self) -> Identity:
        return Identity.of(self.operator)

    def _files(self) -> dict[str, bytes] | None:
        found = {f.name: f.read_bytes() for f in self.directory.glob("*.*") if f.is_file()}
        return found or None

    def write(self, files: Mapping[str, bytes]) -> None:
        """Replace the files of a gateway one by one, as whole files."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            new = self.directory.parent / f"{self.directory.name}-{name}.new"
            new.write_bytes(content)
            new.rename(self.directory / name)


@dataclass
class Gateway:
    """A kohort-gateway process."""

    name: str
    address: GatewayAddress
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.address.port}"

    @property
    def status_url(self) -> str:
        return f"http://{LOCALHOST}:{self.address.status_port}"

    async def ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            timeout = aiohttp.ClientTimeout(total=1)
            async with session.get(f"{self.status_url}/ready", timeout=timeout) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def envoy(self) -> int:
        """Process of the Envoy that it runs; 0 while there is none."""
        return next((pid for pid, command in self._children() if "--config-path" in command), 0)

    def comparer(self) -> int:
        """Process that compares mirrored answers; 0 while there is none."""
        return next(
            (pid for pid, command in self._children() if "kohort.gateway.comparer" in command), 0
        )

    def _children(self) -> list[tuple[int, str]]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [(int(child), Path(f"/proc/{child}/cmdline").read_text()) for child in children]

    def signal_envoy(self, number: int) -> None:
        os.kill(self.envoy(), number)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def start_gateway(
    operator_port: int,
    tls_dir: Path,
    name: str = "gateway-0",
    *arguments: str,
    address: GatewayAddress | None = None,
) -> Gateway:
    """Start a gateway; it is not ready yet. ``address``: where one was before that starts again."""
    address = address or GatewayAddress(name, LOCALHOST, free_port(), free_port())
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from kohort.gateway import main; main()",
        *("--operator", f"{LOCALHOST}:{operator_port}"),
        *("--tls-dir", str(tls_dir)),
        *("--listen-address", LOCALHOST),
        *("--port", str(address.port)),
        *("--status-port", str(address.status_port)),
        *("--node-id", name),
        *("--concurrency", "1"),
        *arguments,
    )
    return Gateway(name, address, process)


@dataclass
class Fleet:
    """An operator's route server, gateways, and a client."""

    server: RouteServer
    port: int
    certificates: Certificates
    session: aiohttp.ClientSession
    gateways: list[Gateway] = field(default_factory=list)
    refusals: list[tuple[ModelKey, str]] = field(default_factory=list)

    async def add(self, name: str, *arguments: str) -> Gateway:
        """One more gateway, ready."""
        gateway = await start_gateway(self.port, self.certificates.directory, name, *arguments)
        self.gateways.append(gateway)
        await until(lambda: gateway.ready(self.session))
        return gateway

    async def restart(self, gateway: Gateway) -> None:
        """The gateway's container anew, in the same pod: it counts from nought."""
        await gateway.kill()
        again = await start_gateway(
            self.port, self.certificates.directory, gateway.name, address=gateway.address
        )
        self.gateways[self.gateways.index(gateway)] = again
        await until(lambda: again.ready(self.session))

    async def effective(self, wanted: RouteTable, gateway: Gateway | None = None) -> None:
        """Wait until gateways serve a table."""
        from kohort.observe.gateways import table_versions

        asked = [g.address for g in self.gateways if gateway in (None, g)]

        async def served() -> bool:
            versions = await table_versions(self.session, asked, wanted.key)
            return all(version == wanted.version for version in versions.values())

        await until(served)


@asynccontextmanager
async def fleet(directory: Path, gateways: int = 1, *arguments: str) -> AsyncIterator[Fleet]:
    """A route server and ready gateways, all gone at the end."""
    certificates = Certificates(directory / "tls").issue()
    refusals: list[tuple[ModelKey, str]] = []
    server = RouteServer(on_refused=lambda key, _, message: refusals.append((key, message)))
    port = await server.start(LOCALHOST, free_port(), certificates.identity)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), auto_decompress=True
    ) as session:
        made = Fleet(server, port, certificates, session, refusals=refusals)
        try:
            await asyncio.gather(
                *(made.add(f"gateway-{number}", *arguments) for number in range(gateways))
            )
            yield made
        finally:
            await asyncio.gather(*(gateway.kill() for gateway in made.gateways))
            await server.stop(0)


async def serve(made: Fleet, servers: dict[str, ModelServer], weight: int, **options: str) -> None:
    wanted = table(weight, **options)  # type: ignore[arg-type]
    made.server.publish(wanted, {name: (server.endpoint,) for name, server in servers.items()})
    await made.effective(wanted)


async def get(
    made: Fleet, target: str, gateway: Gateway | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    gateway = gateway or made.gateways[0]
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with made.session.get(gateway.url + target, headers=sent) as response:
        return response.status, dict(response.headers), await response.text()
