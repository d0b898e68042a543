"""Simulated clients whose requests take some time, and what the operator's own analysis makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from kohort.analysis.betting import log_mean
from kohort.analysis.latency import advance, begin, decode
from kohort.analysis.reading import Reading, Slots, SlotTotals, packed
from kohort.analysis.sequential import Rates, Trial
from kohort.analysis.split import canary_order
from kohort.api.analysis import Metric, MetricName
from kohort.api.status import Verdict
from kohort.contract import SLOTS, TOOK_MS
from tests.bench.deciders import ALPHA

Array = npt.NDArray[np.float64]
CLASSES = len(TOOK_MS)
LATENCY = Metric(name=MetricName.LATENCY)


@dataclass(frozen=True)
class Timing:
    """How long answers take: lognormal about ``median`` milliseconds.

    ``unlike``: standard deviation, on the log scale, of what clients' own medians differ by: they send
    other inputs. ``moods``: the same for each client anew at every scrape. ``slower``: factor of the
    canary's durations, or of those that are ``beyond`` so many milliseconds alone.
    """

    clients: int = 2000
    rate: float = 50.0
    zipf: float = 0.8
    median: float = 25.0
    spread: float = 0.6
    unlike: float = 0.0
    moods: float = 0.0
    slower: float = 1.0
    beyond: float = 0.0
    weight: int = 10
    seconds: float = 600.0
    past: float = 120.0
    scrape: float = 5.0


def readings(world: Timing, random: np.random.Generator) -> tuple[str, Iterator[Reading]]:
    """The salt of a rollout, and what a gateway says after each scrape; the first has the past alone."""
    traffic = np.arange(1.0, world.clients + 1) ** -world.zipf
    traffic *= world.rate * world.scrape / traffic.sum()
    slot = random.integers(0, SLOTS, world.clients)
    own = np.log(world.median) + world.unlike * random.standard_normal(world.clients)
    salt = str(random.integers(2**62))
    rank = np.empty(SLOTS)
    rank[list(canary_order(salt))] = np.arange(SLOTS)
    canary = rank[slot] + random.random(world.clients) < world.weight * SLOTS / 100
    cell = slot * 2 + canary

    def sent(scrapes: int, *, rolling: bool) -> npt.NDArray[np.int64]:
        """Requests by slot, arm and class."""
        counts = np.zeros((SLOTS * 2, CLASSES), np.int64)
        for _ in range(scrapes):
            shares = _shares(world, own, canary & rolling, random)
            expected = np.zeros((SLOTS * 2, CLASSES))
            np.add.at(expected, cell if rolling else slot * 2, shares * traffic[:, None])
            counts += random.poisson(expected)
        return counts.reshape(SLOTS, 2, CLASSES)

    def read() -> Iterator[Reading]:
        totals = sent(round(world.past / world.scrape), rolling=False)
        past = _slots(totals)
        for scrape in range(round(world.seconds / world.scrape) + 1):
            if scrape:
                totals = totals + sent(1, rolling=True)
            arms = {
                name: tuple(totals[:, arm].sum(axis=0).tolist()) for arm, name in enumerate("sc")
            }
            slots = SlotTotals("counter", _slots(totals), past, arms)
            yield Reading(1e9 + scrape * world.scrape, {}, slots=slots)

    return salt, read()


def _shares(
    world: Timing, own: Array, slow: npt.NDArray[np.bool_], random: np.random.Generator
) -> Array:
    """By client and class: which share of its requests takes so long."""
    centre = own + world.moods * random.standard_normal(len(own)) if world.moods else own
    bounds = np.log(np.maximum(TOOK_MS[1:], 1e-9))
    # A canary's request takes t where stable's would take t / slower, if that is beyond.
    moved = bounds - math.log(world.slower)
    edge = math.log(world.beyond) if world.beyond else -math.inf
    theirs = np.where(moved > edge, moved, np.minimum(bounds, edge))
    edges = np.where(slow[:, None], theirs, bounds)
    below = _normal((edges - centre[:, None]) / world.spread)
    return np.diff(below, axis=1, prepend=0.0, append=1.0)


def _normal(z: Array) -> Array:
    """The normal distribution function. Source: Abramowitz and Stegun 7.1.26; within 1e-7."""
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * x)
    series = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    upper = 0.5 * series * np.exp(-x * x)
    result: Array = np.where(z > 0, 1 - upper, upper)
    return result


def _slots(totals: npt.NDArray[np.int64]) -> Slots:
    both = totals.sum(axis=1)
    took = {k: packed(both[:, k].tolist()) for k in np.flatnonzero(both.sum(axis=0)).tolist()}
    return Slots(tuple(both.sum(axis=1).tolist()), (0,) * SLOTS, took)


@dataclass(frozen=True)
class End:
    """When single requests accused the canary, and when it went back; seconds, None: never."""

    accused: float | None
    back: float | None


def ends(world: Timing, count: int, seed: int) -> Iterator[End]:
    """What the operator's own analysis makes of so many rollouts."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        salt, read = readings(world, random)
        trial, rates = Trial("c", "s", salt), Rates(ALPHA, 0.05)
        first = next(read)
        evidence = begin(LATENCY, first, trial, world.weight, datetime.fromtimestamp(first.at, UTC))
        accused = back = None
        for reading in read:
            now = datetime.fromtimestamp(reading.at, UTC)
            evidence = advance(evidence, reading, trial, LATENCY, rates, now)
            state = decode(evidence.state)
            assert state is not None
            crossed = log_mean(state.logs) >= math.log(1 / ALPHA)
            if crossed and accused is None:
                accused = reading.at - first.at
            if evidence.verdict is Verdict.FAIL:
                back = reading.at - first.at
                break
        yield End(accused, back)
