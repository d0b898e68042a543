"""Rollouts for the web view to show: real statuses of the planner, in a world that tests move."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from msgspec import structs

from kohort.api.cohorts import HeaderMatch, Match
from kohort.cli.viewing import ADDRESS, KeyGate, address
from kohort.view.rollout import Facts, PodView
from kohort.web.gate import Gate
from kohort.web.seen import Seen
from kohort.web.server import ViewServer
from kohort.web.source import Feed
from tests.unit.plan_simulation import (
    Cluster,
    Cohort,
    Metric,
    MetricName,
    Step,
    Until,
    model,
    serving,
)

KEY = "a-key-of-the-tests"
COHORTS = (
    Cohort(
        name="staff",
        match=(Match(headers=(HeaderMatch(name="x-org", value="acme"),)),),
        steps=(Step(weight=100),),
    ),
    Cohort(
        name="eu-shops",
        match=(Match(headers=(HeaderMatch(name="x-region", value="eu"),)),),
        after=("staff",),
        steps=(
            Step(weight=5, hold="1m"),
            Step(weight=25, until=Until.NON_INFERIOR),
            Step(weight=50, hold="5m"),
        ),
    ),
    Cohort(name="everyone", after=("eu-shops",)),
)


@dataclass
class Simulated:
    """A source of simulated rollouts, all with the time of ``clock``."""

    clusters: dict[str, Cluster]
    clock: str
    seen: Seen = field(default_factory=Seen)
    feed: Feed = field(default_factory=Feed)
    wrong: list[str] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """The time of the world."""
        return self.clusters[self.clock].now

    def facts(self, name: str) -> Facts:
        """What an operator's cache would hold of a rollout."""
        cluster = self.clusters[name]
        return Facts(
            namespace="shop",
            name=name,
            generation=cluster.generation,
            status=cluster.status,
            stages={cohort.name: cohort.stages for cohort in cluster.spec.cohorts},
            command=cluster.command,
        )

    def names(self, namespace: str) -> Iterator[tuple[str, str]]:
        """All of them, which are of namespace ``shop``."""
        return (("shop", name) for name in self.clusters if namespace in ("", "shop"))

    def model(self, namespace: str, name: str) -> Facts | None:
        """One of them."""
        return self.facts(name) if namespace == "shop" and name in self.clusters else None

    def pods(self, namespace: str, name: str) -> Mapping[str, list[PodView]]:
        """A pod for each that is wanted."""
        return {
            revision: [
                PodView(
                    f"{revision}-{number}",
                    number < pods.ready,
                    "Ready" if number < pods.ready else "NotReady",
                    0,
                    None,
                )
                for number in range(pods.wanted)
            ]
            for revision, pods in self.clusters[name].pods.items()
        }

    def problems(self) -> list[str]:
        """Those that a test wants."""
        return self.wrong

    def tick(self, name: str, times: int = 1) -> None:
        """Time goes by for one rollout, and whoever looks at it is woken."""
        for _ in range(times):
            self.clusters[name].tick()
            self.seen.take(self.facts(name), self.clusters[name].now)
        self.feed.changed("shop", name)


def rolling(name: str = "burger") -> Simulated:
    """A rollout whose second cohort has a canary, beside one that went back and one that is done."""
    latency = Metric(name=MetricName.LATENCY)
    spec = model(1, cohorts=COHORTS)
    spec = structs.replace(
        spec, analysis=structs.replace(spec.analysis, metrics=(Metric(name="errors"), latency))
    )
    clusters = {name: serving(spec), "pizza": serving(model(1)), "salad": serving(model(1))}
    world = Simulated(clusters, name)
    for each in clusters:
        world.seen.take(world.facts(each), clusters[each].now)
    pizza = clusters["pizza"]
    pizza.edit(model(2))
    pizza.bad.add(pizza.desired)
    world.tick("pizza", 30)
    clusters[name].edit(structs.replace(spec, model=model(2).model))
    while clusters[name].cohort("eu-shops").weight < 25:
        world.tick(name)
    world.tick(name, 4)
    return world


def many(count: int) -> Simulated:
    """That many rollouts, most of them idle."""
    world = rolling()
    idle = serving(model(1))
    for number in range(count - len(world.clusters)):
        world.clusters[f"model-{number:03}"] = idle
    return world


@asynccontextmanager
async def shown(world: Simulated, gate: Gate | None = None, port: int = 0) -> AsyncIterator[str]:
    """The world behind a real server; gives its root, such as ``http://127.0.0.1:1234``."""
    server = ViewServer(
        world, gate or KeyGate(KEY, ""), world.feed, world.seen, now=lambda: world.now
    )
    listening = await server.start(ADDRESS, port)
    try:
        yield f"http://{ADDRESS}:{listening}"
    finally:
        await server.stop()


def opened(root: str, namespace: str = "", name: str | None = None) -> str:
    """The address that ``kubectl kohort view`` would print."""
    return address(int(root.rpartition(":")[2]), KEY, namespace, name)
