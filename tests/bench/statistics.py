"""How often rollouts end wrongly, and how soon harm is seen: Kohort beside others in simulated worlds.

``python -m tests.bench.statistics [--runs 10000] [--record DIRECTORY] [--write docs/statistics.md]`` takes
one core. It prints tables, and puts them between the marks of the same name in a file. The same seed
gives the same figures. With a record it goes on where it was stopped, and ``tests.bench.plots`` can draw
what was simulated.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from kohort.analysis.betting import requests_to_tell
from kohort.api.analysis import Metric
from tests.bench import counted
from tests.bench.cells import (
    AGAINST_OTHERS,
    COUNTS,
    EQUALLY_FAST,
    FEW,
    HARM,
    HARM_AGAINST_OTHERS,
    HARMFUL_COUNTS,
    HEADLINE,
    MARGINS,
    PROOFS,
    SLOWER,
    WIDE,
    WORST_LATENCY,
    WORST_PROOFS,
)
from tests.bench.deciders import ALPHA, DECIDERS, kohort, proofs, single_requests
from tests.bench.durations import Timing, ends
from tests.bench.intervals import told
from tests.bench.record import Record, Row
from tests.bench.worlds import World, Worlds, runs

SEED = 20261126
NEVER = -1.0


@dataclass(frozen=True)
class Table:
    """A table by name, as rows of cells."""

    name: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def __str__(self) -> str:
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def known(record: Record, count: int) -> Table:
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


def back(worlds: Worlds, numbers: range, *, seed: int) -> Iterator[Row]:
    """Seconds until single requests accuse, until Kohort goes back, and the canary's failures then."""
    for run in runs(worlds, numbers, seed):
        alone, end = single_requests(run), kohort(run)
        failures = 0.0 if end is None else run.arms[1][: end + 1].sum()
        yield _seconds(run.world, alone), _seconds(run.world, end), failures


def _seconds(world: World, scrape: int | None) -> float:
    return NEVER if scrape is None else (scrape + 1) * world.scrape


def everybody(world: World, numbers: range, *, seed: int) -> Iterator[Row]:
    """Seconds until each of the deciders goes back."""
    for run in runs(world, numbers, seed):
        yield tuple(_seconds(world, decide(run)) for decide in DECIDERS.values())


def proven(world: World, numbers: range, *, margin: float, seed: int) -> Iterator[Row]:
    """Seconds until single requests prove that the canary is not worse, and until Kohort does."""
    for run in runs(world, numbers, seed):
        alone, both = proofs(run, margin)
        yield _seconds(world, alone), _seconds(world, both)


def slow(world: Timing, numbers: range, *, seed: int) -> Iterator[Row]:
    """Seconds until single requests accuse, and until Kohort goes back."""
    for end in ends(world, numbers, seed):
        yield tuple(NEVER if at is None else at for at in (end.accused, end.back))


def false_rollbacks(name: str, worlds: Mapping[str, Worlds], record: Record, count: int) -> Table:
    """False rollbacks of Kohort, with intervals, and of its first layer alone."""
    rows = []
    for cell, world in worlds.items():
        seen = record.rows(name, cell, partial(back, world, seed=SEED + 1), count) != NEVER
        alone = f"{100 * seen[:, 0].mean():.1f}"
        rows.append((cell, f"{len(seen):,}", alone, told(int(seen[:, 1].sum()), len(seen))))
    return Table(name, ("healthy canary", "runs", "single requests, %", "Kohort, %"), rows)


def others(record: Record, count: int) -> Table:
    """False rollbacks of everybody."""
    rows = []
    for cell, world in AGAINST_OTHERS.items():
        seen = record.rows("others", cell, partial(everybody, world, seed=SEED), count)
        rows.append((cell, *(f"{100 * share:.1f}" for share in (seen != NEVER).mean(axis=0))))
    return Table("others", ("healthy canary, %", *DECIDERS), rows)


def others_delays(record: Record, count: int) -> Table:
    """How often everybody sees harm, and after how long at the median of all runs."""
    rows = []
    for cell in HARM_AGAINST_OTHERS:
        seen = record.rows("delays", cell, partial(everybody, HARM[cell], seed=SEED + 2), count)
        shares = (seen != NEVER).mean(axis=0)
        delays = np.median(np.where(seen == NEVER, np.inf, seen), axis=0)
        told = (f"{100 * s:.0f} %, {_told(d)}" for s, d in zip(shares, delays, strict=True))
        rows.append((cell, *told))
    return Table("delays", ("seen, and after how long at the median", *DECIDERS), rows)


def _told(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:.0f} s"


def _beside_limit(delays: npt.NDArray[np.float64], floor: float, goal: float) -> tuple[str, ...]:
    """The limit and the goal, where there are such, and the mean and the median of delays; all in seconds."""
    known = not math.isnan(floor)
    seconds = (floor if known else None, goal if known else None, delays.mean(), np.median(delays))
    return tuple("" if each is None else f"{each:.0f}" for each in seconds)


def limit(world: World) -> float:
    """Seconds that any test of independent requests needs on average; NaN where there is no such test."""
    if world.harm == 1 or len(world.weights) > 1:
        return math.nan
    share = world.weights[0][1] / 100
    return requests_to_tell(share, world.base, world.base * world.harm, ALPHA) / world.rate


def detection(record: Record, count: int) -> Table:
    """How often, how soon, and after how many failures harm is seen."""
    rows = []
    for cell, world in HARM.items():
        seen = record.rows("detection", cell, partial(back, world, seed=SEED + 2), count)
        caught = seen[seen[:, 1] != NEVER]
        delays, floor = caught[:, 1], limit(world)
        rows.append(
            (
                cell,
                f"{100 * (seen[:, 0] != NEVER).mean():.0f}",
                f"{100 * len(caught) / len(seen):.1f}",
                *_beside_limit(delays, floor, 2 * floor + world.scrape),
                f"{np.median(caught[:, 2]):.0f}",
            )
        )
    head = (
        "harm, 50 req/s",
        "single requests see, %",
        "Kohort sees, %",
        "limit, s",
        "goal for the mean, s",
        "mean, s",
        "median, s",
        "canary failures, median",
    )
    return Table("detection", head, rows)


def promotions(record: Record, count: int) -> Table:
    """Proofs of non-inferiority of a canary at the margin."""
    rows = []
    for cell, world in PROOFS.items():
        for margin in MARGINS:
            worse = partial(proven, replace(world, added=margin), margin=margin, seed=SEED + 3)
            wanted = count if (cell, margin) in WORST_PROOFS else max(50, count // 20)
            seen = record.rows("proofs", f"{cell} {margin:g}", worse, wanted) != NEVER
            alone = f"{100 * seen[:, 0].mean():.1f}"
            proof = told(int(seen[:, 1].sum()), len(seen))
            rows.append((f"{cell}, {margin:.1%}", f"{len(seen):,}", alone, proof))
    head = ("canary worse by the margin", "runs", "single requests, %", "Kohort, %")
    return Table("proofs", head, rows)


def equals(record: Record, count: int) -> Table:
    """Proofs of non-inferiority of a canary that is as good."""
    rows = []
    for cell, world in PROOFS.items():
        told = []
        for margin in MARGINS:
            equal = partial(proven, world, margin=margin, seed=SEED + 4)
            seen = record.rows("equals", f"{cell} {margin:g}", equal, count)[:, 1]
            median = np.median(np.where(seen == NEVER, np.inf, seen))
            told.append(f"{100 * (seen != NEVER).mean():.0f} %, {_told(float(median))}")
        rows.append((cell, *told))
    head = ("canary as good", *(f"margin {margin:.1%}" for margin in MARGINS))
    return Table("equals", head, rows)


def latency(record: Record, count: int) -> Table:
    """False rollbacks of canaries that are as fast."""
    rows = []
    for cell, world in EQUALLY_FAST.items():
        wanted = count if cell == WORST_LATENCY else max(50, count // 20)
        seen = record.rows("latency", cell, partial(slow, world, seed=SEED + 6), wanted) != NEVER
        alone = f"{100 * seen[:, 0].mean():.1f}"
        rows.append((cell, f"{len(seen):,}", alone, told(int(seen[:, 1].sum()), len(seen))))
    return Table("latency", ("durations", "runs", "single requests, %", "Kohort, %"), rows)


def slowness(record: Record, count: int) -> Table:
    """How often and how soon slower canaries are seen."""
    rows = []
    for cell, world in SLOWER.items():
        seen = record.rows("slowness", cell, partial(slow, world, seed=SEED + 7), count)
        delays = seen[:, 1][seen[:, 1] != NEVER]
        floor = world.limit(ALPHA) if not world.unlike else math.nan
        rows.append(
            (
                cell,
                f"{100 * (seen[:, 0] != NEVER).mean():.0f}",
                f"{100 * len(delays) / len(seen):.0f}",
                *_beside_limit(delays, floor, 2.5 * floor + world.scrape),
            )
        )
    head = (
        "durations, 50 req/s",
        "single requests see, %",
        "Kohort sees, %",
        "limit, s",
        "goal for the mean, s",
        "mean, s",
        "median, s",
    )
    return Table("slowness", head, rows)


def judged(world: World, numbers: range, *, metric: Metric, seed: int) -> Iterator[Row]:
    """Seconds until counters accuse by single requests, a thousand times surer, and by client slots."""
    for run in runs(world, numbers, seed):
        yield tuple(_seconds(world, end) for end in counted.ends(run, metric))


def counters(
    name: str, cells: Mapping[str, tuple[Metric, World]], record: Record, count: int
) -> Table:
    """What becomes of canaries that counters of an application judge, by slot and without."""
    rows = []
    for cell, (metric, world) in cells.items():
        measure = partial(judged, world, metric=metric, seed=SEED + 8)
        seen = record.rows(name, cell, measure, count)
        accused, surer, back = (seen != NEVER).sum(axis=0)
        delays = seen[:, 2][seen[:, 2] != NEVER]
        median = f"{np.median(delays):.0f}" if len(delays) else ""
        rows.append(
            (
                cell,
                f"{len(seen):,}",
                f"{100 * accused / len(seen):.1f}",
                told(int(surer), len(seen)),
                told(int(back), len(seen)),
                *([median] if name == "harmful-counts" else []),
            )
        )
    head = (
        "canary",
        "runs",
        "accused by single requests, %",
        "a thousand times surer, %",
        "back, with slotLabel, %",
        *(["median, s"] if name == "harmful-counts" else []),
    )
    return Table(name, head, rows)


def tables(record: Record, count: int) -> dict[str, Callable[[], Table]]:
    """How to make each table; ``count`` runs for each headline cell."""
    some, few = max(100, count // 10), max(50, count // 20)
    return {
        "known": lambda: known(record, count),
        "headline": lambda: false_rollbacks("headline", HEADLINE, record, count),
        "wide": lambda: false_rollbacks("wide", WIDE, record, some),
        "few": lambda: false_rollbacks("few", FEW, record, few),
        "others": lambda: others(record, some),
        "delays": lambda: others_delays(record, few),
        "detection": lambda: detection(record, few),
        "proofs": lambda: promotions(record, count),
        "equals": lambda: equals(record, max(50, count // 100)),
        "latency": lambda: latency(record, count),
        "slowness": lambda: slowness(record, max(50, count // 100)),
        "counts": lambda: counters("counts", COUNTS, record, some),
        "harmful-counts": lambda: counters("harmful-counts", HARMFUL_COUNTS, record, few),
    }


def put(text: str, table: Table) -> str:
    """The text with the table between its marks; raises ValueError without marks."""
    begin, end = f"<!-- table: {table.name} -->", "<!-- end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no line {begin}")
    return pattern.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", text)


def main(arguments: Iterable[str]) -> None:
    """Simulates, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of each headline cell")
    parser.add_argument("--write", type=Path, help="file whose tables are replaced")
    parser.add_argument("--only", nargs="*", help="names of tables; all without it")
    parser.add_argument("--record", type=Path, help="directory of what was simulated so far")
    parser.add_argument("--processes", type=int, default=1, help="that simulate side by side")
    options = parser.parse_args(list(arguments))
    with tempfile.TemporaryDirectory() as made:
        record = Record(options.record or Path(made), options.processes)
        for name, make in tables(record, options.runs).items():
            if options.only and name not in options.only:
                continue
            table = make()
            print(f"\n{table.name}\n\n{table}", flush=True)
            if options.write:
                options.write.write_text(put(options.write.read_text(), table))


if __name__ == "__main__":
    main(sys.argv[1:])
