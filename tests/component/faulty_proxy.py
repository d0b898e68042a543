"""An HTTP proxy before the API server that breaks calls and watches as it is told to."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp
import msgspec
from aiohttp import web

from kohort.kube import Server, resource_of
from tests.component.operator_parts import free_port

HOP_BY_HOP = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass(frozen=True)
class Faults:
    """What goes wrong. ``share`` of calls (whose path matches ``only``) is answered with one of
    ``codes``, half of them after the call was taken. ``calls_per_second``: beyond it calls are answered
    429 with Retry-After. Watches end after ``watch_seconds``, with an event of ``watch_error``, if any.
    """

    share: float = 0.0
    codes: tuple[int, ...] = ()
    calls_per_second: float = float("inf")
    watch_seconds: float = float("inf")
    watch_error: int = 0
    only: str = ""


NONE = Faults()


@dataclass
class _Bucket:
    """Tokens for calls; as many as one second's may be saved."""

    tokens: float = 0.0
    at: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def take(self, rate: float) -> bool:
        now = asyncio.get_running_loop().time()
        self.tokens = min(rate, self.tokens + (now - self.at) * rate) if rate < 1e9 else 1.0
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class FaultyProxy:
    """Listens on 127.0.0.1 without TLS, in a thread of its own; ``faults`` may be set at any time.

    ``answered``: by whom (the proxy or the server) and with which status. ``written``: when (by the
    monotonic clock) the server last took a write of each resource.
    """

    def __init__(self, server: Server, seed: int = 5) -> None:
        self.faults = NONE
        self.answered: Counter[tuple[str, int]] = Counter()
        self.written: dict[str, float] = {}
        self.port = free_port()
        self._server = server
        self._chance = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where an operator finds it."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        self._runner = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    async def _start(self) -> web.AppRunner:
        self._bucket = _Bucket()
        self._session = aiohttp.ClientSession(
            self._server.url,
            connector=aiohttp.TCPConnector(ssl=self._server.tls(), limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
        )
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        return runner

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        faults = self.faults
        if not self._bucket.take(faults.calls_per_second):
            return self._fail(429, {"Retry-After": "1"})
        code = 0
        hit = faults.codes and re.search(faults.only, request.path)
        if hit and self._chance.random() < faults.share:
            code = self._chance.choice(faults.codes)
            # A conflict was never taken; after any other trouble nobody knows.
            if code == 409 or self._chance.random() < 0.5:
                return self._fail(code)
        try:
            answer = await self._forward(request, faults)
        except (aiohttp.ClientError, TimeoutError, OSError):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502)  # nobody hears it any more
        return self._fail(code) if code and not answer.prepared else answer

    async def _forward(self, request: web.Request, faults: Faults) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        async with self._session.request(
            request.method, request.raw_path, headers=headers, data=await request.read() or None
        ) as answer:
            self.answered["server", answer.status] += 1
            if request.method != "GET" and answer.status < 300:
                self.written[resource_of(request.path)] = time.monotonic()
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            if request.query.get("watch", "") in ("1", "true") and answer.status == 200:
                return await self._stream(request, answer, kept, faults)
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    async def _stream(
        self,
        request: web.Request,
        answer: aiohttp.ClientResponse,
        headers: dict[str, str],
        faults: Faults,
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=200, headers=headers)
        await response.prepare(request)
        limit = None if faults.watch_seconds == float("inf") else faults.watch_seconds
        try:
            async with asyncio.timeout(limit):
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
        except TimeoutError:
            if faults.watch_error:
                # Perhaps in the middle of a line: the operator must bear that, too.
                event = {"type": "ERROR", "object": _status(faults.watch_error)}
                await response.write(msgspec.json.encode(event) + b"\n")
        return response

    def _fail(self, status: int, headers: dict[str, str] | None = None) -> web.Response:
        self.answered["proxy", status] += 1
        return web.json_response(_status(status), status=status, headers=headers)


def _status(code: int) -> dict[str, object]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "Injected",
        "message": "injected by a test",
        "code": code,
    }
