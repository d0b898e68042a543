"""The ways to a model beside Kohort's own gateways: its name in the cluster, and routes of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from kohort.act import addresses
from kohort.act.children import ROUTES, SERVICES, Children, Kind, Known, Obstacle, covers
from kohort.act.merge import Json
from kohort.api.quantity import seconds
from kohort.kube import ApiError
from kohort.observe.acknowledged import behind, parent_names
from kohort.observe.objects import Deployment, Owned, parse_owned
from kohort.observe.store import Store
from kohort.plan.capacity import awaits_gateways
from kohort.plan.world import Gateways
from kohort.route.gateway_api.matches import NotExpressible
from kohort.route.gateway_api.routes import RouteKind, backends, parent_refs, render
from kohort.route.table import ModelKey, RouteTable
from kohort.runtime.models import Model

# Answers that mean that trying the same again at once is of no use.
REFUSED = frozenset({400, 403, 422})
REFUSED_SECONDS = 30.0
_OFF = (
    "this operator does not write Gateway API routes: start it with --gateway-api, and with the permissions "
    "for it"
)


class Addresses:
    """Makes Services and routes, and remembers what stands in their way.

    ``gateway``: DNS name of the Service of Kohort's gateways; without it no names are made. ``routes``:
    what is known of each kind of route; empty when Gateway API is not used at all.
    """

    def __init__(
        self,
        *,
        gateway: str,
        deployments: Store[Deployment],
        services: Store[Owned],
        routes: Mapping[RouteKind, Store[Owned]],
        children: Children,
        wake: Callable[[ModelKey, float], None],
    ) -> None:
        self._gateway = gateway
        self._deployments = deployments
        self._services = services
        self._routes = routes
        self._children = children
        self._wake = wake
        self._obstacles: dict[ModelKey, str] = {}
        self._seen: dict[ModelKey, tuple[Hashable, float]] = {}  # what was accepted, since when

    def forget(self, key: ModelKey) -> None:
        """Drops what is remembered of a model that is gone."""
        self._seen.pop(key, None)
        self._obstacles.pop(key, None)

    def name_taken(self, model: Model) -> str:
        """Why in-cluster clients cannot call one of Kohort's own models by name; empty when they can."""
        return self._obstacles.get(model.key, "") if model.own_gateways else ""

    def look(self, model: Model, table: RouteTable | None, serving: AbstractSet[str]) -> Gateways:
        """How far the gateways that a model names follow its routes.

        ``serving``: revisions that have ready pods.
        """
        gateway = model.gateway_api
        parents = parent_names(parent_refs(model.key, gateway))
        if not self._routes:
            return Gateways(ready=parents, refused=_OFF)
        if table is None:
            return Gateways(ready=parents)
        try:
            rendered = render(table, gateway)
        except NotExpressible as error:
            return Gateways(ready=parents, refused=str(error))
        late: dict[str, None] = {}
        generations = []
        for route in rendered:
            known = self._routes[route.kind].get(model.key.namespace, model.key.name)
            if known is None or not covers(msgspec.json.decode(known.spec), route.spec):
                late.update(dict.fromkeys(parents))
            else:
                late.update(dict.fromkeys(behind(known, parents)))
                generations.append(known.generation)
        seen = (tuple(generations), frozenset(serving) & frozenset(table.revisions))
        if not late and self._settles(model, seen):
            told = f"accepted; its proxies have {gateway.settle} to follow"
            late.update(dict.fromkeys(f"{parent} ({told})" for parent in parents))
        return Gateways(
            ready=parents, behind=tuple(late), refused=self._obstacles.get(model.key, "")
        )

    async def follow(self, model: Model, table: RouteTable | None) -> None:
        """Makes and changes what clients need to find a model as its persisted status wants it.

        Raises:
            ApiError: a write was not taken; another pass will want the same again.
        """
        before = self._obstacles.get(model.key, "")
        try:
            if not model.own_gateways:
                await self._follow_routes(model, table)
            elif self._gateway:
                service = addresses.name_service(model.owner, self._gateway)
                await self._ensure(model, SERVICES, service, self._services)
            self._obstacles.pop(model.key, None)
        except (Obstacle, ApiError) as error:
            if isinstance(error, ApiError) and error.status not in REFUSED:
                raise
            self._obstacles[model.key] = str(error)[:900]
            self._wake(model.key, REFUSED_SECONDS)
        if self._obstacles.get(model.key, "") != before:
            self._wake(model.key, 0.0)

    def _settles(self, model: Model, seen: Hashable) -> bool:
        """Whether proxies may not know yet what was ``seen``, and something waits for them.

        No gateway says when its proxies have a route, or the address of a new pod.
        """
        now = asyncio.get_running_loop().time()
        before, since = self._seen.get(model.key, (None, now))
        if before != seen:
            since = now
            self._seen[model.key] = seen, since
        left = since + seconds(model.gateway_api.settle) - now
        if left <= 0 or not awaits_gateways(model.status):
            return False
        self._wake(model.key, left)
        return True

    async def _follow_routes(self, model: Model, table: RouteTable | None) -> None:
        if table is None or not self._routes:
            return
        try:
            rendered = render(table, model.gateway_api)
        except NotExpressible:
            return  # told by look; what is in effect stays
        wanted = dict.fromkeys(r for cohort in table.cohorts for r in backends(cohort))
        for revision in wanted:
            service = addresses.revision_service(model.owner, revision)
            await self._ensure(model, SERVICES, service, self._services)
        for route in rendered:
            manifest = addresses.route(model.owner, route)
            await self._ensure(model, ROUTES[route.kind], manifest, self._routes[route.kind])
        for kind in self._routes.keys() - {route.kind for route in rendered}:
            await self._remove(model, ROUTES[kind], self._routes[kind], model.key.name)
        # Pods go only once no gateway sends anything to them: until then their Service stays.
        kept = wanted.keys() | self._deployments.of(model.key).keys()
        for revision in self._services.of(model.key).keys() - kept:
            await self._remove(model, SERVICES, self._services, revision)

    async def _ensure(self, model: Model, kind: Kind, manifest: Json, store: Store[Owned]) -> None:
        known = store.get(model.key.namespace, manifest["metadata"]["name"])
        seen = Known(known.uid, known.owner, known.spec) if known else None
        answer = await self._children.ensure(model.owner, kind, manifest, seen)
        if answer is not None:
            store.put_answer(parse_owned(answer))

    async def _remove(self, model: Model, kind: Kind, store: Store[Owned], name: str) -> None:
        known = store.get(model.key.namespace, name)
        if known is not None and known.owner == model.uid:
            await self._children.remove(model.owner, kind, name, known.uid)
            store.remove(model.key.namespace, name)
