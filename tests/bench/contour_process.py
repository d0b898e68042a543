"""Contour and its Envoy as processes, on a control plane whose pods have loopback addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import msgspec
import msgspec.yaml

from kohort.gateway.launcher import find_envoy
from kohort.kube import Server
from tests.bench.slices import SlicingServer
from tests.component.operator_parts import free_port

# Kinds that are not of the standard channel, or not in the version that Contour knows.
LEFT_OUT = ("tlsroutes", "tcproutes", "backendtlspolicies")
GATEWAY = {"gateway": {"gatewayRef": {"namespace": "default", "name": "public"}}}


@asynccontextmanager
async def running(server: Server, contour: Path, directory: Path) -> AsyncIterator[None]:
    """Both, for the Gateway default/public; logs and configuration in ``directory``."""
    api, xds = free_port(), free_port()
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0, ssl=server.tls())
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        slicing = SlicingServer(server, session)
        await slicing.start(api)
        stack.push_async_callback(slicing.stop)
        serve = _serve(directory, api, xds)
        await stack.enter_async_context(
            _process(directory / "contour.log", str(contour), "serve", *serve)
        )
        bootstrap = directory / "envoy.json"
        written = await asyncio.create_subprocess_exec(
            str(contour),
            "bootstrap",
            str(bootstrap),
            *_at("xds", xds),
            f"--admin-address={directory / 'admin.sock'}",
        )
        await written.wait()
        await stack.enter_async_context(
            _process(
                directory / "envoy.log",
                find_envoy({}),
                *("--config-path", str(bootstrap)),
                *("--service-cluster", "default", "--service-node", "one"),
                *("--concurrency", "1", "--use-dynamic-base-id"),
            )
        )
        yield


def _serve(directory: Path, api: int, xds: int) -> list[str]:
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        "current-context": "c",
    }
    (directory / "contour.kubeconfig").write_bytes(msgspec.yaml.encode(kubeconfig))
    (directory / "contour.yaml").write_bytes(msgspec.yaml.encode(GATEWAY))
    status = free_port()
    return [
        "--insecure",
        "--disable-leader-election",
        *(f"--disable-feature={kind}" for kind in LEFT_OUT),
        f"--kubeconfig={directory / 'contour.kubeconfig'}",
        f"--config-path={directory / 'contour.yaml'}",
        "--envoy-service-http-address=127.0.0.1",
        *_at("xds", xds),
        *_at("http", status),
        *_at("health", status),
        *_at("debug-http", free_port()),
        *_at("stats", free_port()),
    ]


def _at(what: str, port: int) -> tuple[str, str]:
    return f"--{what}-address=127.0.0.1", f"--{what}-port={port}"


@asynccontextmanager
async def _process(log: Path, *command: str) -> AsyncIterator[None]:
    """A program of which the output goes to ``log``, ended afterwards."""
    with log.open("wb") as output:
        started = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            started.kill()
        await started.wait()
