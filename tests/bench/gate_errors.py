"""How often gates err: ``python -m tests.bench.gate_errors [--runs 4000] [--resampled 300]``.

Each line is one world: samples are drawn again and again from a model whose true value is known, and the
gate decides each time. Printed are percentages with their 95 % interval (Clopper and Pearson).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from kohort_server.gates.answers import Answers
from kohort_server.gates.bounds import Interval
from kohort_server.gates.data import check
from kohort_server.gates.golden import Golden
from kohort_server.gates.judge import Demand, Parts, good_enough, not_worse, share_of
from kohort_server.gates.metrics import Measure, MetricName, measure_of
from kohort_server.gates.quantities import Share
from kohort_server.gates.results import Finding, Outcome
from kohort_server.gates.samples import Samples
from kohort_server.gates.spec import (
    Data,
    Drift,
    DriftTest,
    File,
)
from tests.bench.intervals import told

Random = np.random.Generator
CONFIDENCE = 0.95
CLASSES = 4


@dataclass(frozen=True)
class World:
    """What is drawn, and what the gate finds of it; ``wrong``: which outcomes are counted."""

    name: str
    wrong: Callable[[list[Finding]], bool]
    findings: Callable[[Random], list[Finding]]
    resampled: bool = False  # each decision takes thousands of resamples


def passes(findings: list[Finding]) -> bool:
    """Whether the gate lets the model on."""
    return all(one.outcome is Outcome.PASSED for one in findings)


def fails(findings: list[Finding]) -> bool:
    """Whether it does not."""
    return not passes(findings)


def everything(count: int) -> Parts:
    """All samples."""
    return {"": np.arange(count)}


def contract(measure: Measure, threshold: float, interval: Interval, count: int) -> list[Finding]:
    """A gate that asks for a value."""
    return good_enough(measure, Demand(threshold, CONFIDENCE, interval), everything(count))


def share(
    truth: float, threshold: float, interval: Interval, count: int
) -> Callable[[Random], list[Finding]]:
    """Of samples of which so many are right."""
    return lambda random: contract(
        share_of(random.random(count) < truth), threshold, interval, count
    )


def confused(random: Random, count: int) -> tuple[Answers, NDArray[np.int64]]:
    """Answers to four classes of different sizes, nine in ten of which are right."""
    labels = random.choice(CLASSES, count, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int64)
    wrong = (labels + random.integers(1, CLASSES, count)) % CLASSES
    return Answers("y", classes=np.where(random.random(count) < 0.9, labels, wrong)), labels


def scored(random: Random, count: int) -> tuple[Answers, NDArray[np.int64]]:
    """Scores of four classes of different sizes."""
    labels = random.choice(CLASSES, count, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int64)
    scores = random.normal(0, 1, (count, CLASSES)) + 2.5 * np.eye(CLASSES)[labels]
    return Answers("y", scores.argmax(axis=1), scores), labels


def two_classes(random: Random, count: int, distance: float) -> tuple[Answers, NDArray[np.int64]]:
    """One score, which is higher for one in five samples by so many standard deviations."""
    labels = (random.random(count) < 0.2).astype(np.int64)
    scores = random.normal(distance * labels, 1)
    return Answers("y", classes=labels, scores=np.stack([-scores, scores], axis=1)), labels


Drawn = Callable[[Random, int], tuple[Answers, NDArray[np.int64]]]


def at_truth(
    name: MetricName,
    draw: Drawn,
    count: int,
    positive: int | None = None,
    known: float | None = None,
) -> Callable[[Random], list[Finding]]:
    """A gate whose threshold is the true value, which may be known."""

    def findings(random: Random) -> list[Finding]:
        answers, labels = draw(random, count)
        while len(np.unique(labels)) < (2 if name is MetricName.AUC else CLASSES):
            answers, labels = draw(random, count)
        measure = measure_of(name, answers, labels, positive)
        truth = true_value(name, draw, positive) if known is None else known
        return contract(measure, truth, Interval.EXACT, count)

    return findings


@cache
def true_value(name: MetricName, draw: Drawn, positive: int | None = None) -> float:
    """The value of very many samples."""
    answers, labels = draw(np.random.default_rng(0), 500_000)
    return measure_of(name, answers, labels, positive).of(np.arange(len(labels)))


def errors(heavy: bool, count: int) -> Callable[[Random], list[Finding]]:
    """Numbers that are off by a normal, or a heavy-tailed, error; the threshold is the true RMSE."""

    def findings(random: Random) -> list[Finding]:
        away = random.standard_t(5, count) if heavy else random.normal(0, 1, count)
        measure = measure_of(MetricName.RMSE, Answers("y", values=away), np.zeros(count))
        return contract(measure, (5 / 3) ** 0.5 if heavy else 1.0, Interval.EXACT, count)

    return findings


def two_models(
    count: int, became_right: float, became_wrong: float, margin: float | None, slices: int
) -> Callable[[Random], list[Finding]]:
    """Two models of which so many samples are right by one only."""

    def findings(random: Random) -> list[Finding]:
        drawn = random.random(count)
        mine = drawn >= became_wrong
        its = (drawn < became_wrong) | (drawn >= became_wrong + became_right)
        parts = {**everything(count)}
        if slices:
            parts |= {str(at): np.arange(at, count, slices) for at in range(slices)}
        return not_worse(share_of(mine), share_of(its), margin, CONFIDENCE, parts)

    return findings


def two_forecasts(count: int, heavy: bool) -> Callable[[Random], list[Finding]]:
    """Two models that err as much as each other, on the same samples."""

    def findings(random: Random) -> list[Finding]:
        def draw() -> NDArray[np.float64]:
            return random.standard_t(5, count) if heavy else random.normal(0, 1, count)

        common = draw()
        mine, its = (
            measure_of(MetricName.RMSE, Answers("y", values=common + draw()), np.zeros(count))
            for _ in range(2)
        )
        return not_worse(mine, its, None, CONFIDENCE, everything(count))

    return findings


def same_kind(test: DriftTest, count: int) -> Callable[[Random], list[Finding]]:
    """Golden data and a reference of the same kind, ten columns."""

    def findings(random: Random) -> list[Finding]:
        def drawn() -> Samples:
            values = random.normal(0, 1, (count, 10))
            values = np.round(values) if test is DriftTest.CHI_SQUARED else values
            return Samples(Golden("g", {"x": values}, count))

        reference = drawn()
        drift = Drift(reference=File(uri="r"), test=test, false_alarm=Share(0.05))
        return check(Data(drift=(drift,)), drawn(), lambda file: reference)

    return findings


def false_passes() -> Iterator[World]:
    """Models whose true value is the threshold, and no better: at most 5 % may pass."""
    for count in (87, 300, 1286):  # Wilson errs most with 87, of 60 to 400 samples
        for interval in Interval:
            name = f"Accuracy 95 %, {interval}, {count:,} samples"
            yield World(name, passes, share(0.95, 0.95, interval, count))
    yield World("F1 of a class, 1,000 samples", passes, at_truth(MetricName.F1, confused, 1000, 3))
    for metric, draw in (
        (MetricName.F1, confused),
        (MetricName.MEAN_AVERAGE_PRECISION, scored),
    ):
        for count in (300, 1000):
            name = f"{metric}, mean of {CLASSES} classes, {count:,} samples"
            yield World(name, passes, at_truth(metric, draw, count), resampled=True)
    for truth in (0.9, 0.99):
        distance = NormalDist().inv_cdf(truth) * 2**0.5
        for count in (100, 1000):

            def draw(
                random: Random, count: int, distance: float = distance
            ) -> tuple[Answers, NDArray[np.int64]]:
                return two_classes(random, count, distance)

            name = f"AUC {truth:.0%}, {count:,} samples, one in five positive"
            yield World(
                name, passes, at_truth(MetricName.AUC, draw, count, known=truth), resampled=True
            )
    for heavy in (False, True):
        for count in (100, 1000):
            name = f"RMSE, {'heavy-tailed' if heavy else 'normal'} errors, {count:,} samples"
            yield World(name, passes, errors(heavy, count), resampled=True)
    name = "worse than stable by the margin of 2 %, 1,000 samples"
    yield World(name, passes, two_models(1000, 0.02, 0.04, 0.02, 0))


def false_fails() -> Iterator[World]:
    """Models that are as good as stable, or data that does not drift: at most 5 % may fail."""
    for slices in (0, 10):
        name = f"as good as stable, 1,000 samples, {slices or 'no'} slices"
        yield World(name, fails, two_models(1000, 0.04, 0.04, None, slices))
    for heavy in (False, True):
        name = (
            f"RMSE as good as stable's, {'heavy-tailed' if heavy else 'normal'} errors, 300 samples"
        )
        yield World(name, fails, two_forecasts(300, heavy), resampled=True)
    for test in (DriftTest.KS, DriftTest.CHI_SQUARED):
        yield World(f"drift by {test}, 10 columns, 300 samples", fails, same_kind(test, 300))


def missed() -> Iterator[World]:
    """Good models, and how often they do not pass: what too few samples cost."""
    for truth, count in ((0.97, 322), (0.97, 1000), (0.98, 143), (0.98, 500)):
        for interval in Interval:
            name = f"accuracy is {truth:.0%}, 95 % wanted, {interval}, {count:,} samples"
            yield World(name, fails, share(truth, 0.95, interval, count))
    name = "as good as stable, margin 2 %, 1,000 samples, 4 % differ"
    yield World(name, fails, two_models(1000, 0.02, 0.02, 0.02, 0))
    name = "worse than stable by 3 %, 1,000 samples: passes"
    yield World(name, passes, two_models(1000, 0.02, 0.05, None, 0))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--resampled", type=int, default=300, help="runs where each one takes long")
    parser.add_argument("--only", default="", metavar="REGEX", help="worlds of such names")
    options = parser.parse_args()
    for title, worlds in (
        ("passes though it should not, % of runs", false_passes()),
        ("fails though it should not, % of runs", false_fails()),
        ("wrong for want of samples, % of runs", missed()),
    ):
        print(f"\n| {title} | |\n|---|---|")
        for world in worlds:
            if not re.search(options.only, world.name):
                continue
            runs = options.resampled if world.resampled else options.runs
            wrong = sum(
                world.wrong(world.findings(np.random.default_rng((8, run)))) for run in range(runs)
            )
            print(f"| {world.name} | {told(wrong, runs)} |", flush=True)


if __name__ == "__main__":
    main()
