"""The connection to the API server: keys stay out of files, and only a leader may write."""

from __future__ import annotations

import asyncio
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from kohort.kube import JSON, ApiError, Fenced, Kube, Server, from_kubeconfig, resource_of
from kohort.observe import informer
from kohort.observe.informer import Informer
from kohort.observe.objects import Record, parse_record
from kohort.observe.store import Store
from kohort.route.envoy.certificates import authority


class Recording:
    """An API server that takes everything."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        self.calls.append(f"{method} {path}")
        return b"{}"


async def test_a_call_is_made_only_while_it_is_allowed() -> None:
    server, leads = Recording(), True
    fenced = Fenced(server, lambda: leads)
    assert await fenced.call("PATCH", "/a") == b"{}"
    leads = False
    with pytest.raises(ApiError):
        await fenced.call("PATCH", "/b")
    assert server.calls == ["PATCH /a"]


@asynccontextmanager
async def answering(port: int, status: Callable[[], int] = lambda: 200) -> AsyncIterator[int]:
    """A server of empty lists on 127.0.0.1; yields its port (0: any that is free)."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": "1"}}, status=status())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def deaf(kube: Kube) -> None:
    """A call that nobody answers."""
    with pytest.raises(ApiError) as error:
        await kube.call("GET", "/api/v1/nodes")
    assert error.value.status == 0


@pytest.mark.parametrize("status", [200, 403, 503])
async def test_whoever_waits_for_a_server_that_is_away_goes_on_when_it_is_back(status: int) -> None:
    async with answering(0) as port:
        pass
    async with Kube(Server(f"http://127.0.0.1:{port}")) as kube, asyncio.timeout(20):
        await deaf(kube)
        waiting = asyncio.create_task(kube.pause(3600))
        await deaf(kube)
        assert not waiting.done()
        async with answering(port, lambda: status):
            with suppress(ApiError):
                await kube.call("GET", "/api/v1/nodes")
            await waiting


async def test_an_answer_after_an_answer_wakes_nobody() -> None:
    async with answering(0) as port, Kube(Server(f"http://127.0.0.1:{port}")) as kube:
        back = asyncio.create_task(kube.back())
        await kube.call("GET", "/api/v1/nodes")
        await kube.call("GET", "/api/v1/nodes")
        await asyncio.sleep(0)
        assert not back.done()
        back.cancel()


async def test_a_cache_is_filled_as_soon_as_the_server_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would try again in an hour, were it not told."""
    monkeypatch.setattr(informer, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(informer, "LONGEST_PAUSE_UNREACHABLE", 3600.0)
    async with answering(0) as port:
        pass
    store: Store[Record] = Store(lambda key: None)
    async with Kube(Server(f"http://127.0.0.1:{port}")) as kube, asyncio.timeout(20):
        following = Informer(kube, store, "/apis/apps/v1/controllerrevisions", parse_record)
        task = asyncio.create_task(following.run())
        while not kube.silent:  # noqa: ASYNC110 — it is the informer that finds out
            await asyncio.sleep(0.01)
        async with answering(port):
            await kube.call("GET", "/api/v1/nodes")
            await following.synced.wait()
            task.cancel()


def test_embedded_keys_leave_no_file_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority(None, datetime.now(UTC))
    certificate, key = files["tls.crt"], files["tls.key"]
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": "https://h:1",
                    "certificate-authority-data": b64encode(certificate).decode(),
                },
            }
        ],
        "users": [
            {
                "name": "u",
                "user": {
                    "client-certificate-data": b64encode(certificate).decode(),
                    "client-key-data": b64encode(key).decode(),
                },
            }
        ],
    }
    path = tmp_path / "kubeconfig"
    path.write_bytes(msgspec.json.encode(config))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    server = from_kubeconfig(path)
    assert server.tls().get_ca_certs()
    assert not list(scratch.iterdir())
    assert key.decode() not in repr(server)


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/namespaces/shop", "namespaces"),
        ("/api/v1/namespaces/shop/pods/a-1", "pods"),
        ("/apis/apps/v1/deployments", "deployments"),
        ("/apis/kohort.dev/v1alpha1/namespaces/shop/modeldeployments/x", "modeldeployments"),
        (
            "/apis/kohort.dev/v1alpha1/namespaces/shop/modeldeployments/x/status",
            "modeldeployments/status",
        ),
    ],
)
def test_calls_are_counted_by_resource_and_subresource(path: str, resource: str) -> None:
    assert resource_of(path) == resource
