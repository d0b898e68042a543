"""How often rollouts end wrongly, and how soon harm is seen: Kohort beside others in simulated worlds.

``python -m tests.bench.statistics [--runs 10000] [--write docs/statistics.md]`` takes one core. It
prints tables, and puts them between the marks of the same name in a file. The same seed gives the same
figures.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np

from kohort.analysis.betting import requests_to_tell
from kohort.analysis.confirming import look
from kohort.analysis.split import canary_slots
from tests.bench.deciders import ALPHA, DECIDERS, kohort, past, proofs, since, single_requests
from tests.bench.durations import Timing, ends
from tests.bench.worlds import World, runs

SEED = 20261126
CLUMPED = World(concentration=1)
RAMP = ((60, 5), (120, 25), (120, 50))

AGAINST_OTHERS = {
    "independent requests": World(),
    "clients that clump": CLUMPED,
    "clients that clump, in bursts": replace(CLUMPED, bursts=True),
    "weights 5, 25, 50 %": replace(CLUMPED, weights=RAMP),
}
HEADLINE = {
    **AGAINST_OTHERS,
    "2 % canary": replace(CLUMPED, weights=((600, 2),)),
    "50 clients": replace(CLUMPED, clients=50),
    "whales (Zipf 1.2)": replace(CLUMPED, zipf=1.2),
    "nothing known of before": replace(CLUMPED, past=0),
}
WIDE = {
    "5 req/s": replace(CLUMPED, rate=5),
    "500 req/s": replace(CLUMPED, rate=500),
    "5,000 req/s": replace(CLUMPED, rate=5000),
    "base .1 %": replace(CLUMPED, base=0.001),
    "base 5 %": replace(CLUMPED, base=0.05),
    "base 20 %": replace(CLUMPED, base=0.2),
    "1 % canary": replace(CLUMPED, weights=((600, 1),)),
    "25 % canary": replace(CLUMPED, weights=((600, 25),)),
    "50 % canary": replace(CLUMPED, weights=((600, 50),)),
    "concentration 5": replace(CLUMPED, concentration=5),
    "concentration 20": replace(CLUMPED, concentration=20),
    "resets": replace(CLUMPED, resets=0.1),
    "lost scrapes": replace(CLUMPED, lost=0.3),
    "daily swing": replace(CLUMPED, daily=0.8),
    "100,000 clients": replace(CLUMPED, clients=100_000),
    "an hour": replace(CLUMPED, weights=((3600, 10),), scrape=10),
}
FEW = {
    f"{clients} clients, {weight} %{burst}": replace(
        CLUMPED, clients=clients, weights=((600, weight),), bursts=bool(burst)
    )
    for clients in (3, 10, 20)
    for weight in (10, 50)
    for burst in ("", ", in bursts")
}
HARM = {
    "1 to 2 %": World(harm=2, weights=((1800, 10),)),
    "1 to 5 %": World(harm=5),
    "1 to 5 %, concentration 5": World(harm=5, concentration=5),
    "1 to 5 %, 2 % canary": World(harm=5, weights=((600, 2),)),
    "1 to 3 %, weights 5, 25, 50 %": World(harm=3, weights=RAMP),
    "5 % of clients break": replace(CLUMPED, broken=0.05),
    "all clients break": replace(CLUMPED, broken=1),
    "50 clients, all break": replace(CLUMPED, clients=50, broken=1),
    "10 clients at 50 %, all break": replace(CLUMPED, clients=10, broken=1, weights=((600, 50),)),
}
DIFFER = Timing(unlike=0.8)
TIMINGS = {
    "as fast, clients alike": Timing(),
    "as fast, clients differ": DIFFER,
    "as fast, clients differ, with moods": replace(DIFFER, moods=0.8),
    "as fast, clients differ, 50 clients": replace(DIFFER, clients=50),
    "as fast, clients differ, 2 % canary": replace(DIFFER, weight=2),
    "1.25 times as long": Timing(slower=1.25),
    "1.25 times as long, clients differ": replace(DIFFER, slower=1.25),
    "1.5 times as long": Timing(slower=1.5),
    "1.5 times as long, clients differ": replace(DIFFER, slower=1.5),
    "twice as long beyond 60 ms": Timing(slower=2, beyond=60),
    "twice as long beyond 60 ms, clients differ": replace(DIFFER, slower=2, beyond=60),
}
PROOF = World(rate=200, weights=((1800, 25),), scrape=10)
PROOFS = {
    "independent requests": PROOF,
    "concentration 20": replace(PROOF, concentration=20),
    "concentration 5": replace(PROOF, concentration=5),
    "concentration 1": replace(PROOF, concentration=1),
    "concentration 1, in bursts": replace(PROOF, concentration=1, bursts=True),
    "concentration 5, 10 % canary": replace(PROOF, concentration=5, weights=((1800, 10),)),
    "whales (Zipf 1.2)": replace(PROOF, concentration=1, zipf=1.2),
}


@dataclass(frozen=True)
class Table:
    """A table by name, as rows of cells."""

    name: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def __str__(self) -> str:
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson)."""
    z = NormalDist().inv_cdf(0.975)
    middle = (hits + z * z / 2) / (count + z * z)
    half = z * math.sqrt(hits * (count - hits) / count + z * z / 4) / (count + z * z)
    return max(0.0, middle - half), middle + half


def told(hits: int, count: int) -> str:
    """A share with its interval, in percent."""
    low, high = interval(hits, count)
    return f"{100 * hits / count:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def known(count: int) -> Table:
    """Repeated two-sided 5 % z-tests of normal data, as Armitage, McPherson and Rowe computed."""
    random = np.random.default_rng(SEED)
    looks = np.arange(1, 51)
    crossed = np.zeros(50)
    for _ in range(10):
        walks = random.standard_normal((count, 50)).cumsum(axis=1) / np.sqrt(looks)
        crossed += np.maximum.accumulate(np.abs(walks) > NormalDist().inv_cdf(0.975), axis=1).sum(
            axis=0
        )
    expected = {1: 0.050, 2: 0.083, 5: 0.142, 10: 0.193, 20: 0.248, 50: 0.320}
    rows = [
        (str(look), f"{value:.3f}", f"{crossed[look - 1] / count / 10:.3f}")
        for look, value in expected.items()
    ]
    return Table("known", ("looks", "published", "simulated"), rows)


def others(count: int) -> Table:
    """False rollbacks of everybody."""
    rows = []
    for name, world in AGAINST_OTHERS.items():
        back = dict.fromkeys(DECIDERS, 0)
        for run in runs(world, count, SEED):
            for decider, decide in DECIDERS.items():
                back[decider] += decide(run) is not None
        rows.append((name, *(f"{100 * hits / count:.1f}" for hits in back.values())))
    return Table("others", ("healthy canary, %", *DECIDERS), rows)


def false_rollbacks(name: str, worlds: dict[str, World], count: int) -> Table:
    """False rollbacks of Kohort, with intervals, and of its first layer alone."""
    rows = []
    for world_name, world in worlds.items():
        single = both = 0
        for run in runs(world, count, SEED + 1):
            single += single_requests(run) is not None
            both += kohort(run) is not None
        rows.append((world_name, f"{count:,}", f"{100 * single / count:.1f}", told(both, count)))
    return Table(name, ("healthy canary", "runs", "single requests, %", "Kohort, %"), rows)


def limit(world: World) -> float:
    """Seconds that any test of independent requests needs on average; infinite for clients that break."""
    if world.harm == 1 or len(world.weights) > 1:
        return math.nan
    share = world.weights[0][1] / 100
    return requests_to_tell(share, world.base, world.base * world.harm, ALPHA) / world.rate


def detection(count: int) -> Table:
    """How often, how soon, and after how many failures harm is seen."""
    rows = []
    for name, world in HARM.items():
        alone, ends = [], []
        failures = []
        for run in runs(world, count, SEED + 2):
            alone.append(single_requests(run))
            ends.append(kohort(run))
            if ends[-1] is not None:
                failures.append(run.arms[1][: ends[-1] + 1].sum())
        delays = [(end + 1) * world.scrape for end in ends if end is not None]
        floor = limit(world)
        rows.append(
            (
                name,
                f"{100 * sum(end is not None for end in alone) / count:.0f}",
                f"{100 * len(delays) / count:.0f}",
                "" if math.isnan(floor) else f"{floor:.0f}",
                f"{np.median(delays):.0f}",
                f"{np.mean(delays):.0f}",
                f"{np.median(failures):.0f}",
            )
        )
    head = (
        "harm, 50 req/s",
        "single requests see, %",
        "Kohort sees, %",
        "limit, s",
        "median, s",
        "mean, s",
        "canary failures, median",
    )
    return Table("detection", head, rows)


def promotions(count: int) -> Table:
    """Proofs of non-inferiority of a canary at the margin, and of an equal one."""
    rows = []
    for name, world in PROOFS.items():
        for margin in (0.01, 0.005):
            single = both = equal = 0
            for run in runs(replace(world, added=margin), count, SEED + 3):
                alone, proven = proofs(run, margin)
                single, both = single + (alone is not None), both + (proven is not None)
            for run in runs(world, count, SEED + 4):
                equal += proofs(run, margin)[1] is not None
            alone_told = f"{100 * single / count:.1f}"
            row = (
                f"{name}, {margin:.1%}",
                alone_told,
                told(both, count),
                f"{100 * equal / count:.0f}",
            )
            rows.append(row)
    head = ("clients, margin", "single requests, %", "Kohort, %", "equal canary proven, %")
    return Table("proofs", head, rows)


def slowness(count: int) -> Table:
    """What becomes of canaries that are as fast, and of slower ones."""
    rows = []
    for name, world in TIMINGS.items():
        seen = list(ends(world, count, SEED + 6))
        back = sorted(end.back for end in seen if end.back is not None)
        accused = sum(end.accused is not None for end in seen)
        median = f"{np.median(back):.0f}" if world.slower > 1 and back else ""
        rows.append(
            (name, f"{count:,}", f"{100 * accused / count:.1f}", told(len(back), count), median)
        )
    head = ("durations", "runs", "single requests, %", "Kohort, %", "median, s")
    return Table("latency", head, rows)


def cost() -> Table:
    """Milliseconds of processor time of one look, the median of many; the worst is one with harm."""
    rows = []
    for weight in (1, 5, 10, 25, 50):
        world = replace(World(harm=3, rate=200, concentration=5), weights=((300, weight),))
        spent = []
        for run in runs(world, 30, SEED + 5):
            canary, border = canary_slots(weight, run.salt)
            now = since(run, 0, world.scrapes - 1)
            began = time.process_time()
            look(past(run), now, canary, border, 20.0, ALPHA, sum(now.failed))
            spent.append(1000 * (time.process_time() - began))
        rows.append((f"{weight} %", f"{np.median(spent):.1f}", f"{max(spent):.1f}"))
    return Table("cost", ("canary", "look, ms, median", "most"), rows)


def tables(count: int) -> dict[str, Callable[[], Table]]:
    """How to make each table; ``count`` runs for each headline cell."""
    return {
        "cost": cost,
        "known": lambda: known(count),
        "headline": lambda: false_rollbacks("headline", HEADLINE, count),
        "wide": lambda: false_rollbacks("wide", WIDE, max(100, count // 10)),
        "few": lambda: false_rollbacks("few", FEW, max(100, count // 5)),
        "others": lambda: others(max(100, count // 10)),
        "proofs": lambda: promotions(max(50, count // 20)),
        "latency": lambda: slowness(max(50, count // 20)),
        "detection": lambda: detection(max(50, count // 30)),
    }


def put(text: str, table: Table) -> str:
    """The text with the table between its marks; raises ValueError without marks."""
    begin, end = f"<!-- table: {table.name} -->", "<!-- end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no line {begin}")
    return pattern.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", text)


def main(arguments: Iterable[str]) -> None:
    """Computes, prints, writes and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of each headline cell")
    parser.add_argument("--write", type=Path, help="file whose tables are replaced")
    parser.add_argument("--only", nargs="*", help="names of tables; all without it")
    options = parser.parse_args(list(arguments))
    for name, make in tables(options.runs).items():
        if options.only and name not in options.only:
            continue
        table = make()
        print(f"\n{table.name}\n\n{table}", flush=True)
        if options.write:
            options.write.write_text(put(options.write.read_text(), table))


if __name__ == "__main__":
    main(sys.argv[1:])
