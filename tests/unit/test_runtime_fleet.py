"""Which gateways already serve what is intended; nobody is asked twice for the same."""

from __future__ import annotations

from collections.abc import Sequence

from kohort.observe.gateways import GatewayAddress, Unknown
from kohort.observe.objects import Pod
from kohort.observe.store import Store
from kohort.route.table import CohortRoute, ModelKey, RouteTable
from kohort.runtime.fleet import PATIENCE, Fleet

KEY = ModelKey("shop", "burger")


def table(weight: int) -> RouteTable:
    return RouteTable(KEY, "x-client-id", (CohortRoute("everyone", (), "a", "b", weight, "s"),))


class World:
    """Gateways that serve what they are told to, and the questions they were asked."""

    def __init__(self, *names: str) -> None:
        self.serves: dict[str, str | Unknown] = {}
        self.asked: list[str] = []
        self.pods: Store[Pod] = Store(lambda key: None)
        self.acknowledged: list[float] = []
        self.fleet = Fleet(self.pods, self.answer, self.acknowledged.append)
        for name in names:
            self.gateway(name)

    def gateway(
        self, name: str, *, ready: bool = True, restarts: int = 0, version: int = 1
    ) -> None:
        self.pods.put(
            Pod(
                "sys",
                name,
                f"uid-{name}",
                "",
                "",
                "127.0.0.1",
                ready,
                False,
                restarts,
                None,
                version,
            )
        )

    async def answer(
        self, gateways: Sequence[GatewayAddress], key: ModelKey
    ) -> dict[str, str | Unknown]:
        self.asked += [gateway.name for gateway in gateways]
        return {g.name: self.serves.get(g.name, Unknown("it has no routes yet")) for g in gateways}


async def test_a_gateway_with_an_older_table_is_behind() -> None:
    world = World("one", "two")
    world.serves = {"one": table(5).version, "two": table(0).version}
    gateways = await world.fleet.look(KEY, table(5))
    assert gateways.ready == ("one", "two")
    assert gateways.behind == ("two",)


async def test_who_has_confirmed_is_not_asked_again() -> None:
    world = World("one", "two")
    world.serves = {"one": table(5).version}
    await world.fleet.look(KEY, table(5))
    world.serves["two"] = table(5).version
    assert (await world.fleet.look(KEY, table(5))).in_effect
    assert (await world.fleet.look(KEY, table(5))).in_effect
    assert sorted(world.asked) == ["one", "two", "two"]


async def test_another_table_has_to_be_confirmed_anew() -> None:
    world = World("one")
    world.serves = {"one": table(5).version}
    assert (await world.fleet.look(KEY, table(5))).in_effect
    assert (await world.fleet.look(KEY, table(25))).behind == ("one",)


async def test_a_gateway_that_restarted_has_to_confirm_anew() -> None:
    world = World("one")
    world.serves = {"one": table(5).version}
    await world.fleet.look(KEY, table(5))
    world.gateway("one", restarts=1, version=2)
    world.serves = {}
    (behind,) = (await world.fleet.look(KEY, table(5))).behind
    assert behind.startswith("one (")


async def test_a_gateway_that_is_not_ready_is_not_waited_for() -> None:
    world = World("one")
    world.gateway("two", ready=False)
    world.serves = {"one": table(5).version}
    assert (await world.fleet.look(KEY, table(5))).in_effect


async def test_without_a_ready_gateway_nothing_is_in_effect() -> None:
    assert not (await World().fleet.look(KEY, table(5))).in_effect


async def test_a_refusal_is_told_with_its_reason() -> None:
    world = World("one")
    await world.fleet.look(KEY, table(5))
    world.fleet.refused(KEY, table(5).version, "no such cluster")
    (behind,) = (await world.fleet.look(KEY, table(5))).behind
    assert "no such cluster" in behind


async def test_a_refusal_is_told_of_the_table_that_was_refused_also_when_it_came_early() -> None:
    world = World("one")
    await world.fleet.look(KEY, table(5))
    world.fleet.refused(KEY, table(25).version, "no such cluster")
    (behind,) = (await world.fleet.look(KEY, table(5))).behind
    assert "no such cluster" not in behind
    (behind,) = (await world.fleet.look(KEY, table(25))).behind
    assert "no such cluster" in behind


async def test_patience_grows_while_a_gateway_stays_behind() -> None:
    world = World("one")
    waits = []
    for _ in range(len(PATIENCE) + 2):
        await world.fleet.look(KEY, table(5))
        waits.append(world.fleet.patience(KEY))
    assert waits == [*PATIENCE, PATIENCE[-1], PATIENCE[-1]]


async def test_the_time_until_every_gateway_follows_is_told_once() -> None:
    world = World("one", "two")
    world.fleet.intended(KEY, table(5))
    world.serves = {"one": table(5).version}
    await world.fleet.look(KEY, table(5))
    assert world.acknowledged == []
    world.serves["two"] = table(5).version
    for _ in range(2):
        await world.fleet.look(KEY, table(5))
        world.fleet.intended(KEY, table(5))
    (seconds,) = world.acknowledged
    assert 0 < seconds < 60


async def test_without_a_gateway_nothing_is_acknowledged() -> None:
    world = World()
    world.fleet.intended(KEY, table(5))
    await world.fleet.look(KEY, table(5))
    assert world.acknowledged == []
