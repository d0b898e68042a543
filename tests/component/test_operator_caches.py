"""Caches against a real API server: they follow it, also over what they did not see."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from kohort.kube import APPLY, ApiError, Kube, from_kubeconfig
from kohort.observe.informer import Informer
from kohort.observe.listing import list_all
from kohort.observe.objects import Record, parse_record
from kohort.observe.store import Store
from kohort.observe.wire import Metadata
from kohort.route.table import ModelKey
from kohort_local.cluster import Cluster

KEY = ModelKey("default", "cached")
PATH = "/apis/apps/v1/namespaces/default/controllerrevisions"
SELECTOR = {"labelSelector": "kohort.dev/model=cached"}


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    async with Kube(from_kubeconfig(cluster.kubeconfig)) as connection:
        yield connection


@pytest.fixture
async def store(kube: Kube) -> AsyncIterator[Store[Record]]:
    """An empty cache; what a test leaves in the cluster is deleted."""
    yield Store(lambda key: None)
    await kube.call("DELETE", PATH, params=SELECTOR)


async def record(kube: Kube, name: str, number: int = 1) -> Record:
    body = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "labels": {"kohort.dev/model": "cached"}},
        "revision": number,
        "data": {},
    }
    params = {"fieldManager": "test", "force": "true"}
    answer = await kube.call(
        "PATCH", f"{PATH}/{name}", params=params, body=body, content_type=APPLY
    )
    return parse_record(answer)


@contextlib.asynccontextmanager
async def following(kube: Kube, store: Store[Record]) -> AsyncIterator[Informer[Record]]:
    informer = Informer(kube, store, PATH, parse_record, selector=SELECTOR)
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(30):
            await informer.synced.wait()
        yield informer
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not look():  # noqa: ASYNC110 — the other side is another process
            await asyncio.sleep(0.01)


async def test_what_was_there_and_what_comes_is_known(kube: Kube, store: Store[Record]) -> None:
    await record(kube, "cached-1")
    async with following(kube, store):
        assert store.of(KEY).keys() == {"cached-1"}
        await record(kube, "cached-2")
        await until(lambda: store.of(KEY).keys() == {"cached-1", "cached-2"})
        await record(kube, "cached-2", number=5)
        await until(lambda: store.of(KEY)["cached-2"].number == 5)
        await kube.call("DELETE", f"{PATH}/cached-1")
        await until(lambda: store.of(KEY).keys() == {"cached-2"})


async def test_a_deletion_that_nobody_watched_is_found_out(
    kube: Kube, store: Store[Record]
) -> None:
    await record(kube, "cached-1")
    await record(kube, "cached-2")
    async with following(kube, store):
        pass
    await kube.call("DELETE", f"{PATH}/cached-1")
    async with following(kube, store):
        assert store.of(KEY).keys() == {"cached-2"}


async def test_the_watch_outlives_the_api_server(
    kube: Kube, store: Store[Record], cluster: Cluster
) -> None:
    async with following(kube, store):
        await asyncio.to_thread(cluster.restart, "kube-apiserver")
        await record(kube, "cached-1")
        await until(lambda: store.of(KEY).keys() == {"cached-1"})


async def test_lists_longer_than_a_page_are_whole(kube: Kube, store: Store[Record]) -> None:
    await asyncio.gather(*(record(kube, f"cached-{number}") for number in range(230)))
    found, version = await list_all(kube, PATH, SELECTOR, parse_record)
    assert {r.name for r in found} == {f"cached-{number}" for number in range(230)}
    assert int(version) >= max(r.version for r in found)


async def test_a_call_that_is_refused_says_why(kube: Kube) -> None:
    with pytest.raises(ApiError) as refused:
        await kube.call("GET", f"{PATH}/nobody")
    assert refused.value.status == 404
    assert "nobody" in refused.value.message


async def test_a_write_over_a_later_one_is_a_conflict(kube: Kube, store: Store[Record]) -> None:
    old = await record(kube, "cached-1")
    await record(kube, "cached-1", number=2)
    body = msgspec.json.decode(await kube.call("GET", f"{PATH}/cached-1"))
    body["metadata"]["resourceVersion"] = str(old.version)
    with pytest.raises(ApiError) as refused:
        await kube.call("PUT", f"{PATH}/cached-1", body=body)
    assert refused.value.status == 409


async def test_a_server_that_is_not_there_is_an_error_and_no_hang(tmp_path: Path) -> None:
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_bytes(msgspec.json.encode(config))
    async with Kube(from_kubeconfig(path)) as nowhere:
        with pytest.raises(ApiError) as refused:
            await nowhere.call("GET", "/")
    assert refused.value.status == 0


def test_versions_of_objects_are_compared_as_numbers() -> None:
    assert Metadata(resource_version="10").version > Metadata(resource_version="9").version
