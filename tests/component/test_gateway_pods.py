"""Pods that die, or are not there: what clients of a gateway notice."""

from __future__ import annotations

import asyncio

from kohort.analysis.split import canary_order
from kohort.contract import SLOTS
from kohort.route.table import Endpoint, ModelKey
from tests.client_slots import slot_of
from tests.component.gateway_parts import (
    LOCALHOST,
    Fleet,
    ModelServer,
    get,
    table,
    until,
)


class DyingPod:
    """Takes requests and answers none, until it dies with all of them."""

    def __init__(self) -> None:
        self.held: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    @classmethod
    async def start(cls) -> DyingPod:
        """One that listens."""
        pod = cls()
        pod._server = await asyncio.start_server(pod._hold, LOCALHOST, 0)
        return pod

    async def _hold(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.held.append(writer)

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        assert self._server
        return Endpoint(LOCALHOST, self._server.sockets[0].getsockname()[1])

    def die(self) -> None:
        """Listen no more, and break every connection."""
        assert self._server
        self._server.close()
        for writer in self.held:
            writer.transport.abort()


async def test_requests_under_way_on_a_pod_that_dies_are_all_answered_by_another(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    dying = await DyingPod.start()
    pods = (servers["r1"].endpoint, dying.endpoint)
    wanted = table(0, key=ModelKey("shop", "dying"))
    two.server.publish(wanted, {"r1": pods})
    await two.effective(wanted)
    before = servers["r1"].requests.total()

    async def ask(number: int) -> int:
        headers = {"x-client-id": f"c{number}", "x-wait": "2"}
        url = f"{two.gateways[0].url}/shop/dying/v2"
        async with two.session.get(url, headers=headers) as response:
            return response.status

    async def under_way() -> bool:
        return servers["r1"].requests.total() - before + len(dying.held) >= 80

    asking = [asyncio.create_task(ask(number)) for number in range(80)]
    await until(under_way)
    assert len(dying.held) > 20
    dying.die()
    assert [await each for each in asking] == [200] * 80
    two.server.withdraw(wanted.key)


async def test_a_canary_whose_only_pod_dies_loses_no_request_and_stable_answers_as_itself(
    two: Fleet, servers: dict[str, ModelServer]
) -> None:
    dying = await DyingPod.start()
    wanted = table(50, key=ModelKey("shop", "alone"), canary="dying")
    two.server.publish(wanted, {"r1": (servers["r1"].endpoint,), "dying": (dying.endpoint,)})
    await two.effective(wanted)
    canary = canary_order("salt")[: SLOTS // 2]
    clients = [f"c{number}" for number in range(200) if slot_of(f"c{number}") in canary]

    async def ask(client: str) -> tuple[int, str]:
        url, headers = f"{two.gateways[0].url}/shop/alone/v2", {"x-client-id": client}
        async with two.session.get(url, headers=headers) as response:
            return response.status, response.headers["x-kohort-revision"]

    async def under_way() -> bool:
        return len(dying.held) == len(clients)

    asking = [asyncio.create_task(ask(client)) for client in clients]
    await until(under_way)
    dying.die()
    assert [await each for each in asking] == [(200, "r1")] * len(clients)
    # Nobody knows yet that the pod is gone.
    assert [await ask(client) for client in clients] == [(200, "r1")] * len(clients)
    two.server.withdraw(wanted.key)


async def test_no_pod_is_told_in_json_with_the_revision(two: Fleet) -> None:
    key = ModelKey("shop", "empty")
    wanted = table(0, key=key, canary="")
    two.server.publish(wanted, {})
    await two.effective(wanted)
    status, headers, body = await get(two, "/shop/empty/v2")
    assert (status, headers["x-kohort-revision"]) == (503, "r1")
    assert '"error"' in body
