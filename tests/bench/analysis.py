"""What the analysis costs: processor time for each cohort, metric and scrape, and bytes kept and read.

``python -m tests.bench.analysis [--cohorts 1000] [--interval 5]`` runs the operator's own code on pages as
a gateway writes them, in one process and without a cluster. All times are processor seconds. Not in them:
the pass of the planner, and writes of status.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import median
from unittest.mock import patch

import numpy as np

from kohort.analysis import latency, sequential
from kohort.analysis.confirming import look
from kohort.analysis.reading import Reading
from kohort.analysis.sequential import Rates, Trial
from kohort.analysis.slots import Totals
from kohort.analysis.split import canary_slots
from kohort.api.analysis import Metric, MetricName
from kohort.api.status import Evidence
from kohort.contract import METRIC_REQUESTS, SLOTS, TOOK_MS
from kohort.observe.counters import Cohort, parse
from kohort.observe.gateways import Scrape
from kohort.observe.slots import SlotLedger, Split
from kohort.route.table import ModelKey
from tests.bench.deciders import ALPHA, past, since
from tests.bench.worlds import World, runs

WEIGHT, BASE = 10, 0.01
STABLE, CANARY = "6f1d2b7c90", "a83e05d1f4"
WARM, MEASURED = 12, 12
START = 1.77e9
RATES = Rates(ALPHA / 2, 0.05)
ERRORS, LATENCY = Metric(name=MetricName.ERRORS), Metric(name=MetricName.LATENCY)


@dataclass
class Spent:
    """Processor seconds by part and scrape; those of looks at client slots are told by themselves."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    looked: float = 0.0

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Counts what is spent inside, but for looks."""
        began, self.looked = time.process_time(), 0.0
        yield
        spent = time.process_time() - began
        self.seconds.setdefault(part, []).append(spent - self.looked)
        self.seconds.setdefault(f"looks: {part}", []).append(self.looked)

    def looks(self, way: object, name: str) -> AbstractContextManager[object]:
        """What one function of a module spends counts as looks, inside this."""
        function: Callable[..., object] = getattr(way, name)

        def timed(*arguments: object) -> object:
            began = time.process_time()
            try:
                return function(*arguments)
            finally:
                self.looked += time.process_time() - began

        return patch.object(way, name, timed)


@dataclass
class Gateway:
    """A gateway's counters of cohorts that are all in a rollout: by cohort, slot, and class or failure."""

    cohorts: int
    clients: int
    rate: float  # requests a second of each cohort
    random: np.random.Generator
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((self.cohorts, SLOTS, len(TOOK_MS) + 1), np.int64)
        self._slots = self.random.integers(0, SLOTS, (self.cohorts, self.clients))
        # Lognormal about 25 ms, as in tests.bench.durations.
        bounds = np.log(np.maximum(TOOK_MS[1:], 1e-9))
        draws = np.log(25) + 0.6 * self.random.standard_normal(100_000)
        shares = np.bincount(np.searchsorted(bounds, draws), minlength=len(TOOK_MS)) / len(draws)
        self._kinds = np.append(shares * (1 - BASE), BASE)

    def serve(self, seconds: float) -> None:
        """Requests of so many seconds."""
        number = self.random.poisson(self.rate * seconds * self.cohorts)
        cohort = self.random.integers(0, self.cohorts, number)
        slot = self._slots[cohort, self.random.integers(0, self.clients, number)]
        kind = self.random.choice(len(self._kinds), number, p=self._kinds)
        np.add.at(self.counts, (cohort, slot, kind), 1)

    def page(self) -> bytes:
        """What it tells."""
        lines = [f"# TYPE {METRIC_REQUESTS} counter"]
        for number in range(self.cohorts):
            canary, _ = canary_slots(WEIGHT, salt(number))
            for slot, kind in np.argwhere(self.counts[number]).tolist():
                revision = CANARY if slot in canary else STABLE
                failed = kind == len(TOOK_MS)
                code = "500/-/-/25" if failed else f"200/-/-/{TOOK_MS[kind]}"
                labels = (
                    f'arm="default/model-{number}/{revision}/{STABLE}",cohort="everyone",'
                    f'code="{code}/{slot}/{revision}"'
                )
                lines.append(f"{METRIC_REQUESTS}{{{labels}}} {self.counts[number, slot, kind]}")
        return "\n".join(lines).encode() + b"\n"


def salt(number: int) -> str:
    """That of a cohort's rollout."""
    return f"rollout-{number}"


def cohort(number: int) -> Cohort:
    """Its key."""
    return ModelKey("default", f"model-{number}"), "everyone"


def measure(gateway: Gateway, interval: float) -> tuple[Spent, int, int]:
    """What each scrape costs, bytes of the last page, and of state of all cohorts."""
    ledger, spent = SlotLedger(), Spent()
    evidence: dict[int, tuple[Evidence, Evidence]] = {}
    numbers = range(gateway.cohorts)
    for number in range(WARM + MEASURED):
        gateway.serve(interval)
        page = gateway.page()
        if number == WARM:
            spent.seconds.clear()
        with spent.on("parsing"):
            counts = {key: {"gateway/1": cells} for key, cells in parse(page).items()}
        scrape = Scrape(START + number * interval, counts, ("gateway/1",))
        readings: dict[int, Reading] = {}
        with spent.on("slots"):
            for each in numbers:
                key = cohort(each)
                found = scrape.counts.get(key, {})
                weight = WEIGHT if number else 0
                split = Split(CANARY, WEIGHT) if number else None
                slots = ledger.take(key, salt(each), weight, found, split)
                readings[each] = replace(scrape[key], slots=slots)
        now = datetime.fromtimestamp(scrape.at, UTC)
        with spent.looks(sequential, "_look"), spent.looks(sequential, "_asked_for_proof"):
            errors = _advanced(sequential, ERRORS, readings, evidence, 0, now, spent)
        with spent.looks(latency, "_look"):
            slow = _advanced(latency, LATENCY, readings, evidence, 1, now, spent)
        evidence = {each: (errors[each], slow[each]) for each in numbers}
    kept = sum(len(e.state) + len(e.slots) for both in evidence.values() for e in both)
    return spent, len(page), kept


def _advanced(
    way: object,
    metric: Metric,
    readings: dict[int, Reading],
    evidence: dict[int, tuple[Evidence, Evidence]],
    place: int,
    now: datetime,
    spent: Spent,
) -> dict[int, Evidence]:
    begin: Callable[..., Evidence] = way.begin  # type: ignore[attr-defined]
    advance: Callable[..., Evidence] = way.advance  # type: ignore[attr-defined]
    trials = {each: Trial(CANARY, STABLE, salt(each)) for each in readings}
    with spent.on(metric.name):
        return {
            each: advance(evidence[each][place], reading, trials[each], metric, RATES, now)
            if each in evidence
            else begin(metric, reading, trials[each], WEIGHT, now)
            for each, reading in readings.items()
        }


def looks() -> list[str]:
    """Rows of a table: milliseconds of one look by weight."""
    rows = []
    for weight in (1, 5, 10, 25, 50):
        world = replace(World(harm=3, rate=200, concentration=5), weights=((300, weight),))
        spent = []
        for run in runs(world, 30, seed=5):
            canary, border = canary_slots(weight, run.salt)
            before, now = past(run), since(run, 0, world.scrapes - 1)
            began = time.process_time()
            asked(before, now, canary, border)
            spent.append(1000 * (time.process_time() - began))
        rows.append(f"| {weight} % | {median(spent):.1f} | {max(spent):.1f} |")
    return rows


def asked(before: Totals, now: Totals, canary: frozenset[int], border: int | None) -> None:
    """One look."""
    look(before, now, canary, border, 20.0, ALPHA, round(sum(now.failed)))


def main() -> None:
    """Measures and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between scrapes")
    given = parser.parse_args()
    print("| canary | a look, ms, median | most |\n|---|---|---|", *looks(), sep="\n")
    print(f"\n{given.cohorts} cohorts in a rollout, a scrape every {given.interval:g} s:\n")
    head = (
        "clients, req/s of each",
        "parsing, µs per cohort",
        "slots, µs",
        "errors, µs",
        "latency, µs",
        "looks, µs",
        "cores in all",
        "scraped, KB per cohort",
        "state, KB",
    )
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for clients, rate in ((20, 1.0), (200, 5.0), (2000, 50.0)):
        gateway = Gateway(given.cohorts, clients, rate, np.random.default_rng(1))
        spent, page, kept = measure(gateway, given.interval)
        parts = {part: median(seconds) for part, seconds in spent.seconds.items()}
        looked = sum(parts.pop(part) for part in [*parts] if part.startswith("looks: "))
        parts["looks"] = looked
        each = [f"{1e6 * seconds / given.cohorts:.0f}" for seconds in parts.values()]
        cores = sum(parts.values()) / given.interval
        sizes = [f"{size / 1000 / given.cohorts:.1f}" for size in (page, kept)]
        row = [f"{clients}, {rate:g}", *each, f"{cores:.2f}", *sizes]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
