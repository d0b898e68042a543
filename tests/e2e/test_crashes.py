"""A sample of the points at which ``python -m tests.bench.crashes`` ends the operator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kohort.api.crd import definition
from kohort_local.cluster import Cluster
from kohort_local.install import images
from kohort_local.kubectl import Kubectl
from kohort_local.models import Digits
from tests.e2e.crashes import SCENARIOS, Kind, prepare, run
from tests.e2e.lane import Lane, lanes

SEED = 4
POINTS_EACH = 1  # what a minute of a quiet machine holds
# Calls and pushes that each of these rollouts has whenever it is gone through.
SURE: dict[str, dict[Kind, int]] = {
    "promotion": {"call": 14, "push": 8},
    "rollback of one cohort": {"call": 14, "push": 8},
    "supersede": {"call": 14, "push": 8},
    "undo": {"call": 9, "push": 6},
    "delete and re-creation": {"call": 4, "push": 3},
}


@pytest.fixture(scope="module")
def bare_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane without an operator for all of it, which would go on where another is ended."""
    directory = tmp_path_factory.mktemp("crashes")
    with Cluster(directory, images=images(), back_off_cap=1.0) as cluster:
        Kubectl(cluster.kubeconfig).apply(definition())
        yield cluster


def chosen() -> dict[str, list[tuple[Kind, int]]]:
    """So many points of each rollout, whichever chance takes."""
    chance = random.Random(SEED)
    every: dict[str, list[tuple[Kind, int]]] = {
        name: [(kind, at) for kind, number in sure.items() for at in range(1, number + 1)]
        for name, sure in SURE.items()
    }
    return {name: chance.sample(points, POINTS_EACH) for name, points in every.items()}


async def test_a_rollout_ends_the_same_wherever_the_operator_is_ended(
    bare_cluster: Cluster, trained: tuple[dict[str, Path], Digits], tmp_path: Path
) -> None:
    points = chosen()
    assert points.keys() == SCENARIOS.keys()

    async def go_through(lane: Lane, name: str) -> list[str]:
        problems = []
        async with lane.running():
            await prepare(lane, SCENARIOS[name])
            for kind, at in points[name]:
                last = (kind, at) == points[name][-1]
                done = await run(lane, SCENARIOS[name], f"{kind}-{at}", kind, at, last=last)
                if not done.blown:
                    problems.append(f"{name}: there are {done.count} {kind}s, and {at} was chosen")
                problems += [f"{name}, {kind} {at}: {problem}" for problem in done.problems]
        return problems

    made = lanes(bare_cluster, tmp_path, *trained, [f"crash-{i}" for i in range(len(points))])
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(go_through(*each)) for each in zip(made, points, strict=True)]
    print(f"the operator was ended at {sum(map(len, points.values()))} points: {points}")
    assert not [problem for task in tasks for problem in task.result()]
