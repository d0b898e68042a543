"""The route table of a model: a pure function of spec and status, so that every replica serves the same."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
from msgspec import structs

from kohort.api.spec import Spec
from kohort.api.status import Status
from kohort.plan.mirroring import mirrored_percent

PREVIEW = "/preview"
"""Ends what previews of a cohort are counted as, which is no cohort's name."""


@dataclass(frozen=True, order=True)
class ModelKey:
    """Which model: the namespace and name of its ModelDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class HeaderMatch:
    """A header whose value must be one of ``values`` exactly; without values it only has to be there."""

    name: str
    values: tuple[str, ...]


class Target(NamedTuple):
    """Pods that requests are sent to: those of ``revision``.

    ``fallback``: the revision that answers a request in its place when none of its pods takes it.
    """

    revision: str
    fallback: str = ""


@dataclass(frozen=True)
class CohortRoute:
    """How one cohort's requests are split.

    ``matches``: any of them, all headers of it; empty matches everybody.
    ``weight``: percentage of clients on ``canary``; ``canary`` is empty outside a rollout.
    ``preview``: the revision for requests that ask for the preview; empty where they are like all others.
    ``mirror``: percentage of requests that both arms answer once more, for nobody but a comparison.
    """

    name: str
    matches: tuple[tuple[HeaderMatch, ...], ...]
    stable: str
    canary: str
    weight: int
    salt: str
    preview: str = ""
    mirror: int = 0

    @property
    def told(self) -> str:
        """The cohort's name as clients are told it."""
        return self.name.removesuffix(PREVIEW)

    def previewed(self, header: HeaderMatch) -> CohortRoute:
        """The route of those of the cohort's requests that ask for the preview by ``header``."""
        return CohortRoute(
            name=self.name + PREVIEW,
            matches=tuple((*match, header) for match in self.matches or ((),)),
            stable=self.preview or self.stable,
            canary="",
            weight=0,
            salt="",
        )


@dataclass(frozen=True)
class RouteTable:
    """All routes of one model.

    ``preview``: how a request asks for its cohort's preview. ``life``: tells a model from one of the same
    name before it, whose routes a gateway may still have.
    """

    key: ModelKey
    client_key: str
    cohorts: tuple[CohortRoute, ...]
    preview: HeaderMatch | None = None
    life: str = ""

    @property
    def version(self) -> str:
        """Names the content: equal on every replica of the operator, different after any change."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]

    @property
    def revisions(self) -> tuple[str, ...]:
        """Revisions that a client may be sent to, each once, in order of first use."""
        return tuple(dict.fromkeys(r for c in self.cohorts for r in (c.stable, c.canary) if r))

    @property
    def serving(self) -> frozenset[str]:
        """Revisions that have clients."""
        stable = (c.stable for c in self.cohorts if c.weight < 100)
        return frozenset((*stable, *(c.canary for c in self.cohorts if c.weight)))

    @property
    def targets(self) -> tuple[Target, ...]:
        """Where requests go: every revision by itself, and every canary with the stable one behind it."""
        behind = (Target(c.canary, c.stable) for c in self.cohorts if c.canary)
        return (*map(Target, self.revisions), *dict.fromkeys(behind))


@dataclass(frozen=True, order=True)
class Endpoint:
    """Where a ready pod listens."""

    address: str
    port: int


Endpoints = Mapping[str, tuple[Endpoint, ...]]
"""Ready endpoints by revision name."""


def with_fallback(table: RouteTable, serving: Container[str]) -> RouteTable:
    """The routes with no client on a canary that has no pod left, where stable has one, and no preview.

    What ``status`` intends stays: the canary's clients are back on it with its first ready pod.
    ``serving``: revisions with ready pods.
    """

    def served(cohort: CohortRoute) -> CohortRoute:
        if cohort.canary in serving:
            return cohort
        weight = 0 if cohort.stable in serving else cohort.weight
        return replace(cohort, weight=weight, preview="", mirror=0)

    return replace(table, cohorts=tuple(served(cohort) for cohort in table.cohorts))


def foreseen(spec: Spec, status: Status) -> Status:
    """The status after the most likely change of routes: the next weight of the first cohort on its way.

    Any replica may have gateways fetch its routes in advance; whether it comes so is decided elsewhere.
    """
    steps = {c.name: tuple(step.weight for step in c.stages) for c in spec.cohorts}
    for number, cohort in enumerate(status.cohorts):
        if cohort.canary and cohort.canary == status.desired and cohort.weight < 100:
            weights = (*steps.get(cohort.name, ()), 100)
            coming = (w for w in weights[cohort.step :] if w > cohort.weight)
            risen = structs.replace(cohort, weight=next(coming, 100))
            cohorts = (*status.cohorts[:number], risen, *status.cohorts[number + 1 :])
            return structs.replace(status, cohorts=cohorts)
    return status


def route_table(key: ModelKey, spec: Spec, status: Status, life: str = "") -> RouteTable | None:
    """The routes that ``status`` intends; None while no cohort has a stable revision.

    A cohort that the spec has just gained is absent until the planner gives it a stable revision;
    its clients meanwhile match a later cohort.
    """
    known = {c.name: c for c in status.cohorts if c.stable}
    asks = spec.preview
    header = HeaderMatch(asks.header, asks.accepted()) if asks else None
    cohorts = tuple(
        CohortRoute(
            name=cohort.name,
            matches=tuple(
                tuple(HeaderMatch(h.name, h.accepted()) for h in match.headers)
                for match in cohort.match
            ),
            stable=known[cohort.name].stable,
            canary=known[cohort.name].canary,
            weight=known[cohort.name].weight,
            salt=known[cohort.name].salt,
            preview=known[cohort.name].canary if header else "",
            mirror=mirrored_percent(cohort, known[cohort.name]),
        )
        for cohort in spec.cohorts
        if cohort.name in known
    )
    return RouteTable(key, spec.client_key.header, cohorts, header, life) if cohorts else None
