"""All published models as resources, rendered when a gateway first needs them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from kohort.route.envoy.clusters import cluster, load_assignment
from kohort.route.envoy.resource import Kind, Resource
from kohort.route.envoy.routes import route_configuration
from kohort.route.envoy.scopes import routes_name, scopes, stage
from kohort.route.table import Endpoint, Endpoints, ModelKey, RouteTable

log = logging.getLogger(__name__)

Named = Mapping[str, Resource]


class Model:
    """One model's resources; unchanged ones are taken from ``previous``."""

    def __init__(
        self, table: RouteTable, endpoints: Endpoints, previous: Model | None = None
    ) -> None:
        self.table = table
        self.endpoints: dict[str, tuple[Endpoint, ...]] = {
            revision: tuple(sorted(set(endpoints.get(revision, ()))))
            for revision in table.revisions
        }
        if previous is None:
            return
        # What a gateway was sent before is not rendered again, and not kept twice either.
        same_targets = previous.table.targets == table.targets
        if previous.table == table:
            for name in ("version", "routes", "scopes", "stage"):
                self._take(previous, name)
        if same_targets:
            self._take(previous, "clusters")
        if same_targets and previous.endpoints == self.endpoints:
            self._take(previous, "assignments")

    def _take(self, previous: Model, name: str) -> None:
        if name in previous.__dict__:
            self.__dict__[name] = previous.__dict__[name]

    @property
    def key(self) -> ModelKey:
        """Which model."""
        return self.table.key

    @cached_property
    def version(self) -> str:
        """The version of the route table."""
        return self.table.version

    @property
    def routes_name(self) -> str:
        """What gateways know the route table by."""
        return routes_name(self.key, self.version)

    @cached_property
    def clusters(self) -> Named:
        """One for each target that has or may get clients."""
        return _named(cluster(self.key, target) for target in self.table.targets)

    @cached_property
    def assignments(self) -> Named:
        """The endpoints of each target."""
        return _named(
            load_assignment(self.key, target, self.endpoints) for target in self.table.targets
        )

    @cached_property
    def routes(self) -> Resource:
        """The route table."""
        return route_configuration(self.table)

    @cached_property
    def scopes(self) -> Named:
        """The ways by which clients come to the route table."""
        return _named(scopes(self.key, self.version))

    @cached_property
    def stage(self) -> Resource:
        """The way that makes a gateway fetch the route table while clients are still led elsewhere."""
        return stage(self.key, self.version)

    @cached_property
    def defect(self) -> str:
        """Why this model cannot be rendered; empty if it can."""
        try:
            for kind in Kind:
                self.of(kind)
            _ = self.stage
        except Exception as error:
            log.exception("the routes of %s cannot be made, gateways keep what they have", self.key)
            return f"it cannot be rendered: {error}"
        return ""

    def of(self, kind: Kind) -> Named:
        """All resources of a kind that clients may meet."""
        match kind:
            case Kind.CLUSTER:
                return self.clusters
            case Kind.ENDPOINTS:
                return self.assignments
            case Kind.ROUTES:
                return {self.routes.name: self.routes}
            case Kind.SCOPE:
                return self.scopes


def _named(resources: Iterable[Resource]) -> Named:
    return {resource.name: resource for resource in resources}


class Catalogue:
    """Models by key: as they are published, and as they will be next where that is known."""

    def __init__(self) -> None:
        self._models: dict[ModelKey, Model] = {}
        self._prepared: dict[ModelKey, Model] = {}

    def __iter__(self) -> Iterator[ModelKey]:
        return iter(self._models)

    def get(self, key: ModelKey) -> Model | None:
        """The model, if it is published."""
        return self._models.get(key)

    def prepared(self, key: ModelKey) -> Model | None:
        """What the model will be, if that was prepared and differs."""
        return self._prepared.get(key)

    def of(self, key: ModelKey, kind: Kind) -> Named:
        """All resources of a kind that a gateway needs for a model, now or next; none if not published.

        Scopes are those of what is published: nobody is led to what is only prepared.
        """
        model, prepared = self._models.get(key), self._prepared.get(key)
        if model is None:
            return {}
        if prepared is None or kind is Kind.SCOPE:
            return model.of(kind)
        return {**prepared.of(kind), **model.of(kind)}

    def prepare(self, table: RouteTable, endpoints: Endpoints) -> bool:
        """Take what is published next, in place of what was prepared before; False when nothing is new.

        A model that is not published has nobody to be kept from waiting: nothing is prepared.
        """
        published, before = self._models.get(table.key), self._prepared.get(table.key)
        if published is None:
            return False
        if published.table == table:
            return self._prepared.pop(table.key, None) is not None
        same = before is not None and before.table == table
        model = Model(table, endpoints, before if same else published)
        if before is not None and same and before.endpoints == model.endpoints:
            return False
        self._prepared[table.key] = model
        return True

    def publish(self, table: RouteTable, endpoints: Endpoints) -> bool:
        """Take a model's table and endpoints; False when nothing is new.

        What was prepared stays while the table does; after that it is either this or never used.
        """
        previous, prepared = self._models.get(table.key), self._prepared.get(table.key)
        known = prepared if prepared is not None and prepared.table == table else previous
        model = Model(table, endpoints, known)
        if previous is not None and previous.table == table:
            if previous.endpoints == model.endpoints:
                return False
        else:
            self._prepared.pop(table.key, None)
        self._models[table.key] = model
        return True

    def withdraw(self, key: ModelKey) -> bool:
        """Forget a model; False when it was not known."""
        self._prepared.pop(key, None)
        return self._models.pop(key, None) is not None
