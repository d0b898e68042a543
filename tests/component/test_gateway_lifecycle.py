"""A gateway's life: not ready too early, drained without loss, going on without its operator."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aiohttp

from kohort.route.envoy.certificates import authority, gateway_files, operator_files
from kohort.route.envoy.identity import Identity
from kohort.route.envoy.resource import Kind
from kohort.route.envoy.scopes import routes_name
from kohort.route.envoy.server import RouteServer
from kohort.route.table import Endpoint, ModelKey, RouteTable
from tests.component.gateway_parts import (
    KEY,
    LOCALHOST,
    Certificates,
    Fleet,
    ModelServer,
    fleet,
    free_port,
    start_gateway,
    table,
    until,
)

PATH = f"/{KEY.namespace}/{KEY.name}/v2"


def endpoints(servers: dict[str, ModelServer]) -> dict[str, tuple[Endpoint, ...]]:
    return {name: (server.endpoint,) for name, server in servers.items()}


@dataclass
class Load:
    """Clients that go on asking, each on a connection of its own, and what they were answered."""

    session: aiohttp.ClientSession
    url: str
    answers: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    async def client(self, number: int) -> None:
        while not self.stopped:
            headers = {"x-client-id": f"client-{number}", "x-wait": "0.002"}
            try:
                async with self.session.get(self.url, headers=headers) as response:
                    body = await response.json()
                    self.answers[f"{response.status} {body.get('revision', '')}"] += 1
            except aiohttp.ClientError as error:
                self.answers[repr(error)] += 1

    async def more(self, number: int) -> None:
        """Wait until that many more requests were answered."""
        wanted = self.answers.total() + number

        async def answered() -> bool:
            return self.answers.total() >= wanted

        await until(answered)

    @property
    def lost(self) -> dict[str, int]:
        return {answer: n for answer, n in self.answers.items() if not answer.startswith("200")}


@dataclass
class Door:
    """A port that leads to another one, once there is one, and counts who comes."""

    port: int
    behind: int = 0
    visits: int = 0

    async def knocked(self, times: int = 1) -> bool:
        return self.visits >= times

    async def let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        if not self.behind:
            writer.close()
            return
        there, back = await asyncio.open_connection(LOCALHOST, self.behind)
        await asyncio.gather(_carry(reader, back), _carry(there, writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def door(behind: int = 0) -> AsyncIterator[Door]:
    made = Door(free_port(), behind)
    server = await asyncio.start_server(made.let_in, LOCALHOST, made.port)
    try:
        yield made
    finally:
        server.close()


@asynccontextmanager
async def load(url: str, clients: int = 16) -> AsyncIterator[Load]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        made = Load(session, url)
        tasks = [asyncio.create_task(made.client(number)) for number in range(clients)]
        try:
            yield made
        finally:
            made.stopped = True
            await asyncio.gather(*tasks)


async def test_a_gateway_is_not_ready_before_its_first_configuration(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    certificates = Certificates(tmp_path / "tls").issue()
    server = RouteServer()
    server.publish(table(0, canary=""), endpoints(servers))
    async with door() as entrance, aiohttp.ClientSession() as session:
        gateway = await start_gateway(entrance.port, certificates.directory)
        try:
            await until(entrance.knocked)
            assert not await gateway.ready(session)
            entrance.behind = await server.start(LOCALHOST, free_port(), certificates.identity)
            await until(lambda: gateway.ready(session))
            async with session.get(gateway.url + PATH) as response:
                assert response.status == 200, "ready means that it knows every model"
        finally:
            await gateway.kill()
            await server.stop(0)


async def test_a_weight_that_flips_under_load_loses_nothing(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made:
        made.server.publish(table(0), endpoints(servers))
        await made.effective(table(0))
        async with load(made.gateways[0].url + PATH) as clients:
            for weight in (5, 25, 50, 100, 0) * 4:
                made.server.publish(table(weight), endpoints(servers))
                await made.effective(table(weight))
                await clients.more(50)
        assert clients.lost == {}
        assert clients.answers["200 r2"] > 0


async def test_a_prepared_table_is_met_by_nobody_until_it_is_published(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made, aiohttp.ClientSession() as session:
        for now, following in ((0, 100), (100, 0), (0, 100)):
            made.server.publish(table(now), endpoints(servers))
            await made.effective(table(now))
            made.server.prepare(table(following), endpoints(servers))
            await until(partial(holds, made, table(following)))
            expected = "r2" if now else "r1"
            for path in (PATH, f"/{KEY}/stage/v2", f"/{KEY.namespace}%2F{KEY.name}/stage/v2/m"):
                for _ in range(20):
                    async with session.get(made.gateways[0].url + path) as response:
                        known = response.headers.get("x-kohort-revision")
                        assert known == (expected if path == PATH else None)


async def holds(made: Fleet, wanted: RouteTable) -> bool:
    """Whether every gateway has acknowledged a table, served or not."""
    name = routes_name(wanted.key, wanted.version)
    exchanges = [stream.exchange for stream in made.server._streams]
    return all(name in e._known[wanted.key].held[Kind.ROUTES] for e in exchanges)


async def test_revisions_that_come_and_go_under_load_lose_nothing(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made:
        both = {"a": (servers["r1"].endpoint,), "b": (servers["r2"].endpoint,)}
        made.server.publish(table(0, stable="a", canary=""), both)
        await made.effective(table(0, stable="a", canary=""))
        async with load(made.gateways[0].url + PATH) as clients:
            for _ in range(10):
                for stable, canary, weight in (
                    ("a", "b", 50),
                    ("b", "", 0),
                    ("b", "a", 50),
                    ("a", "", 0),
                ):
                    wanted = table(weight, stable=stable, canary=canary)
                    made.server.publish(wanted, both)
                    await made.effective(wanted)
                    await clients.more(20)
        assert clients.lost == {}


async def test_a_pod_that_does_not_answer_is_passed_over(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made:
        dead = Endpoint(LOCALHOST, free_port())
        wanted = table(0, canary="")
        made.server.publish(wanted, {"r1": (servers["r1"].endpoint, dead)})
        await made.effective(wanted)
        async with load(made.gateways[0].url + PATH, clients=4) as clients:
            await clients.more(200)
        assert clients.lost == {}


async def test_traffic_goes_on_without_an_operator_and_with_the_next_one(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made:
        made.server.publish(table(5), endpoints(servers))
        await made.effective(table(5))
        async with load(made.gateways[0].url + PATH, clients=4) as clients:
            await made.server.stop(0)
            await clients.more(100)
            second = RouteServer()
            second.publish(table(50), endpoints(servers))
            await second.start(LOCALHOST, made.port, made.certificates.identity)
            await made.effective(table(50))
            second.publish(table(100), endpoints(servers))
            await made.effective(table(100))
            await clients.more(100)
        await second.stop(0)
        assert clients.lost == {}


async def test_what_was_withdrawn_without_an_operator_is_gone_with_the_next_one(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made:
        gone = ModelKey("shop", "gone")
        for key in (KEY, gone):
            made.server.publish(table(5, key=key), endpoints(servers))
            await made.effective(table(5, key=key))
        await made.server.stop(0)
        second = RouteServer()
        second.publish(table(25), endpoints(servers))
        await second.start(LOCALHOST, made.port, made.certificates.identity)

        async def unreachable() -> bool:
            async with made.session.get(f"{made.gateways[0].url}/shop/gone/v2") as response:
                return response.status == 404

        await until(unreachable)
        await made.effective(table(25))
        await second.stop(0)


async def test_a_gateway_that_is_asked_to_stop_finishes_what_it_began(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path, 1, "--drain-delay", "2") as made:
        made.server.publish(table(0, canary=""), endpoints(servers))
        await made.effective(table(0, canary=""))
        gateway = made.gateways[0]
        url = gateway.url + PATH
        async with load(url) as clients:
            await clients.more(200)
            slow = asyncio.create_task(_status(made, url, wait="3"))
            await clients.more(50)
            gateway.process.send_signal(signal.SIGTERM)

            async def leaving() -> bool:
                return not await gateway.ready(made.session)

            await until(leaving)
            await clients.more(100)
        assert clients.lost == {}, "clients that had not yet heard of its end"
        assert await slow == 200, "a request that took longer than the delay"
        assert await gateway.process.wait() == 0


async def _status(made: Fleet, url: str, wait: str) -> int:
    async with made.session.get(url, headers={"x-wait": wait}) as response:
        await response.read()
        return response.status


async def test_the_process_ends_as_its_envoy_does(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made:
        gateway = made.gateways[0]
        gateway.signal_envoy(signal.SIGKILL)
        assert await gateway.process.wait() == 128 + signal.SIGKILL


def running(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_no_envoy_is_left_behind_when_its_parent_is_killed(tmp_path: Path) -> None:
    async with fleet(tmp_path) as made:
        gateway = made.gateways[0]
        envoy = gateway.envoy()
        await gateway.kill()

        async def gone() -> bool:
            return not await asyncio.to_thread(running, envoy)

        await until(gone)


async def test_certificates_are_renewed_without_a_restart(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made:
        made.server.publish(table(5), endpoints(servers))
        await made.effective(table(5))
        now = datetime.now(UTC)
        signer = authority(None, now)
        operator = operator_files(None, signer, (), now)
        made.certificates.write(gateway_files(None, signer, now))
        await made.server.stop(0)
        # A wholly other authority: only a gateway that read its files again can connect.
        second = RouteServer()
        second.publish(table(50), endpoints(servers))
        await second.start(LOCALHOST, made.port, Identity.of(operator))
        await made.effective(table(50))
        await second.stop(0)


async def test_the_operator_shows_a_renewed_certificate_to_new_connections(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made:
        made.server.publish(table(5), endpoints(servers))
        now = datetime.now(UTC)
        signer = authority(None, now)
        made.server.renew(Identity.of(operator_files(None, signer, (), now)))
        made.certificates.write(gateway_files(None, signer, now))
        late = await made.add("gateway-late")
        await made.effective(table(5), late)
        assert set(made.server.gateways) == {"gateway-0", "gateway-late"}


async def test_a_gateway_with_a_foreign_certificate_learns_nothing(
    tmp_path: Path, servers: dict[str, ModelServer]
) -> None:
    async with fleet(tmp_path) as made:
        foreign = Certificates(tmp_path / "foreign")
        now = datetime.now(UTC) - timedelta(days=1)
        files = dict(gateway_files(None, authority(None, now), now))
        files["ca.crt"] = made.certificates.signer["ca.crt"]
        foreign.write(files)
        async with door(behind=made.port) as entrance:
            stranger = await start_gateway(entrance.port, foreign.directory, "stranger")
            made.gateways.append(stranger)
            # Whoever comes a third time was sent away twice.
            await until(lambda: entrance.knocked(3))
            assert "stranger" not in made.server.gateways
            assert not await stranger.ready(made.session)


async def test_routes_are_served_where_pods_have_ipv6_alone(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "tls").issue()
    server = RouteServer()
    port = await server.start("::1", 0, certificates.identity)
    try:
        _, writer = await asyncio.open_connection("::1", port)
        writer.close()
    finally:
        await server.stop(0)
