"""When routes of gateways that Kohort cannot ask are taken to be in effect."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from kohort.act.addresses import route
from kohort.act.children import Children
from kohort.api.routing import GatewayAPI, ParentRef
from kohort.kube import Kube, Server
from kohort.observe.objects import parse_owned
from kohort.observe.store import Store
from kohort.plan.world import Gateways
from kohort.route.gateway_api.routes import RouteKind, render
from kohort.route.table import ModelKey, route_table
from kohort.runtime.addresses import Addresses
from kohort.runtime.models import Model, convert_model

KEY = ModelKey("shop", "burger")
GATEWAY = GatewayAPI(parent_refs=(ParentRef(name="public"),), settle="50ms")
OLD, NEW = "burger-1", "burger-2"


class World:
    """A model in a rollout, and its HTTPRoute as the API server has it."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.wakes: list[float] = []
        self.routes = Store[Any](lambda key: None)
        self.version = 0
        self.addresses = Addresses(
            gateway="",
            deployments=Store(lambda key: None),
            services=Store(lambda key: None),
            routes={RouteKind.HTTP: self.routes} if enabled else {},
            children=Children(Kube(Server("http://127.0.0.1:1"))),
            wake=lambda key, after: self.wakes.append(after),
        )

    def model(self, canary: str = NEW) -> Model:
        cohort = {"name": "everyone", "stable": OLD, "canary": canary, "phase": "Stable"}
        gateway = msgspec.to_builtins(GATEWAY)
        return convert_model(
            {
                "metadata": {"namespace": KEY.namespace, "name": KEY.name, "uid": "u"},
                "spec": {
                    "model": {"uri": "file:///m.onnx"},
                    "route": {"type": "GatewayAPI", "gatewayAPI": gateway},
                },
                "status": {"cohorts": [cohort], "desired": OLD},
            }
        )

    def written(self, canary: str = NEW, *, accepted: bool = True) -> None:
        """The gateway speaks of the route of the model as it is now."""
        model = self.model(canary)
        assert model.spec is not None
        table = route_table(KEY, model.spec, model.status)
        assert table is not None
        (rendered,) = render(table, GATEWAY)
        self.version += 1
        conditions = [
            {"type": kind, "status": str(accepted), "observedGeneration": self.version}
            for kind in ("Accepted", "ResolvedRefs")
        ]
        made = route(model.owner, rendered)
        made["metadata"] |= {"generation": self.version, "resourceVersion": str(self.version)}
        parents = [{"parentRef": {"name": "public"}, "conditions": conditions}]
        content = msgspec.json.encode({**made, "status": {"parents": parents}})
        self.routes.put(parse_owned(content))

    def look(self, *serving: str, canary: str = NEW) -> Gateways:
        model = self.model(canary)
        assert model.spec is not None
        table = route_table(KEY, model.spec, model.status)
        return self.addresses.look(model, table, frozenset(serving))

    async def settled(self, *serving: str) -> Gateways:
        """What is seen once time has passed, as far as it was asked for."""
        await asyncio.sleep(self.wakes[-1])
        return self.look(*serving)


async def test_a_route_that_was_accepted_is_in_effect_once_proxies_had_time_to_follow() -> None:
    world = World()
    assert world.look(OLD, NEW).behind == ("shop/public",)
    world.written()
    assert "its proxies have 50ms to follow" in world.look(OLD, NEW).behind[0]
    assert (await world.settled(OLD, NEW)).in_effect


async def test_a_route_that_was_refused_is_not_in_effect_however_old_it_is() -> None:
    world = World()
    world.written(accepted=False)
    assert "Accepted is False" in world.look(OLD, NEW).behind[0]
    assert not world.wakes


async def test_time_begins_anew_with_another_route_and_with_the_first_ready_pod() -> None:
    world = World()
    world.written()
    world.look(OLD)
    assert (await world.settled(OLD)).in_effect
    assert not world.look(OLD, NEW).in_effect
    assert (await world.settled(OLD, NEW)).in_effect
    world.written()
    assert not world.look(OLD, NEW).in_effect


async def test_where_nothing_waits_no_time_is_given() -> None:
    world = World()
    world.written("")
    assert world.look(OLD, canary="").in_effect
    assert not world.wakes


async def test_without_its_flag_the_operator_says_how_to_get_routes() -> None:
    assert "--gateway-api" in World(enabled=False).look(OLD).refused
