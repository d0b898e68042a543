"""End the operator at every point of five rollouts, once each: after each API call and each route push.

    python -m tests.bench.crashes [--lanes 6] [--most 0]

A local cluster of its own. Several rollouts go on beside each other, each in a namespace with an
operator and a gateway of its own. A point is one whole rollout, with clients calling.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from kohort.api.crd import definition
from kohort_local.cluster import Cluster
from kohort_local.install import images
from kohort_local.kubectl import Kubectl
from kohort_local.models import train
from tests.e2e.crashes import SCENARIOS, Kind, Scenario, prepare, run
from tests.e2e.lane import Lane, StuckError, lanes

STRIDE = 2  # points of one rollout that are gone through beside each other


@dataclass
class Tally:
    """What was seen of one scenario."""

    points: dict[Kind, int] = field(default_factory=lambda: {"call": 0, "push": 0})
    requests: int = 0
    problems: list[str] = field(default_factory=list)


async def sweep(
    lane: Lane, work: list[tuple[str, Kind, int]], tallies: dict[str, Tally], most: int
) -> None:
    """Take one series of points after the other until there is none."""
    while work:
        name, kind, first = work.pop(0)
        scenario, tally = SCENARIOS[name], tallies[name]
        try:
            await _series(lane, scenario, tally, kind, first, most)
        except StuckError as error:
            tally.problems.append(f"{name}, {kind}s from {first} on: {error}")


async def _series(
    lane: Lane, scenario: Scenario, tally: Tally, kind: Kind, first: int, most: int
) -> None:
    await prepare(lane, scenario)
    for at in count(first, STRIDE):
        if most and at > most:
            break
        done = await run(lane, scenario, f"{kind}-{at}", kind, at)
        tally.requests += done.requests
        tally.problems += [f"{kind} {at}: {problem}" for problem in done.problems]
        told = f"{done.count} {kind}s, ended: {done.blown}, {done.requests} requests"
        print(
            f"{lane.name} {scenario.act.__name__} {kind} {at}: {told} {done.problems}",
            file=sys.stderr,
        )
        if not done.blown:
            break  # the rollout has no such point any more
        tally.points[kind] += 1


async def sweep_all(cluster: Cluster, directory: Path, number: int, most: int) -> dict[str, Tally]:
    """Every point of every scenario, in so many lanes."""
    versions, digits = train(directory / "models")
    Kubectl(cluster.kubeconfig).apply(definition())
    tallies: dict[str, Tally] = defaultdict(Tally)
    kinds: tuple[Kind, ...] = ("call", "push")
    work = [(s, kind, 1 + part) for kind in kinds for s in SCENARIOS for part in range(STRIDE)]

    async def one(lane: Lane) -> None:
        async with lane.running():
            await sweep(lane, work, tallies, most)

    names = [f"lane-{i}" for i in range(number)]
    async with asyncio.TaskGroup() as group:
        for lane in lanes(cluster, directory, versions, digits, names):
            group.create_task(one(lane))
    return tallies


def main() -> None:
    """Sweep and print a table; exits with 1 when anything was noticed or ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lanes", type=int, default=6, help="rollouts beside each other")
    parser.add_argument("--most", type=int, default=0, help="no point beyond this; 0: all")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        with Cluster(directory / "cluster", images=images(), back_off_cap=1.0) as cluster:
            tallies = asyncio.run(sweep_all(cluster, directory, given.lanes, given.most))
    print("| rollout | after an API call | after a route push | requests | problems |")
    print("|---|---|---|---|---|")
    for name, tally in tallies.items():
        calls, pushes = tally.points["call"], tally.points["push"]
        print(f"| {name} | {calls} | {pushes} | {tally.requests:,} | {len(tally.problems)} |")
    points = sum(sum(tally.points.values()) for tally in tallies.values())
    print(f"\n{points} points in {(time.monotonic() - began) / 60:.0f} min")
    problems = [problem for tally in tallies.values() for problem in tally.problems]
    print("\n".join(problems[:50]))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
