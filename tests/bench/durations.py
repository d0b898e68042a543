"""Simulated clients whose requests take some time, and what Kohort makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from kohort.analysis.confirming import LOOK_GROWTH, look
from kohort.analysis.distortions import DISTORTIONS, bets
from kohort.analysis.durations import slow_bounds, slower
from kohort.analysis.latency import ENOUGH
from kohort.analysis.slots import Totals
from kohort.analysis.split import canary_order, canary_slots
from kohort.api.analysis import Metric, MetricName
from kohort.contract import SLOTS, TOOK_MS
from tests.bench.deciders import ALPHA, mean_capital
from tests.bench.worlds import share_out

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
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

    @property
    def scrapes(self) -> int:
        """Scrapes after the canary has clients."""
        return round(self.seconds / self.scrape)

    def limit(self, alpha: float) -> float:
        """Seconds that any test at level ``alpha`` needs on average where clients are alike.

        Of what gateways count: durations by class. See ``betting.requests_to_tell``.
        """
        canary, stable = shares(self, np.full(2, math.log(self.median)), np.array([True, False]))
        weight = self.weight / 100
        common = weight * canary + (1 - weight) * stable
        gain = weight * canary @ np.log(canary / common)
        gain += (1 - weight) * stable @ np.log(stable / common)
        return float(math.log(1 / alpha) / gain / self.rate)


@dataclass(frozen=True)
class Timed:
    """One rollout. ``drawn``: answers by scrape, arm (0 stable, 1 canary) and class of duration.

    ``expected``: how many there are on average, by scrape, slot, arm and class. ``past``: by slot and
    class.
    """

    world: Timing
    salt: str
    drawn: Numbers
    expected: Array
    past: Numbers
    random: np.random.Generator

    @cached_property
    def slots(self) -> Numbers:
        """Answers since the canary has clients; by scrape, slot and class."""
        total = np.zeros((self.world.scrapes, SLOTS, CLASSES), np.int64)
        for arm, took in np.ndindex(2, CLASSES):
            drawn, expected = self.drawn[:, arm, took], self.expected[:, :, arm, took]
            total[:, :, took] += share_out(self.random, drawn, expected)
        sums: Numbers = total.cumsum(axis=0)
        return sums


def timed(world: Timing, numbers: int | range, seed: int) -> Iterator[Timed]:
    """So many rollouts, or those of these numbers; each is the same for the same seed and number."""
    for number in range(numbers) if isinstance(numbers, int) else numbers:
        yield _timed(world, np.random.default_rng((seed, number)))


def _timed(world: Timing, random: np.random.Generator) -> Timed:
    traffic = np.arange(1.0, world.clients + 1) ** -world.zipf
    traffic *= world.rate * world.scrape / traffic.sum()
    slot = random.integers(0, SLOTS, world.clients)
    own = np.log(world.median) + world.unlike * random.standard_normal(world.clients)
    salt = str(random.integers(2**62))
    rank = np.empty(SLOTS)
    rank[list(canary_order(salt))] = np.arange(SLOTS)
    canary = rank[slot] + random.random(world.clients) < world.weight * SLOTS / 100
    nobody = np.zeros(world.clients, bool)

    def expected(scrapes: int, canary: npt.NDArray[np.bool_]) -> Array:
        cell = slot * 2 + canary
        result = np.empty((scrapes if world.moods else 1, SLOTS * 2, CLASSES))
        for place in range(len(result)):
            moods = world.moods * random.standard_normal(len(own)) if world.moods else 0.0
            sent = shares(world, own + moods, canary) * traffic[:, None]
            for took in range(CLASSES):
                result[place, :, took] = np.bincount(cell, sent[:, took], SLOTS * 2)
        by_arm = result.reshape(len(result), SLOTS, 2, CLASSES)
        return np.broadcast_to(by_arm, (scrapes, SLOTS, 2, CLASSES))

    before = expected(round(world.past / world.scrape), nobody)
    past = random.poisson(before.sum(axis=(0, 2)))
    rolling = expected(world.scrapes, canary)
    if world.moods:
        drawn = random.poisson(rolling.sum(axis=1))
    else:
        drawn = random.poisson(rolling[0].sum(axis=0), (world.scrapes, 2, CLASSES))
    return Timed(world, salt, drawn, rolling, past, random)


def shares(world: Timing, centre: Array, slow: npt.NDArray[np.bool_]) -> Array:
    """By client and class: which share of its requests takes so long. ``centre``: log of medians."""
    bounds = np.log(np.maximum(TOOK_MS[1:], 1e-9))
    # A canary's request takes t where stable's would take t / slower, if that is beyond.
    moved = bounds - math.log(world.slower)
    edge = math.log(world.beyond) if world.beyond else -math.inf
    theirs = np.where(moved > edge, moved, np.minimum(bounds, edge))
    edges = np.where(slow[:, None], theirs, bounds)
    below = _normal((edges - centre[:, None]) / world.spread)
    return np.maximum(1e-12, np.diff(below, axis=1, prepend=0.0, append=1.0))


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


@dataclass(frozen=True)
class End:
    """When single requests accused the canary, and when it went back; seconds, None: never."""

    accused: float | None
    back: float | None


def ends(world: Timing, numbers: int | range, seed: int) -> Iterator[End]:
    """What Kohort makes of rollouts: ``latency.advance`` with all scrapes at once."""
    for run in timed(world, numbers, seed):
        yield end(run)


def end(run: Timed) -> End:
    """The end of one."""
    log_capital, bounds = _evidence(run)
    crossed = np.flatnonzero(log_capital >= math.log(1 / ALPHA))
    if not len(crossed):
        return End(None, None)
    accused = (int(crossed[0]) + 1) * run.world.scrape
    sums = run.drawn.cumsum(axis=0)
    chosen, border = canary_slots(run.world.weight, run.salt)
    looked_at = 0
    for scrape in crossed.tolist():
        stable, canary = (tuple(row.tolist()) for row in sums[scrape])
        if not bounds[scrape] or not slower(canary, stable, LATENCY.allowed):
            continue
        events = sum(canary[bounds[scrape][0] :]) + sum(stable[bounds[scrape][0] :])
        if events < LOOK_GROWTH * looked_at:
            continue
        looked_at = events
        for bound in bounds[scrape]:
            before, now = (_beyond(rows, bound) for rows in (run.past, run.slots[scrape]))
            harm = float(log_capital[scrape])
            if look(before, now, chosen, border, harm, ALPHA / 2, events).confirmed:
                return End(accused, (scrape + 1) * run.world.scrape)
    return End(accused, None)


def _evidence(run: Timed) -> tuple[Array, list[tuple[int, ...]]]:
    """By scrape: log of the mean capital, and from which classes on requests are slow, once chosen."""
    known = run.past.sum(axis=0) + np.concatenate(
        (np.zeros((1, CLASSES), np.int64), run.drawn[:, 0].cumsum(axis=0))
    )
    enough = known.sum(axis=1)
    gains = np.zeros((run.world.scrapes, len(DISTORTIONS)))
    bounds: list[tuple[int, ...]] = []
    reference, size = None, 0
    for scrape in range(run.world.scrapes + 1):
        # What a reading brings is bet on before it becomes a reference.
        if scrape and reference is not None:
            gains[scrape - 1] = _gain(reference, run.drawn[scrape - 1])
        if enough[scrape] >= ENOUGH and enough[scrape] >= 2 * size:
            reference, size = tuple(known[scrape].tolist()), enough[scrape]
            chosen = bounds[-1] if bounds and bounds[-1] else slow_bounds(reference)
        else:
            chosen = bounds[-1] if bounds else ()
        bounds.append(chosen)
    return mean_capital(gains.cumsum(axis=0)), bounds[1:]


def _gain(reference: tuple[int, ...], drawn: Numbers) -> Array:
    """What one scrape adds to the log of each bet's capital."""
    stable, canary = drawn
    both = stable + canary
    if not canary.any() or not stable.any():
        return np.zeros(len(DISTORTIONS))
    share = canary.sum() / both.sum()
    ratios, logs = _bets(reference)
    result: Array = logs @ canary - np.log(1 - share + share * ratios) @ both
    return result


@lru_cache(maxsize=32)
def _bets(reference: tuple[int, ...]) -> tuple[Array, Array]:
    """By distortion and class: the product's bets, and their logarithms."""
    ratios, logs = zip(*bets(reference), strict=True)
    return np.array(ratios), np.array(logs)


def _beyond(rows: Numbers, bound: int) -> Totals:
    """Slots with those answers that took so long at least."""
    return Totals(tuple(rows.sum(axis=1).tolist()), tuple(rows[:, bound:].sum(axis=1).tolist()))
