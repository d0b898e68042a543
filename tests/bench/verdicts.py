"""Whole rollouts of good and bad revisions on the real path: how they end, and after how long.

    python -m tests.bench.verdicts [--healthy 50] [--harmful 20] [--beside 8] [--hold 330] [--record FILE]

A local cluster of its own, with Envoy and model servers whose faults are those of
``tests.bench.faulty_server``. Clients differ in how much they send, how often their requests fail and
how long they take. Beside it, what thresholds as in others' documentation would have made of what the
same clients were answered. With a record, rollouts are added to those that are in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import numpy as np

from kohort.contract import HEADER_REVISION
from kohort_local.admin import AdminClient
from kohort_local.cluster import Cluster
from kohort_local.install import SERVER_IMAGE, images, install
from kohort_local.kubectl import Kubectl
from tests.bench.deciders import Array, minute_thresholds, rate_thresholds
from tests.bench.faulty_server import FAULTS, NUMBERS
from tests.bench.server import save_mlp
from tests.bench.worlds import World

MODELS = "/apis/kohort.dev/v1alpha1/namespaces/default/modeldeployments"
CLIENTS, GROUP_SHARE = 500, 0.1
RATE = 50.0  # requests a second of one model
BASE, CONCENTRATION = 0.01, 1.0
MEDIAN_MS, SPREAD, UNLIKE = 25.0, 0.6, 0.8
WEIGHT = 25
SCRAPE = 5.0
LOOK_SECONDS = 0.5
PATIENCE = 120.0  # beyond the hold: a step that is not over then is told as one that holds
HOLDS = "Holds"
RESTING = ("Stable", "RolledBack")
THRESHOLDS = {"5 bad minutes": minute_thresholds, "4 bad rates": rate_thresholds}


@dataclass(frozen=True)
class Client:
    """One client: how much of the traffic is its own, and what its requests are like."""

    key: str
    weight: float
    failing: float
    log_ms: float
    group: int

    def row(self, chance: random.Random) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The numbers of its next request."""
        fails = chance.random() < self.failing
        milliseconds = np.exp(chance.gauss(self.log_ms, SPREAD))
        return np.array([[fails, milliseconds, self.group, chance.random()]], np.float32)


def clients(chance: random.Random) -> list[Client]:
    """The clients of one model."""
    a, b = CONCENTRATION * BASE, CONCENTRATION * (1 - BASE)
    log_median = float(np.log(MEDIAN_MS))
    return [
        Client(
            key=f"client-{number}",
            weight=(number + 1) ** -0.8,
            failing=chance.betavariate(a, b),
            log_ms=chance.gauss(log_median, UNLIKE),
            group=int(chance.random() < GROUP_SHARE),
        )
        for number in range(CLIENTS)
    ]


@dataclass
class Answers:
    """What clients of one model were answered: by revision and second, requests and failures."""

    counts: dict[str, dict[int, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: [0, 0]))
    )
    first: dict[str, float] = field(default_factory=dict)
    lost: int = 0

    def add(self, revision: str, failed: bool) -> None:
        """Counts one."""
        now = time.monotonic()
        self.first.setdefault(revision, now)
        count = self.counts[revision][int(now)]
        count[0] += 1
        count[1] += failed


@dataclass(frozen=True)
class Seen:
    """What a decider of ``tests.bench.deciders`` looks at: the canary's answers by scrape."""

    world: World
    arms: tuple[Array, Array, Array, Array]

    @classmethod
    def of(cls, counts: dict[int, list[int]], since: float, until: float) -> Seen:
        """Answers of one revision between two moments."""
        scrapes = int((until - since) / SCRAPE) + 1
        rows = np.zeros((2, scrapes))
        for second, (requests, failed) in counts.items():
            place = int((second - since) / SCRAPE)
            if 0 <= place < scrapes:
                rows[:, place] += requests, failed
        return cls(World(scrape=SCRAPE), (rows[0], rows[1], rows[0], rows[0]))


async def send(url: str, who: list[Client], answers: Answers, seed: int) -> None:
    """Requests at random times until cancelled."""
    chance = random.Random(seed)
    weights = [client.weight for client in who]
    sending: set[asyncio.Task[None]] = set()

    async def one(client: Client) -> None:
        head, body = encoded(client.row(chance))
        headers = {"x-client-id": client.key, "Inference-Header-Content-Length": str(head)}
        try:
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
                answers.add(answer.headers.get(HEADER_REVISION, ""), answer.status != 200)
        except (aiohttp.ClientError, TimeoutError):
            answers.lost += 1

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        at = time.monotonic()
        while True:
            at = max(at + chance.expovariate(RATE), time.monotonic() - 1)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            task = asyncio.create_task(one(chance.choices(who, weights)[0]))
            sending.add(task)
            task.add_done_callback(sending.discard)


def encoded(row: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[int, bytes]:
    """A request with the binary extension: length of its JSON part, and the whole body."""
    raw = row.tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1, NUMBERS],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(raw)},
                }
            ]
        }
    ).encode()
    return len(head), head + raw


@dataclass
class Lane:
    """One model that has one rollout after the other, and its clients."""

    name: str
    kubectl: Kubectl
    admin: AdminClient
    model: Path
    hold: float
    number: int = 0
    answers: Answers = field(default_factory=Answers)

    def manifest(self, fault: str) -> dict[str, Any]:
        """The next revision."""
        self.number += 1
        env = [{"name": "FAULT", "value": fault}]
        return {
            "apiVersion": "kohort.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {
                "model": {"uri": f"file://{self.model}"},
                "replicas": 1,
                "keepWarm": "0s",
                "template": {
                    "metadata": {"annotations": {"example.com/rollout": str(self.number)}},
                    "spec": {"containers": [{"name": "server", "env": env}]},
                },
                "cohorts": [
                    {
                        "name": "everyone",
                        "steps": [{"weight": WEIGHT, "hold": f"{self.hold:g}s"}],
                    }
                ],
            },
        }

    async def roll_out(self, fault: str) -> dict[str, Any]:
        """One rollout, to its end."""
        before = await asyncio.to_thread(self._status)
        await asyncio.to_thread(self.kubectl.apply, self.manifest(fault))
        end = time.monotonic() + self.hold + PATIENCE
        while time.monotonic() < end:
            await asyncio.sleep(LOOK_SECONDS)
            status = await asyncio.to_thread(self._status)
            cohort: dict[str, Any] = next(iter(status.get("cohorts", [])), {})
            desired = status.get("desired")
            if not desired or desired == before.get("desired"):
                continue
            decided: dict[str, Any] = next(iter(cohort.get("decisions", [])), {})
            over = not before or decided.get("revision") == desired
            if over and cohort.get("phase") in RESTING:
                return self._told(fault, desired, decided)
        if not before or not desired or desired == before.get("desired"):
            raise SystemExit(f"{self.name}: {fault} did not begin: {status}")
        return self._told(fault, desired, {"action": HOLDS, "message": cohort.get("message")})

    def _told(self, fault: str, revision: str, decided: dict[str, Any]) -> dict[str, Any]:
        now = time.monotonic()
        first = self.answers.first.get(revision, now)
        counts = self.answers.counts[revision]
        seen = Seen.of(counts, first, now)
        return {
            "fault": fault,
            "action": decided.get("action"),
            "message": decided.get("message"),
            "seconds": now - first,
            "requests": sum(requests for requests, _ in counts.values()),
            "failed": sum(failed for _, failed in counts.values()),
            "lost": self.answers.lost,
            **{name: decide(seen) is not None for name, decide in THRESHOLDS.items()},  # type: ignore[arg-type]
        }

    def _status(self) -> dict[str, Any]:
        found = self.admin.get(f"{MODELS}/{self.name}") or {}
        status = found.get("status") or {}
        seen = status.get("observedGeneration") == found.get("metadata", {}).get("generation")
        return dict(status) if seen else {}


async def work(lane: Lane, url: str, wanted: list[str], record: Path, seed: int) -> None:
    """Rollouts of what is still wanted."""
    await lane.roll_out("none")
    path = f"{url}/default/{lane.name}/v2/models/{lane.name}/infer"
    who = clients(random.Random(seed))
    sending = asyncio.create_task(send(path, who, lane.answers, seed))
    try:
        while wanted:
            fault = wanted.pop()
            ended = await lane.roll_out(fault)
            with record.open("a") as file:
                file.write(json.dumps(ended) + "\n")
            print(f"{lane.name}: {ended}", file=sys.stderr, flush=True)
            if fault != "none" and ended["action"] == "Promoted":
                await lane.roll_out("none")  # what comes next is compared with a good one
    finally:
        sending.cancel()


def report(rows: Iterable[dict[str, Any]]) -> str:
    """A table."""
    by_fault = defaultdict(list)
    for row in rows:
        by_fault[row["fault"]].append(row)
    head = ["revision", "rollouts", "went back", "still held", "seconds, median", "most"]
    head.append("canary failures, median")
    lines = [[*head, *(f"thresholds, {name}" for name in THRESHOLDS)]]
    lines.append(["---"] * len(lines[0]))
    for fault in FAULTS:
        ended = by_fault[fault]
        back = [row for row in ended if row["action"] == "RolledBack"]
        held = sum(row["action"] == HOLDS for row in ended)
        seconds = [row["seconds"] for row in back]
        told = [f"{median(seconds):.0f}", f"{max(seconds):.0f}"] if back else ["", ""]
        failed = f"{median(row['failed'] for row in back):.0f}" if back else ""
        others = [str(sum(row[name] for row in ended)) for name in THRESHOLDS]
        lines.append([fault, str(len(ended)), str(len(back)), str(held), *told, failed, *others])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


async def measure(cluster: Cluster, given: argparse.Namespace, directory: Path) -> None:
    """All rollouts, some at a time."""
    model = directory / "model.onnx"
    save_mlp(model, (NUMBERS, NUMBERS))
    installation = install(
        cluster.kubeconfig, cluster.node_port_range, operators=1, scrape_interval=f"{SCRAPE:g}s"
    )
    wanted = ["none"] * given.healthy
    wanted += [fault for fault in FAULTS if fault != "none" for _ in range(given.harmful)]
    random.Random(1).shuffle(wanted)
    lanes = [
        Lane(f"lane-{number}", installation.kubectl, cluster.admin, model, given.hold)
        for number in range(given.beside)
    ]
    async with asyncio.TaskGroup() as tasks:
        for seed, lane in enumerate(lanes):
            tasks.create_task(
                work(lane, installation.gateway_url, wanted, given.record, given.seed + seed)
            )


def main() -> None:
    """Measures on a cluster of its own, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--healthy", type=int, default=50, help="rollouts without harm")
    parser.add_argument("--harmful", type=int, default=20, help="rollouts of each kind of harm")
    parser.add_argument("--beside", type=int, default=8, help="models that are rolled out at once")
    parser.add_argument(
        "--hold", type=float, default=330, help="seconds until a canary is promoted"
    )
    parser.add_argument("--record", type=Path, help="file of rollouts, one a line")
    parser.add_argument("--seed", type=int, default=1, help="of clients")
    given = parser.parse_args()
    server: dict[str, Any] = {
        "entrypoint": [sys.executable, "-m", "tests.bench.faulty_server"],
        "env": {"PYTHONPATH": str(Path(__file__).parents[2])},
    }
    with tempfile.TemporaryDirectory() as made:
        given.record = given.record or Path(made) / "rollouts"
        known: dict[str, dict[str, Any]] = {**images(), SERVER_IMAGE: server}
        with Cluster(Path(made) / "cluster", images=known, back_off_cap=1.0) as cluster:
            asyncio.run(measure(cluster, given, Path(made)))
        print(report(map(json.loads, given.record.read_text().splitlines())))


if __name__ == "__main__":
    main()
