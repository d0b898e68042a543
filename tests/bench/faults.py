"""Two rollouts for each thing that an API server can do to an operator, and what clients met meanwhile.

``python -m tests.bench.faults [--seconds 60] [--only WORDS]`` starts a cluster of its own. What stops is
away for so many seconds and back before v2 is asked for; what else is broken stays so from before v2
until v3 has gone where it may. v2 is good for both cohorts, v3 for one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kohort_local.cluster import Cluster
from kohort_local.models import train
from kohort_local.traffic import Traffic
from tests.component.faulty_proxy import NONE, Faults, FaultyProxy
from tests.e2e.faulty_world import GONE, SHORT_WATCHES, THROTTLED, faulty_world
from tests.e2e.world import Model, in_thread

PATIENCE = 240.0
RECORDS = 3
DECISIONS = {
    "batchers": ["RolledBack", "Promoted", "Promoted"],
    "singles": ["Promoted", "Promoted", "Promoted"],
}


@dataclass(frozen=True)
class Trouble:
    """What goes wrong: a part that stops for a while, or what the proxy breaks."""

    title: str
    part: str = ""
    faults: Faults = NONE


TROUBLES = (
    Trouble("nothing"),
    Trouble("API server stopped", part="kube-apiserver"),
    Trouble("etcd stopped", part="etcd"),
    Trouble("5 calls per second", faults=THROTTLED),
    Trouble("409 for 20 % of calls", faults=Faults(share=0.2, codes=(409,))),
    Trouble("500 for 20 % of calls", faults=Faults(share=0.2, codes=(500,))),
    Trouble("watches closed each second", faults=SHORT_WATCHES),
    Trouble("watches end with 410 each second", faults=GONE),
)


def wrong_decisions(model: Model) -> int:
    """Decisions and records of revisions that should not be there, or are missing."""
    found = {name: Counter(actions) for name, actions in model.decided().items()}
    wrong = abs(model.records() - RECORDS)
    for name, actions in DECISIONS.items():
        known = found.get(name, Counter())
        wrong += ((known - Counter(actions)) + (Counter(actions) - known)).total()
    return wrong


def unserved(model: Model, traffic: Traffic) -> int:
    """Requests lost, misrouted or refused, but those that v3 itself refused."""
    account = traffic.account
    bad = next(r["name"] for r in model.status["revisions"] if Path(r["uri"]).stem == "v3")
    refused = account.refused("singles") + account.refused("batchers")
    return len(account.lost) + len(account.misrouted) + refused - account.refused("batchers", bad)


class Rollouts:
    """The two rollouts of one row."""

    def __init__(self, cluster: Cluster, proxy: FaultyProxy, seconds: float) -> None:
        self._cluster = cluster
        self._proxy = proxy
        self._seconds = seconds

    async def run(self, model: Model, trouble: Trouble) -> str:
        """The row of a table."""
        async with model.served("v1") as traffic:
            if trouble.part:
                await asyncio.to_thread(self._cluster.stop, trouble.part)
                await asyncio.sleep(self._seconds)
                await asyncio.to_thread(self._cluster.start, trouble.part)
            self._proxy.faults = trouble.faults
            self._proxy.written.clear()
            known = set(traffic.account.first_answer)
            began = time.monotonic()
            await asyncio.to_thread(model.apply, "v2")
            applied = time.monotonic()
            await self._until(
                "v2 is recorded", lambda: "controllerrevisions" in self._proxy.written
            )
            first = traffic.account.first_answer
            await self._until("v2 has clients", lambda: first.keys() - known)
            await self._until("v2 serves", partial(model.serves, singles="v2", batchers="v2"))
            everywhere = time.monotonic()
            moments = (
                applied,
                self._proxy.written["controllerrevisions"],
                min(first[place] for place in first.keys() - known),
                everywhere,
            )
            await asyncio.to_thread(model.apply, "v3")
            await self._until("v3 is tried", partial(model.serves, singles="v3", batchers="v2"))
        self._proxy.faults = NONE
        shown = " | ".join(f"{moment - began:.1f}" for moment in moments)
        lost, wrong = unserved(model, traffic), wrong_decisions(model)
        for answer in traffic.account.lost[:5]:
            seconds = answer.at - began
            print(f"lost {seconds:+.1f} s after v2 was asked for: {answer.detail}", file=sys.stderr)
        return f"| {trouble.title} | {shown} | {traffic.account.total} | {lost} | {wrong} |"

    async def _until(self, what: str, condition: Callable[[], Any]) -> None:
        await in_thread(what, condition, PATIENCE)


async def measure(directory: Path, seconds: float, only: str) -> None:
    """Prints the table."""
    (directory / "models").mkdir()
    trained = train(directory / "models")
    with faulty_world(directory) as (cluster, installation, proxy):
        print(
            "| what is wrong | v2 applied, s | recorded by Kohort, s | first canary answer, s "
            "| v2 everywhere, s | requests | lost | wrong decisions |"
        )
        print("|---|---|---|---|---|---|---|---|")
        rollouts = Rollouts(cluster, proxy, seconds)
        for number, trouble in enumerate(t for t in TROUBLES if only in t.title):
            name = f"trouble-{number}"
            model = Model(installation.kubectl, installation.gateway_url, name, *trained)
            print(await rollouts.run(model, trouble), flush=True)
            installation.kubectl("delete", "mdep", name)


def main() -> None:
    """Measures on a cluster of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a part is away")
    parser.add_argument("--only", default="", help="rows whose title has these words")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory), arguments.seconds, arguments.only))


if __name__ == "__main__":
    main()
