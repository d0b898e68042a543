"""Rollouts under load while operator, gateway and model processes are killed at random.

    python -m tests.bench.chaos [--rollouts 100] [--rate 500] [--longest SECONDS]

A local cluster of its own: two operators, two gateways, two cohorts. What counts as lost is told in
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kohort_local.admin import AdminClient
from kohort_local.cluster import Cluster
from kohort_local.install import NAMESPACE, Installation, images, install
from kohort_local.models import train
from kohort_local.process import read_record
from kohort_local.traffic import Account, Clients
from tests.e2e.world import Model

NAME = "chaos"
POINT = "example.com/rollout"
STEPS = [{"weight": 20, "hold": "1s"}, {"weight": 60, "hold": "1s"}]
BETWEEN_KILLS = (1.0, 5.0)  # seconds
PATIENCE = 180.0
LOOK_SECONDS = 0.2
# A request that was under way on a gateway that is killed is heard of within this many seconds.
CUT_SECONDS = 3.0


class StuckError(Exception):
    """A rollout did not come to its end; the message is what was there instead."""


@dataclass
class Look:
    """Looks at the cluster without a process for each look, of which there are some every second."""

    admin: AdminClient

    def model(self) -> dict[str, Any]:
        """The model that is rolled out; empty when the API server does not answer."""
        path = f"/apis/kohort.dev/v1alpha1/namespaces/default/modeldeployments/{NAME}"
        return self.admin.get(path) or {}

    def pods(self, namespace: str, label: str) -> list[dict[str, Any]]:
        """Pods with a label; none when the API server does not answer."""
        found = self.admin.get(f"/api/v1/namespaces/{namespace}/pods?labelSelector={label}")
        return list((found or {}).get("items", []))


@dataclass
class Killer:
    """Kills one process after the other with SIGKILL, so that what it does can be survived.

    The last ready gateway is spared, and so is the last ready pod of a revision that is some cohort's
    stable: with nobody left to answer there is nothing to show.
    """

    look: Look
    directory: Path
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    gateway_kills: list[float] = field(default_factory=list)

    async def run(self) -> None:
        """Kills until cancelled."""
        while True:
            await asyncio.sleep(self.chance.uniform(*BETWEEN_KILLS))
            what = self.chance.choice(("operator", "gateway", "model"))
            victim = await asyncio.to_thread(self._choose, what)
            if victim is None:
                continue
            for path in self.directory.glob(f"nodes/*/pods/{victim['metadata']['uid']}/*.process"):
                process = read_record(path)
                if process is None:
                    continue
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills[what] += 1
                if what == "gateway":
                    self.gateway_kills.append(time.monotonic())

    def _choose(self, what: str) -> dict[str, Any] | None:
        if what == "model":
            stable = {c["stable"] for c in self.look.model().get("status", {}).get("cohorts", [])}
            if not stable:
                return None
            found = self.look.pods("default", f"kohort.dev/model={NAME}")
            ready = Counter(_revision(pod) for pod in found if _ready(pod))
            pods = [p for p in found if _revision(p) not in stable or ready[_revision(p)] > 1]
        else:
            pods = self.look.pods(NAMESPACE, f"app.kubernetes.io/component={what}")
            if what == "gateway" and sum(map(_ready, pods)) < len(pods):
                return None
        pods = [pod for pod in pods if _ready(pod)]
        return self.chance.choice(pods) if pods else None


def _revision(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["kohort.dev/revision"])


def _ready(pod: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


class Rollouts:
    """One rollout after the other, each of a random kind, and whether it ended as it must."""

    def __init__(self, model: Model, look: Look, chance: random.Random) -> None:
        self._model = model
        self._look = look
        self._chance = chance
        self._number = 0
        self._stable: dict[str, str] = {}
        self._may_undo = False
        self.bad: set[str] = set()
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []

    async def first(self) -> None:
        """The revision that serves first."""
        await self._apply("v1")
        await self._ends("first", lambda desired: {"batchers": desired, "singles": desired})

    async def next(self) -> None:
        """One more."""
        kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "promotion": self._promotion,
            "rollback": self._rollback,
            "abort": self._abort,
            "undo": self._undo,
        }
        kind = self._chance.choice([k for k in kinds if k != "undo" or self._may_undo])
        await kinds[kind]()
        self.done[kind] += 1

    async def _promotion(self) -> None:
        await self._apply(self._chance.choice(("v1", "v2")))
        await self._ends("promotion", lambda desired: {"batchers": desired, "singles": desired})
        self._may_undo = True

    async def _rollback(self) -> None:
        before = self._stable["batchers"]
        await self._apply("v3")
        await self._ends("rollback", lambda desired: {"batchers": before, "singles": desired})
        self._may_undo = False

    async def _abort(self) -> None:
        before = dict(self._stable)
        await self._apply(self._chance.choice(("v1", "v2")))
        await self._until("clients on it", lambda s: any(c.get("weight") for c in s["cohorts"]))
        await self._say("abort")
        await self._ends("abort", lambda _: before)
        self._may_undo = False

    async def _undo(self) -> None:
        before = dict(self._stable)
        await self._say("undo")
        await self._ends("undo", lambda desired: {"batchers": desired, "singles": desired})
        if self._stable == before:
            self.problems.append(f"undo {self._number} changed nothing")
        self._may_undo = False

    async def _apply(self, version: str) -> None:
        self._number += 1
        model = self._model
        manifest = model.manifest(
            version,
            template={"metadata": {"annotations": {POINT: str(self._number)}}},
            keepWarm="0s",
        )
        for cohort in manifest["spec"]["cohorts"]:
            cohort["steps"] = STEPS
        await asyncio.to_thread(model.kubectl.apply, manifest)
        if version == "v3":
            status = await self._until(
                "it is known", lambda s: s["desired"] not in self._stable.values()
            )
            self.bad.add(status["desired"])

    async def _say(self, verb: str) -> None:
        line = f"{verb} id={verb}-{self._number}"
        self._number += 1
        await asyncio.to_thread(
            self._model.kubectl,
            *("annotate", "--overwrite", f"mdep/{NAME}", f"kohort.dev/command={line}"),
        )
        await self._until(f"{line} is answered", lambda s: s.get("command", {}).get("line") == line)

    async def _ends(self, kind: str, wanted: Callable[[str], dict[str, str]]) -> None:
        def ended(status: dict[str, Any]) -> bool:
            stable = {c["name"]: c.get("stable") for c in status["cohorts"]}
            resting = all(c["phase"] in ("Stable", "RolledBack") for c in status["cohorts"])
            return resting and stable == wanted(status["desired"])

        status = await self._until(f"{kind} {self._number} ends as it must", ended)
        self._stable = {c["name"]: c["stable"] for c in status["cohorts"]}

    async def _until(self, what: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Status once it says so of the newest spec."""
        end = time.monotonic() + PATIENCE
        status: dict[str, Any] = {}
        while time.monotonic() < end:
            found = await asyncio.to_thread(self._look.model)
            if found:
                status = found.get("status") or {}
                seen = status.get("observedGeneration") == found["metadata"]["generation"]
                if seen and status.get("cohorts") and true(status):
                    return status
            await asyncio.sleep(LOOK_SECONDS)
        raise StuckError(f"never happened: {what}; {status}")


def report(
    account: Account, rollouts: Rollouts, killer: Killer, seconds: float
) -> tuple[list[str], bool]:
    """A table, and whether all is as it must be."""
    refused = [
        (cohort, revision, number)
        for (cohort, revision, outcome), number in account.counts.items()
        if outcome == "refused"
    ]
    own = sum(n for cohort, r, n in refused if cohort == "batchers" and r in rollouts.bad)
    others = sum(n for *_, n in refused) - own
    unexplained = [
        at
        for at in account.cut
        if not any(0 <= at - k <= CUT_SECONDS for k in killer.gateway_kills)
    ]
    lost = len(account.lost) + len(unexplained)
    rows = [
        ("rollouts", ", ".join(f"{n} {kind}" for kind, n in sorted(rollouts.done.items()))),
        ("killed", ", ".join(f"{n} {what}" for what, n in sorted(killer.kills.items()))),
        ("seconds", f"{seconds:.0f}"),
        ("requests", f"{account.total:,} ({account.total / seconds:.0f}/s)"),
        ("lost", str(lost)),
        ("misrouted", str(len(account.misrouted))),
        ("failed: the bad canary's own", str(own)),
        ("failed: others", str(others)),
        ("sent twice: cut by a killed gateway", str(len(account.cut) - len(unexplained))),
        ("rollouts that ended otherwise", str(len(rollouts.problems))),
    ]
    good = not (lost or account.misrouted or others or rollouts.problems)
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    lines += [str(each) for each in (*account.lost[:10], *account.misrouted[:10])]
    return [*lines, *rollouts.problems], good


async def storm(
    installation: Installation,
    cluster: Cluster,
    models: Path,
    number: int,
    rate: float,
    longest: float,
) -> tuple[list[str], bool]:
    """So many rollouts at this many requests a second; fewer when ``longest`` seconds are over."""
    versions, digits = train(models)
    chance = random.Random(4)
    model = Model(installation.kubectl, installation.gateway_url, NAME, versions, digits)
    look = Look(cluster.admin)
    rollouts = Rollouts(model, look, chance)
    killer = Killer(look, cluster.state_dir, random.Random(5))
    await rollouts.first()
    period = 0.5
    each = max(1, round(rate * period / 2))
    groups = [
        Clients("batchers", {"x-app": "archive"}, count=each, rows=4, period=period),
        Clients("singles", {"x-app": "scanner"}, count=each, rows=1, period=period),
    ]
    traffic = model.traffic(*groups)
    traffic.resend = True
    began = time.monotonic()
    async with traffic:
        killing = asyncio.create_task(killer.run())
        try:
            for index in range(number):
                if time.monotonic() - began > longest:
                    break
                await rollouts.next()
                account = traffic.account
                said = f"{index + 1} rollouts, {dict(rollouts.done)}, killed {dict(killer.kills)}"
                seen = f"{account.total} requests, {len(account.lost)} lost, {len(account.cut)} cut"
                print(f"{time.monotonic() - began:.0f} s: {said}; {seen}", file=sys.stderr)
        except StuckError as error:
            rollouts.problems.append(str(error))
        finally:
            killing.cancel()
        seconds = time.monotonic() - began
    if killing.done() and not killing.cancelled() and (failure := killing.exception()):
        raise failure
    return report(traffic.account, rollouts, killer, seconds)


def main() -> None:
    """Print a table; exits with 1 when it is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=100)
    parser.add_argument("--rate", type=float, default=500, help="requests a second")
    parser.add_argument(
        "--longest", type=float, default=math.inf, help="seconds after which no rollout begins"
    )
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as made,
        Cluster(Path(made) / "cluster", images=images(), back_off_cap=1.0) as cluster,
    ):
        installation = install(cluster.kubeconfig, cluster.node_port_range)
        models = Path(made) / "models"
        lines, good = asyncio.run(
            storm(installation, cluster, models, given.rollouts, given.rate, given.longest)
        )
    print("\n".join(lines))
    sys.exit(not good)


if __name__ == "__main__":
    main()
