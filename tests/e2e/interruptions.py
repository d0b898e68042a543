"""What stands between an operator and the world so that it can be ended at a chosen moment.

Two proxies that count: one before the API server, one before the gateways' stream of routes. Each ends
the operator when the chosen call or push has had its effect, before the operator can do anything else.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from aiohttp import web
from yarl import URL

from kohort.kube import Server
from kohort.route.envoy.certificates import OPERATOR_NAME
from kohort.route.envoy.identity import Identity
from kohort.route.envoy.server import METHOD, SERVICE

LOCALHOST = "127.0.0.1"
_CALL = f"/{SERVICE}/{METHOD}"
_HOP_BY_HOP = frozenset({"host", "connection", "accept-encoding", "content-length"})
_STREAM = [
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.so_reuseport", 0),
]


class Fuse:
    """Counts, and at a chosen number ends something, once."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._at = 0
        self.count = 0
        self.blown = False

    def set(self, at: int) -> None:
        """Count from here, and end at the ``at``-th time; 0: never."""
        self._at, self.count, self.blown = at, 0, False

    def tick(self) -> bool:
        """One more; returns whether this was the one."""
        self.count += 1
        if self.count != self._at:
            return False
        self.blown = True
        self._end()
        return True


class ApiProxy:
    """Plain HTTP for one operator, on to the API server with an administrator's rights.

    Counted is every call but those about the lease, which come with time and not with a rollout, and
    the beginnings of watches. The answer to the call at which ``fuse`` ends the operator is not
    given: the API server has done what it was asked to, and the operator does not know.
    """

    def __init__(self, server: Server, fuse: Fuse) -> None:
        self._server = server
        self._fuse = fuse
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self, port: int) -> None:
        """Listen."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._server.tls()),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        )
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._forward)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOCALHOST, port).start()

    async def stop(self) -> None:
        """Close everything."""
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        watch = request.query.get("watch", "") not in ("", "0", "false")
        async with self._session.request(
            request.method,
            URL(self._server.url + request.raw_path, encoded=True),
            data=await request.read() or None,
            headers=headers,
        ) as answer:
            content = b"" if watch else await answer.read()
            counted = not watch and "/leases" not in request.path
            if counted and self._fuse.tick() and request.transport is not None:
                request.transport.abort()
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                if watch:
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                else:
                    await response.write(content)
                await response.write_eof()
            return response


def plain_kubeconfig(path: Path, port: int) -> Path:
    """A kubeconfig for an API server on plain HTTP that asks for no credentials."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        "clusters": [{"name": "proxy", "cluster": {"server": f"http://{LOCALHOST}:{port}"}}],
        "users": [{"name": "proxy", "user": {}}],
    }
    path.write_text(json.dumps(config))
    return path


class RouteProxy:
    """The gateways' stream to one operator, message by message, with both sides' own certificates.

    Counted is each message of the operator once the gateway was handed it.
    """

    def __init__(self, target: int, operator: Identity, gateway: Identity, fuse: Fuse) -> None:
        self._target = f"{LOCALHOST}:{target}"
        self._operator = operator
        self._credentials = grpc.ssl_channel_credentials(
            gateway.authority, gateway.key, gateway.certificate
        )
        self._fuse = fuse
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int) -> None:
        """Listen."""
        self._server = grpc.aio.server(options=_STREAM)
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
        )
        credentials = grpc.ssl_server_credentials(
            [(self._operator.key, self._operator.certificate)],
            self._operator.authority,
            require_client_auth=True,
        )
        self._server.add_secure_port(f"{LOCALHOST}:{port}", credentials)
        await self._server.start()

    async def stop(self) -> None:
        """Close all streams."""
        if self._server:
            await self._server.stop(0)

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> None:
        options = [("grpc.ssl_target_name_override", OPERATOR_NAME)]
        async with grpc.aio.secure_channel(self._target, self._credentials, options) as channel:
            call = channel.stream_stream(_CALL)(requests)
            try:
                async for message in call:
                    await context.write(message)
                    self._fuse.tick()
            except grpc.aio.AioRpcError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, error.details() or "")
