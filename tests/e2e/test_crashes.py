"""A sample of the points at which ``python -m tests.bench.crashes`` ends the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from kohort_local.cluster import Cluster
from kohort_local.install import Installation
from kohort_local.models import Digits
from tests.e2e.crashes import SCENARIOS, Kind, prepare, run
from tests.e2e.lane import lanes

# Early and in the middle of each rollout; the bench goes through all of them.
POINTS: tuple[tuple[Kind, int], ...] = (("call", 3), ("call", 6), ("push", 2))


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_rollout_ends_the_same_wherever_the_operator_is_ended(
    name: str,
    e2e_cluster: Cluster,
    installation: Installation,
    trained: tuple[dict[str, Path], Digits],
    tmp_path: Path,
) -> None:
    assert installation  # the CRD is there
    scenario = SCENARIOS[name]
    lane = f"crash-{list(SCENARIOS).index(name)}"
    (made,) = lanes(e2e_cluster, tmp_path, *trained, [lane])
    async with made.running():
        await prepare(made, scenario)
        for kind, at in POINTS:
            done = await run(made, scenario, f"{kind}-{at}", kind, at)
            assert not done.problems
            if name != "delete and re-creation":
                assert done.blown, f"there are {done.count} {kind}s"
