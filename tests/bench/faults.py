"""How soon a rollout goes on after the API server or etcd was away, and what clients met meanwhile.

``python -m tests.bench.faults [--seconds 60]`` starts a cluster of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from functools import partial
from pathlib import Path

from kohort_local.cluster import Cluster
from kohort_local.models import train
from tests.e2e.faulty_world import faulty_world
from tests.e2e.world import Model, in_thread


async def outage(cluster: Cluster, model: Model, part: str, seconds: float) -> None:
    """Prints a row: a part is stopped before v2 is asked for, which happens once it is back."""
    async with model.served("v1") as traffic:
        if part:
            await asyncio.to_thread(cluster.stop, part)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(cluster.start, part)
        before = set(traffic.account.first_answer)
        began = time.monotonic()
        await asyncio.to_thread(model.apply, "v2")
        await in_thread(
            "v2 has clients", lambda: set(traffic.account.first_answer) - before, within=180
        )
        first = min(
            traffic.account.first_answer[p] for p in set(traffic.account.first_answer) - before
        )
        await in_thread("v2 serves", partial(model.serves, singles="v2", batchers="v2"), 180)
    account = traffic.account
    refused = account.refused("singles") + account.refused("batchers")
    print(
        f"| {part or 'nothing'} | {seconds if part else 0:.0f} | {first - began:.1f} "
        f"| {time.monotonic() - began:.1f} | {account.total} "
        f"| {len(account.lost) + len(account.misrouted) + refused} |",
        flush=True,
    )


async def measure(directory: Path, seconds: float) -> None:
    """Prints the table."""
    (directory / "models").mkdir()
    trained = train(directory / "models")
    with faulty_world(directory) as (cluster, installation, _):
        print(
            "| stopped | s | to the first canary answer, s | to v2 everywhere, s | requests | lost |"
        )
        print("|---|---|---|---|---|---|")
        for part in ("", "kube-apiserver", "etcd"):
            name = f"outage-{part or 'none'}"
            model = Model(installation.kubectl, installation.gateway_url, name, *trained)
            await outage(cluster, model, part, seconds)
            installation.kubectl("delete", "mdep", name)


def main() -> None:
    """Measures on a cluster of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a part is away")
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory), parser.parse_args().seconds))


if __name__ == "__main__":
    main()
