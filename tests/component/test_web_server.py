"""The web view's server, asked by a real client: who gets what, what is sent when, and its limits."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kohort.cli.viewing import HOSTS, KeyGate
from kohort.web import connections, server, stream
from kohort.web.server import ViewServer
from tests.view_parts import KEY, Simulated, many, rolling, shown

BEARER = {"Authorization": f"Bearer {KEY}"}
EVENTS = {**BEARER, "Accept": "text/event-stream"}
PATIENCE = 20.0


@pytest_asyncio.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


async def event(answer: aiohttp.ClientResponse) -> tuple[str, Any]:
    """The next event of a stream."""
    lines = []
    while (line := (await answer.content.readline()).decode()) != "\n":
        assert line, "the stream ended"
        lines.append(line)
    fields = dict(line.rstrip("\n").split(": ", 1) for line in lines if not line.startswith(":"))
    return (fields["event"], json.loads(fields["data"])) if fields else await event(answer)


async def test_without_a_key_the_page_is_there_and_no_rollout(
    client: aiohttp.ClientSession,
) -> None:
    async with shown(rolling()) as root:
        for path in ("/", "/index.html", "/view.css", "/view.js", "/pages.js", "/charts.js"):
            assert (await client.get(root + path)).status == 200
        for path in ("/api/models", "/api/models/shop/burger", "/api/models/shop/none"):
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": f"Basic {KEY}"},
            ):
                answer = await client.get(root + path, headers=headers)
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                assert (await answer.json()).keys() == {"message"}
        # A key in the address would stand in logs and histories.
        assert (await client.get(f"{root}/api/models?token={KEY}&key={KEY}")).status == 401


async def test_every_answer_tells_browsers_to_run_and_load_nothing_else(
    client: aiohttp.ClientSession,
) -> None:
    async with shown(rolling()) as root:
        for path in ("/", "/view.js", "/nothing", "/api/models", "/api/models/shop/burger"):
            for headers in ({}, EVENTS):
                async with client.get(root + path, headers=headers) as answer:
                    policy = answer.headers["Content-Security-Policy"]
                    assert policy.startswith("default-src 'none'")
                    assert "unsafe" not in policy
                    assert "frame-ancestors 'none'" in policy
                    assert answer.headers["X-Content-Type-Options"] == "nosniff"
                    assert "Set-Cookie" not in answer.headers
                    kept = "no-cache" if path in ("/", "/view.js") else "no-store"
                    assert answer.headers["Cache-Control"] == kept


async def test_it_only_shows(client: aiohttp.ClientSession) -> None:
    async with shown(rolling()) as root:
        for method in ("HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = await client.request(method, f"{root}/api/models/shop/burger", headers=BEARER)
            assert answer.status == 405


async def test_a_rollout_is_told_in_the_words_of_kubectl(client: aiohttp.ClientSession) -> None:
    async with shown(rolling()) as root:
        told = (await (await client.get(f"{root}/api/models/shop/burger", headers=BEARER)).json())[
            "model"
        ]
    assert told["phase"] == "Analyzing"
    staff, shops, everyone = told["cohorts"]
    assert (staff["phase"], shops["phase"], everyone["phase"]) == ("Stable", "Analyzing", "Waiting")
    assert shops["why"].startswith("eu-shops has 25% of its clients on v2 (step 2 of 3)")
    errors = shops["evidence"][0]
    assert {border["kind"] for border in errors["borders"]} == {"harm", "proof"}
    assert all(0 <= p <= 100 for border in errors["borders"] for p in border["percent"])
    assert [point["weight"] for point in shops["weights"]][-3:] == [0, 5, 25]
    assert staff["decisions"][0]["action"] == "Promoted"
    assert [pod["state"] for r in told["revisions"] for pod in r["pods"]].count("Ready") == sum(
        r["ready"] for r in told["revisions"]
    )


async def test_changes_are_sent_when_they_come_and_nothing_when_there_are_none(
    client: aiohttp.ClientSession,
) -> None:
    world = rolling()
    async with (
        shown(world) as root,
        client.get(f"{root}/api/models/shop/burger", headers=EVENTS) as answer,
    ):
        assert answer.headers["Content-Type"] == "text/event-stream"
        name, first = await event(answer)
        assert (name, first["news"]) == ("seen", [])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event(answer), 1.5)
    async with (
        shown(world) as root,
        client.get(f"{root}/api/models/shop/burger", headers=EVENTS) as answer,
    ):
        await event(answer)
        while world.clusters["burger"].cohort("eu-shops").weight < 50:
            world.tick("burger")
        _, second = await event(answer)
        assert any("50%" in line for line in second["news"])
        world.clusters.pop("burger")
        world.clock = "pizza"
        world.feed.changed("shop", "burger")
        assert (await event(answer))[0] == "gone"
        assert await answer.content.read() == b""


async def test_a_server_that_stops_says_so_and_lets_nobody_hang(
    client: aiohttp.ClientSession,
) -> None:
    async with shown(rolling()) as root:
        answer = await client.get(f"{root}/api/models", headers=EVENTS)
        assert (await event(answer))[0] == "seen"
    assert (await event(answer))[0] == "restarting"


async def test_of_very_many_rollouts_the_first_are_listed_and_others_are_searched_for(
    client: aiohttp.ClientSession,
) -> None:
    async with shown(many(server.MOST_ROWS + 20)) as root:
        told = await (await client.get(f"{root}/api/models", headers=BEARER)).json()
        assert (len(told["models"]), told["more"]) == (server.MOST_ROWS, 20)
        query = {"search": "MODEL-516", "namespace": "shop"}
        told = await (await client.get(f"{root}/api/models", headers=BEARER, params=query)).json()
        assert ([m["name"] for m in told["models"]], told["more"]) == (["model-516"], 0)


@pytest.mark.parametrize(
    "query",
    [
        {"minutesEast": "900"},
        {"minutesEast": "1e2"},
        {"minutesEast": "²"},
        {"minutesEast": "--1"},
        {"minutesEast": "9" * 5000},
    ],
)
async def test_a_zone_that_is_none_is_refused(
    client: aiohttp.ClientSession, query: dict[str, str]
) -> None:
    async with shown(rolling()) as root:
        url = f"{root}/api/models/shop/burger"
        assert (await client.get(url, headers=BEARER, params=query)).status == 400


async def test_times_are_told_in_the_readers_zone(client: aiohttp.ClientSession) -> None:
    async with shown(rolling()) as root:
        whens = []
        for minutes in ("0", "330"):
            answer = await client.get(
                f"{root}/api/models/shop/burger?minutesEast={minutes}", headers=BEARER
            )
            whens.append((await answer.json())["model"]["cohorts"][0]["decisions"][0]["when"])
        (hour, minute), (other_hour, other_minute) = (
            map(int, when.split(" ")[-1].split(":")[:2]) for when in whens
        )
        assert (other_hour * 60 + other_minute - hour * 60 - minute) % 1440 == 330


async def test_one_person_has_so_many_streams_and_no_more(client: aiohttp.ClientSession) -> None:
    async with shown(rolling()) as root:
        streams = [
            await client.get(f"{root}/api/models", headers=EVENTS)
            for _ in range(server.MOST_STREAMS_OF_ONE)
        ]
        assert {s.status for s in streams} == {200}
        refused = await client.get(f"{root}/api/models", headers=EVENTS)
        assert refused.status == 429
        assert int(refused.headers["Retry-After"]) > 0
        assert (await client.get(f"{root}/api/models", headers=BEARER)).status == 200
        streams.pop().close()
        for _ in range(100):
            if (await client.get(f"{root}/api/models", headers=EVENTS)).status == 200:
                break
            await asyncio.sleep(0.2)
        else:
            raise AssertionError("the place of a stream that ended stays taken")


async def test_whoever_does_not_read_is_left_after_a_while(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_STREAMS_OF_ONE", 1)
    monkeypatch.setattr(server, "LIST_PACE_SECONDS", 0.005)
    monkeypatch.setattr(stream, "WRITE_SECONDS", 0.5)
    world = many(server.MOST_ROWS)
    async with shown(world) as root:
        with socket.create_connection(("127.0.0.1", int(root.rpartition(":")[2]))) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"GET /api/models HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
            deaf.sendall(f"{head}Accept: text/event-stream\r\n\r\n".encode())
            statuses = []
            for number in range(2000):
                world.wrong[:] = [f"something new: {number}"]
                world.feed.changed("shop", "burger")
                await asyncio.sleep(0.02)
                if number % 25 == 24:
                    async with client.get(f"{root}/api/models", headers=EVENTS) as answer:
                        statuses.append(answer.status)
                    if answer.status == 200:
                        break
        assert statuses[0] == 429
        assert statuses[-1] == 200


async def test_only_requests_for_this_machine_are_answered_where_that_is_asked(
    client: aiohttp.ClientSession,
) -> None:
    world = rolling()
    local = ViewServer(world, KeyGate(KEY, ""), world.feed, world.seen, hosts=HOSTS)
    port = await local.start("127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{port}/"
        assert (await client.get(url)).status == 200
        # A page of another site that makes its own name point here.
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
            assert (await client.get(url, headers={"Host": host})).status == 421
    finally:
        await local.stop()


async def test_connections_that_say_nothing_are_closed_and_others_are_not(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)
    async with shown(rolling()) as root:
        events = await client.get(f"{root}/api/models", headers=EVENTS)
        await event(events)
        port = int(root.rpartition(":")[2])
        for said in (b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            writer.close()
        assert (await client.get(root)).status == 200
        assert not events.content.at_eof()


async def test_of_too_many_silent_connections_the_oldest_go(
    client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)
    async with shown(rolling()) as root:
        port = int(root.rpartition(":")[2])
        silent = []
        for _ in range(8):
            silent.append(await asyncio.open_connection("127.0.0.1", port))
            await asyncio.sleep(0.15)
        assert await asyncio.wait_for(silent[0][0].read(), 5) == b""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(silent[-1][0].read(), 0.5)
        for _, writer in silent:
            writer.close()


async def test_headers_that_are_too_long_are_refused(client: aiohttp.ClientSession) -> None:
    async with shown(rolling()) as root:
        answer = await client.get(f"{root}/api/models", headers={"Authorization": "B" * 20_000})
        assert answer.status == 400


async def test_what_is_wrong_with_the_source_is_told(client: aiohttp.ClientSession) -> None:
    world: Simulated = rolling()
    world.wrong.append("nobody answers")
    async with shown(world) as root:
        for path in ("/api/models", "/api/models/shop/burger"):
            told = await (await client.get(root + path, headers=BEARER)).json()
            assert told["problems"] == ["nobody answers"]
