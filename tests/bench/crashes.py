"""End the operator at every point of five rollouts, once each: after each API call and each route push.

    python -m tests.bench.crashes [--lanes 6] [--most 0] [--only ROLLOUT] [--record FILE]

A local cluster of its own. Several rollouts go on beside each other, each in a namespace with an
operator and a gateway of its own. A point is one whole rollout, with clients calling.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args

from kohort.api.crd import definition
from kohort_local.cluster import Cluster
from kohort_local.install import images
from kohort_local.kubectl import Kubectl
from kohort_local.models import train
from tests.e2e.crashes import SCENARIOS, Kind, Run, prepare, run
from tests.e2e.lane import Lane, StuckError, lanes

KINDS: tuple[Kind, ...] = get_args(Kind)
# How many calls a rollout takes varies a little: after so many runs without the point, there is none.
BEYOND = 2


@dataclass
class Sweep:
    """All points of one rollout, and what was seen at them; several lanes may work on it."""

    name: str
    most: int
    lanes: int = 0
    runs: dict[tuple[Kind, int], Run] = field(default_factory=dict)
    _taken: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def take(self) -> tuple[Kind, int] | None:
        """The next point; None when there is none any more."""
        for kind in KINDS:
            while self._goes_on(kind):
                self._taken[kind] += 1
                point = kind, self._taken[kind]
                if point not in self.runs:
                    return point
        return None

    def _goes_on(self, kind: Kind) -> bool:
        if 0 < self.most <= self._taken[kind]:
            return False
        known = {at: done for (k, at), done in self.runs.items() if k == kind}
        beyond = sum(not done.blown for done in known.values())
        # Below one that is known there may be some that have to be repeated.
        return beyond < BEYOND or self._taken[kind] < max(known)

    def points(self, kind: Kind) -> int:
        """At how many calls or pushes the operator was ended."""
        return sum(run.blown for (k, _), run in self.runs.items() if k == kind)

    def row(self) -> str:
        """The row of a table."""
        runs = self.runs.values()
        cells = [
            *map(self.points, KINDS),
            f"{sum(r.requests for r in runs):,}",
            sum(r.lost for r in runs),
            sum(r.misrouted for r in runs),
            sum(bool(r.problems) for r in runs),
        ]
        return f"| {self.name} | {' | '.join(map(str, cells))} |"


class Record:
    """Every run as a line of JSON in a file, so that a sweep that was stopped can go on."""

    def __init__(self, path: Path | None, sweeps: list[Sweep]) -> None:
        self._path = path
        by_name = {sweep.name: sweep for sweep in sweeps}
        for line in path.read_text().splitlines() if path and path.exists() else ():
            name, kind, at, told = json.loads(line)
            if name in by_name and not told["problems"]:
                by_name[name].runs[kind, at] = Run(**told)

    def add(self, sweep: Sweep, kind: Kind, at: int, done: Run) -> None:
        """Note a run; what was seen is also told at once."""
        sweep.runs[kind, at] = done
        print(f"{sweep.name}, {kind} {at}: {done}", file=sys.stderr)
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps([sweep.name, kind, at, asdict(done)]) + "\n")


async def work(lane: Lane, sweeps: list[Sweep], record: Record) -> None:
    """Take one point after the other, of the rollout that the fewest lanes work on.

    A lane in which not even an undisturbed rollout ends is of no use any more: the others go on.
    """
    while sweeps:
        sweep = min(sweeps, key=lambda each: each.lanes)
        sweep.lanes += 1
        while point := sweep.take():
            try:
                await prepare(lane, SCENARIOS[sweep.name])
            except StuckError as error:
                stuck = Run(blown=True, count=0, seconds=0.0, problems=[f"before: {error}"])
                record.add(sweep, *point, stuck)
                print(await lane.logs(), file=sys.stderr)
                return
            while point and await _pass(lane, sweep, record, *point):
                point = sweep.take()
        sweep.lanes -= 1
        if sweep in sweeps:
            sweeps.remove(sweep)


async def _pass(lane: Lane, sweep: Sweep, record: Record, kind: Kind, at: int) -> bool:
    """Go through one point; returns whether the lane is where the next one begins."""
    try:
        done = await run(lane, SCENARIOS[sweep.name], f"{kind}-{at}", kind, at)
    except StuckError as error:
        done = Run(blown=True, count=0, seconds=0.0, problems=[str(error)])
        print(await lane.logs(), file=sys.stderr)
    record.add(sweep, kind, at, done)
    return not done.problems


async def sweep_all(
    cluster: Cluster, directory: Path, number: int, sweeps: list[Sweep], record: Record
) -> None:
    """Every point of these rollouts, in so many lanes."""
    versions, digits = train(directory / "models")
    Kubectl(cluster.kubeconfig).apply(definition())

    async def one(lane: Lane) -> None:
        async with lane.running():
            await work(lane, unfinished, record)

    unfinished = list(sweeps)
    names = [f"lane-{i}" for i in range(number)]
    async with asyncio.TaskGroup() as group:
        for lane in lanes(cluster, directory, versions, digits, names):
            group.create_task(one(lane))


def main() -> None:
    """Sweep and print a table; exits with 1 when anything was noticed or ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lanes", type=int, default=6, help="rollouts beside each other")
    parser.add_argument("--most", type=int, default=0, help="no point beyond this; 0: all")
    parser.add_argument("--only", choices=SCENARIOS, help="this rollout alone")
    parser.add_argument(
        "--record", type=Path, help="file for every run; a sweep goes on after those that are in it"
    )
    given = parser.parse_args()
    sweeps = [Sweep(name, given.most) for name in SCENARIOS if given.only in (None, name)]
    record, began = Record(given.record, sweeps), time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        with Cluster(directory / "cluster", images=images(), back_off_cap=1.0) as cluster:
            asyncio.run(sweep_all(cluster, directory, given.lanes, sweeps, record))
    titles = ["rollout", "after a call", "after a push", "requests", "lost", "misrouted", "wrong"]
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for sweep in sweeps:
        print(sweep.row())
    points = sum(sweep.points(kind) for sweep in sweeps for kind in KINDS)
    print(f"\n{points} points, the last of them after {(time.monotonic() - began) / 60:.0f} min")
    problems = [
        f"{sweep.name}, {kind} {at}: {problem}"
        for sweep in sweeps
        for (kind, at), done in sweep.runs.items()
        for problem in done.problems
    ]
    print("\n".join(problems[:50]))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
