"""All published models as resources, rendered when a gateway first needs them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from kohort.route.envoy.clusters import cluster, load_assignment
from kohort.route.envoy.resource import Kind, Resource
from kohort.route.envoy.routes import route_configuration, scopes
from kohort.route.table import Endpoint, Endpoints, ModelKey, RouteTable

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
        same_revisions = previous.table.revisions == table.revisions
        if previous.table == table:
            self._take(previous, "routes")
        if same_revisions:
            self._take(previous, "clusters")
        if same_revisions and previous.endpoints == self.endpoints:
            self._take(previous, "assignments")
        self._take(previous, "scopes")

    def _take(self, previous: Model, name: str) -> None:
        if name in previous.__dict__:
            self.__dict__[name] = previous.__dict__[name]

    @property
    def key(self) -> ModelKey:
        """Which model."""
        return self.table.key

    @cached_property
    def clusters(self) -> Named:
        """One for each revision that has or may get clients."""
        return _named(cluster(self.key, revision) for revision in self.table.revisions)

    @cached_property
    def assignments(self) -> Named:
        """The endpoints of each revision."""
        return _named(
            load_assignment(self.key, revision, ready) for revision, ready in self.endpoints.items()
        )

    @cached_property
    def routes(self) -> Resource:
        """The route table."""
        return route_configuration(self.table)

    @cached_property
    def scopes(self) -> Named:
        """The ways to the route table."""
        return _named(scopes(self.key))

    def of(self, kind: Kind) -> Named:
        """All resources of a kind."""
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
    """Models by key."""

    def __init__(self) -> None:
        self._models: dict[ModelKey, Model] = {}

    def __iter__(self) -> Iterator[ModelKey]:
        return iter(self._models)

    def get(self, key: ModelKey) -> Model | None:
        """The model, if it is published."""
        return self._models.get(key)

    def publish(self, table: RouteTable, endpoints: Endpoints) -> bool:
        """Take a model's table and endpoints; False when nothing is new."""
        previous = self._models.get(table.key)
        model = Model(table, endpoints, previous)
        if (
            previous is not None
            and previous.table == table
            and previous.endpoints == model.endpoints
        ):
            return False
        self._models[table.key] = model
        return True

    def withdraw(self, key: ModelKey) -> bool:
        """Forget a model; False when it was not known."""
        return self._models.pop(key, None) is not None
