"""The node's own API, through which `kubectl logs` reads."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

from aiohttp import web

from kohort_local.node.agent import Agent
from kohort_local.node.container import Container
from kohort_local.node.logfile import Selection, parse_time
from kohort_local.node.settings import Settings

_LOOK_SECONDS = 0.1


def _tls(pki: Path) -> ssl.SSLContext:
    """Only the API server may ask: it alone has a certificate of this authority for that."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "ca.crt")
    context.load_cert_chain(pki / "kubelet.crt", pki / "kubelet.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def selection(query: dict[str, str]) -> Selection:
    """Which lines a request for a log asks for.

    Raises:
        ValueError: a value is not what it should be.
    """
    since = parse_time(query["sinceTime"]) if "sinceTime" in query else None
    if "sinceSeconds" in query:
        ago = datetime.timedelta(seconds=int(query["sinceSeconds"]))
        since = datetime.datetime.now(datetime.UTC) - ago
    return Selection(
        tail=int(query["tailLines"]) if "tailLines" in query else None,
        since=since,
        timestamps=query.get("timestamps") == "true",
    )


class LogServer:
    """Serves the logs of the node's containers."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def container_logs(self, request: web.Request) -> web.StreamResponse:
        """Answer GET /containerLogs/NAMESPACE/POD/CONTAINER."""
        found = request.match_info
        pod = self._agent.find(found["namespace"], found["pod"])
        named = [c for c in pod.containers if c.name == found["container"]] if pod else []
        if not named or not named[0].container_id:
            return web.Response(status=400, text="the container has not been started here\n")
        container, query = named[0], dict(request.query)
        try:
            wanted = selection(query)
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        run = container.restarts - (query.get("previous") == "true")
        path = container.log_file(run)
        if not path.exists():
            text = f"previous terminated container {container.name} not found\n"
            return web.Response(status=400, text=text)
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        limit = int(query["limitBytes"]) if "limitBytes" in query else None
        with path.open("rb") as file:
            shown = b"".join(wanted.select(file))[:limit]
            await response.write(shown)
            if query.get("follow") == "true":
                await _follow(response, file, wanted, container, run)
        await response.write_eof()
        return response


async def _follow(
    response: web.StreamResponse,
    file: object,
    wanted: Selection,
    container: Container,
    run: int,
) -> None:
    """Write what is appended until the container's run is over."""
    readline = file.readline  # type: ignore[attr-defined]
    while True:
        over = container.restarts != run or not container.running
        while line := readline():
            if (shown := wanted.render(line)) is not None:
                await response.write(shown)
        if over:
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def start(settings: Settings, agent: Agent) -> web.AppRunner:
    """Serve the node's API; clean the answer up to end.

    Raises:
        OSError: the port is taken.
    """
    logs = LogServer(agent)
    application = web.Application()
    application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs.container_logs)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    tls = _tls(settings.pki)
    await web.TCPSite(runner, settings.address, settings.port, ssl_context=tls).start()
    return runner
