"""/healthz, /readyz and /metrics of the operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

Check = Callable[[], str]
"""What is wrong, or nothing."""


async def serve(
    address: str, port: int, *, health: Check, readiness: Check, metrics: Callable[[], bytes]
) -> web.AppRunner:
    """Listens until the returned runner is cleaned up.

    Raises:
        OSError: the address is taken.
    """

    def answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            wrong = check()
            return web.Response(status=503 if wrong else 200, text=f"{wrong or 'ok'}\n")

        return handle

    async def tell(_: web.Request) -> web.Response:
        return web.Response(
            body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    app = web.Application()
    app.router.add_get("/healthz", answer(health))
    app.router.add_get("/readyz", answer(readiness))
    app.router.add_get("/metrics", tell)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, port).start()
    return runner
