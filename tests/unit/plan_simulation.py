"""A cluster small enough to hold in the head, for tests of the planner: pods, gateways, counters, a clock.

Only what is in ``status`` survives from one pass to the next, as for an operator that restarts each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from msgspec import structs

from kohort.analysis.mirroring import DIFFERENT
from kohort.analysis.reading import Reading
from kohort.analysis.shares import requests, shares
from kohort.analysis.split import split
from kohort.api.analysis import Metric, MetricName
from kohort.api.cohorts import Cohort, Step, Until
from kohort.api.model import Model
from kohort.api.spec import Spec
from kohort.api.status import CohortStatus, EngineTable, Phase, Status
from kohort.contract import MIRROR
from kohort.observe.counters import Cell
from kohort.observe.gateways import Scrape
from kohort.observe.slots import SlotLedger
from kohort.plan.capacity import awaits_gateways
from kohort.plan.outcome import (
    Action,
    EnsureDeployment,
    Event,
    Outcome,
    RecordRevision,
    RemoveDeployment,
    RemoveRecord,
)
from kohort.plan.planner import Identity, plan
from kohort.plan.revisions import revision_name
from kohort.plan.world import Capacity, Gateways, Problem, World
from kohort.route.table import CohortRoute, ModelKey, RouteTable, route_table

NAME = "burger"
KEY = ModelKey("shop", NAME)
START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

__all__ = ["Cohort", "Metric", "MetricName", "Step", "Until"]


def model(version: int, **changes: object) -> Spec:
    """A spec that asks for one version of the model."""
    base = Spec(model=Model(uri=f"file:///models/{version}.onnx"))
    return structs.replace(base, **changes)


@dataclass
class Pods:
    """A Deployment: pods that are wanted, and how many of them are ready."""

    wanted: int
    ready: int = 0
    problem: Problem | None = None
    engines: EngineTable | None = None


@dataclass
class Cluster:
    """The world around the planner. Nothing happens in it by itself.

    ``gpus``: pods that can be ready at once; None: any number.
    """

    spec: Spec
    status: Status = field(default_factory=Status)
    now: datetime = START
    generation: int = 1
    records: dict[str, int] = field(default_factory=dict)
    pods: dict[str, Pods] = field(default_factory=dict)
    gateways: dict[str, RouteTable | None] = field(default_factory=lambda: {"gateway-a": None})
    counters: dict[str, dict[str, dict[Cell, int]]] = field(default_factory=dict)
    ledger: SlotLedger = field(default_factory=SlotLedger)
    unread: dict[str, Reading] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    gpus: int | None = None
    bad: set[str] = field(default_factory=set)
    slow: set[str] = field(default_factory=set)
    command: str = ""
    events: list[Event] = field(default_factory=list)
    checks: list[Callable[[Cluster, World, Outcome], None]] = field(default_factory=list)

    @property
    def desired(self) -> str:
        """The revision that the spec asks for."""
        return revision_name(NAME, self.spec)

    def cohort(self, name: str = "everyone") -> CohortStatus:
        """A cohort's status."""
        return next(c for c in self.status.cohorts if c.name == name)

    def phase(self) -> Phase:
        """That of all cohorts together."""
        return self.status.phase

    def edit(self, spec: Spec) -> None:
        """Apply another spec."""
        if spec != self.spec:
            self.spec, self.generation = spec, self.generation + 1

    def table(self) -> RouteTable | None:
        """What the persisted status wants gateways to serve."""
        return route_table(KEY, self.spec, self.status)

    def world(self) -> World:
        """What the operator sees now."""
        table = self.table()
        return World(
            recorded=dict(self.records),
            capacity={
                name: Capacity(p.wanted, p.ready, max(p.wanted, p.ready), p.problem, p.engines)
                for name, p in self.pods.items()
            },
            gateways=Gateways(
                ready=tuple(self.gateways),
                behind=tuple(name for name, served in self.gateways.items() if served != table)
                if awaits_gateways(self.status)
                else (),
            ),
            readings=self.unread,
            command=self.command,
            shares=self.shares,
        )

    def decide(self, *, actions_done: int | None = None, pods_seen: World | None = None) -> Outcome:
        """One pass: decide, persist, act.

        ``actions_done``: an operator killed midway does only so many. ``pods_seen``: a cache that is
        behind shows records and pods as they were.
        """
        world = self.world()
        if pods_seen is not None:
            world = replace(world, recorded=pods_seen.recorded, capacity=pods_seen.capacity)
        identity = Identity(KEY.namespace, NAME, "uid", self.generation)
        outcome = plan(identity, self.spec, self.status, world, self.now)
        for check in self.checks:
            check(self, world, outcome)
        self.status, self.unread = outcome.status, {}
        self.events += outcome.events
        for action in outcome.actions[:actions_done]:
            self.act(action)
        return outcome

    def act(self, action: Action) -> None:
        """Do what the planner wants."""
        match action:
            case RecordRevision(name, number):
                self.records.setdefault(name, number)
            case EnsureDeployment(name, replicas):
                pods = self.pods.setdefault(name, Pods(replicas))
                pods.wanted, pods.ready = replicas, min(pods.ready, replicas)
            case RemoveDeployment(name):
                self.pods.pop(name, None)
            case RemoveRecord(name):
                self.records.pop(name, None)

    def pass_time(self, seconds: float) -> None:
        """Let the clock run."""
        self.now += timedelta(seconds=seconds)

    def start_pods(self) -> None:
        """All pods become ready that can: those of the oldest Deployments first."""
        for pods in self.pods.values():
            if pods.problem is not None:
                continue
            while pods.ready < pods.wanted and self.start_pod(pods):
                pass

    def start_pod(self, pods: Pods) -> bool:
        """One more pod becomes ready, if there is a GPU for it."""
        free = self.gpus is None or sum(p.ready for p in self.pods.values()) < self.gpus
        pods.ready += free
        return free

    def update_gateways(self) -> None:
        """Every gateway takes the routes that status wants."""
        for name in self.gateways:
            self.gateways[name] = self.table()

    def serve(self, requests: int = 200) -> None:
        """Clients of every cohort send requests through every gateway; bad revisions fail half.

        Clients are all alike: an arm's requests go round its slots, and so do those that fail. Answers
        take between 18 and 60 ms, those of slow revisions three times as long.
        """
        for gateway, table in self.gateways.items():
            for route in table.cohorts if table else ():
                canary = requests * route.weight // 100
                counts = self.counters.setdefault(gateway, {}).setdefault(route.name, {})
                for revision, new in ((route.canary, canary), (route.stable, requests - canary)):
                    slots = slots_of(route, revision)
                    served = sum(n for cell, n in counts.items() if cell.revision == revision)
                    failed = new // 2 if revision in self.bad else new // 100
                    for number in range(new):
                        slot = slots[(served + number) % len(slots)]
                        took = 7 + number % 3 + (3 if revision in self.slow else 0)
                        cell = Cell(revision, slot, None if number < failed else took)
                        counts[cell] = counts.get(cell, 0) + 1
                if pairs := requests * route.mirror // 100:
                    self.mirror(gateway, route, pairs)

    def mirror(self, gateway: str, route: CohortRoute, pairs: int) -> None:
        """Both arms answer requests once more, each time differently; bad canaries fail half."""
        counts = self.counters[gateway].setdefault(route.name + MIRROR, {})
        failed = pairs // 2 if route.canary in self.bad else 0
        new = {
            Cell(route.canary, None, None): failed,
            Cell(route.canary, None, 0): pairs - failed,
            Cell(route.stable, None, 0): pairs,
            Cell(DIFFERENT, None, 0): pairs - failed,
        }
        for cell, number in new.items():
            counts[cell] = counts.get(cell, 0) + number

    def read_counters(self, *, unreachable: tuple[str, ...] = ()) -> None:
        """The operator's scraper brings a reading of every cohort, and one of what it mirrors."""
        read = [g for g in self.counters if g in self.gateways and g not in unreachable]
        errors = tuple(f"{gateway}: connection refused" for gateway in unreachable)
        clients, pairs = dict[str, Reading](), dict[str, Reading]()
        for cohort in self.status.cohorts:
            scrape, counts = self.scrape(cohort.name, read, errors)
            slots = self.ledger.take((KEY, cohort.name), cohort.salt, cohort.weight, counts)
            clients[cohort.name] = replace(scrape[KEY, cohort.name], slots=slots)
            name = cohort.name + MIRROR
            scrape, _ = self.scrape(name, read, errors)
            pairs[name] = scrape[KEY, name]
        self.unread = clients | pairs
        if not unreachable:
            self.shares = shares({}, requests(clients)) or self.shares

    def scrape(
        self, name: str, read: list[str], errors: tuple[str, ...]
    ) -> tuple[Scrape, dict[str, dict[Cell, int]]]:
        """One look at some gateways, and what they counted."""
        counts = {gateway: dict(self.counters[gateway].get(name, {})) for gateway in read}
        return Scrape(self.now.timestamp(), {(KEY, name): counts}, tuple(read), errors), counts

    def tick(self, seconds: float = 5) -> Outcome:
        """Everything goes well for some seconds."""
        self.pass_time(seconds)
        self.start_pods()
        self.update_gateways()
        self.serve()
        self.read_counters()
        return self.decide()

    def until(self, reached: Callable[[Cluster], bool], ticks: int = 600) -> None:
        """Everything goes well until something is reached; fails if it never is."""
        for _ in range(ticks):
            if reached(self):
                return
            self.tick()
        raise AssertionError(f"never reached; the cluster says: {self.status.message}")

    def finished(self) -> bool:
        """Whether every cohort is on the desired revision."""
        return bool(self.status.cohorts) and all(
            c.stable == self.desired and not c.canary for c in self.status.cohorts
        )


def slots_of(route: CohortRoute, revision: str) -> list[int | None]:
    """The slots of a revision's clients, as gateways name them."""
    if not route.canary:
        return [None]
    shares = split(route.weight, route.salt)
    return [s.slot for s in shares if s.canary == (revision == route.canary)]


def serving(spec: Spec) -> Cluster:
    """A cluster in which the spec's revision serves everybody."""
    cluster = Cluster(spec)
    cluster.until(Cluster.finished)
    cluster.tick()
    cluster.events.clear()
    return cluster


def condition(status: Status, kind: str) -> tuple[str, str] | None:
    """Status and reason of a condition."""
    return next(((c.status, c.reason) for c in status.conditions if c.type == kind), None)


TWO = (
    Cohort(name="staff", steps=(Step(weight=100),)),
    Cohort(name="everyone", after=("staff",)),
)
