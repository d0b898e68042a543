"""Simulated clients of a rollout: what gateways would count, by scrape, slot and arm.

Clients differ in how much they send (Zipf) and how often they fail (Beta), stay on their slot, and can
fail in bursts. Between scrapes requests come at random (Poisson), so that what clients of one arm send
adds up to two Poisson numbers, requests that fail and requests that do not, and is shared out to slots
by what clients of each slot send. Slots are shared out only when somebody looks at them, which is seldom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from kohort.analysis.split import canary_order
from kohort.contract import SLOTS

Numbers = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class World:
    """How clients behave, and what the canary does to them.

    ``concentration``: of the Beta distribution of clients' failure rates; 0: all have the same.
    ``bursts``: a client fails for a whole scrape or not at all. ``weights``: (seconds, percentage) of
    each step. ``harm``: factor of every client's failure rate on the canary. ``added``: instead of it,
    what the factor adds to the failed share of these clients' requests. ``broken``: share of clients
    for whom the canary always fails. ``daily``: by how much traffic and failure rate swing over the
    whole time. ``lost``: chance that a scrape is lost. ``resets``: chance that a gateway starts anew
    within a scrape, and half of what it counted since the last one is lost.
    """

    clients: int = 2000
    rate: float = 50.0
    base: float = 0.01
    concentration: float = 0.0
    zipf: float = 0.8
    bursts: bool = False
    weights: tuple[tuple[float, int], ...] = ((600, 10),)
    past: float = 120.0
    scrape: float = 5.0
    harm: float = 1.0
    added: float = 0.0
    broken: float = 0.0
    daily: float = 0.0
    lost: float = 0.0
    resets: float = 0.0

    @property
    def scrapes(self) -> int:
        """Scrapes after the first weight."""
        return round(sum(seconds for seconds, _ in self.weights) / self.scrape)

    @property
    def weight_of_scrape(self) -> list[int]:
        """The canary's percentage at each scrape."""
        return [
            weight for seconds, weight in self.weights for _ in range(round(seconds / self.scrape))
        ]


@dataclass(frozen=True)
class Run:
    """One rollout.

    ``drawn``: good and failed requests by scrape and arm (0 stable, 1 canary), before any is lost.
    ``expected``: how many there are on average, for each step by kind, scrape, slot and arm. ``kept``: by
    scrape, whether it was read; what a lost one misses comes with the next. ``past_…`` by slot.
    """

    world: World
    salt: str
    drawn: Numbers
    expected: tuple[Shares, ...]
    kept: Flags
    past_requests: Numbers
    past_failed: Numbers
    random: np.random.Generator

    @cached_property
    def arms(self) -> tuple[Shares, Shares, Shares, Shares]:
        """By scrape: requests and failures of the canary, then of stable."""
        good, failed = _as_read(self.drawn.astype(float), self.kept)
        requests = good + failed
        return requests[:, 1], failed[:, 1], requests[:, 0], failed[:, 0]

    @property
    def requests(self) -> Numbers:
        """By scrape, slot and arm."""
        return self._slots[0]

    @property
    def failed(self) -> Numbers:
        """By scrape, slot and arm."""
        return self._slots[1]

    @cached_property
    def _slots(self) -> tuple[Numbers, Numbers]:
        shared = np.zeros((2, self.world.scrapes, SLOTS, 2), np.int64)
        first = 0
        for step in self.expected:
            scrapes = slice(first, first + step.shape[1])
            for kind, arm in np.ndindex(2, 2):
                drawn, expected = self.drawn[kind, scrapes, arm], step[kind, :, :, arm]
                shared[kind, scrapes, :, arm] = share_out(self.random, drawn, expected)
            first = scrapes.stop
        good, failed = _as_read(shared, self.kept)
        return good + failed, failed


def share_out(random: np.random.Generator, counts: Numbers, expected: Shares) -> Numbers:
    """Counts by scrape, shared out to slots in proportion to what is expected of each scrape and slot."""
    shared = np.zeros((len(counts), SLOTS), np.int64)
    if not expected.strides[0]:  # all scrapes are one in memory
        expected = expected[:1]
    sends = expected.any(axis=0)
    if sends.any():
        total = expected.sum(axis=1, keepdims=True)
        shares = expected[:, sends] / np.where(total, total, 1.0)
        shared[:, sends] = random.multinomial(counts, shares)
    return shared


def _as_read(counts: npt.NDArray[np.generic], kept: Flags) -> npt.NDArray[np.generic]:
    """Counts by kind, scrape and more, with those of lost scrapes in the next one that was read."""
    if kept.all():
        return counts
    ends = np.flatnonzero(kept)
    sums = counts.cumsum(axis=1)[:, ends]
    read = np.zeros_like(counts)
    read[:, ends] = np.diff(sums, axis=1, prepend=0)
    return read


Worlds = World | Callable[[np.random.Generator], World]
"""One world for all runs, or how each run draws its own."""


def runs(worlds: Worlds, numbers: int | range, seed: int) -> Iterator[Run]:
    """So many rollouts, or those of these numbers; each is the same for the same seed and number."""
    for number in range(numbers) if isinstance(numbers, int) else numbers:
        random = np.random.default_rng((seed, number))
        yield _run(worlds if isinstance(worlds, World) else worlds(random), random)


def _run(world: World, random: np.random.Generator) -> Run:
    traffic = _traffic(world)
    slot = random.integers(0, SLOTS, world.clients)
    # A client's place within its slot decides on which side of a border it is.
    place = random.random(world.clients)
    failing = _failure_rates(world, random)
    salt = str(random.integers(2**62))
    rank = np.empty(SLOTS)
    rank[list(canary_order(salt))] = np.arange(SLOTS)
    position = rank[slot] + place
    worse = np.minimum(1.0, failing * _factor(world, failing, traffic))
    worse[random.random(world.clients) < world.broken] = 1.0
    clients = _Clients(world, slot, traffic)
    pasts = round(world.past / world.scrape)
    past = clients.expected(random, failing, np.zeros(world.clients, bool), range(pasts))
    parts, scrape = [], 0
    for seconds, weight in world.weights:
        canary = position < weight * SLOTS / 100
        rates = np.where(canary, worse, failing)
        scrapes = range(scrape, scrape + round(seconds / world.scrape))
        parts.append(clients.expected(random, rates, canary, scrapes))
        scrape = scrapes.stop
    drawn = np.concatenate([random.poisson(_of_arms(part)) for part in parts], axis=1)
    past_good, past_failed = random.poisson(past.sum(axis=(1, 3)))
    reset = random.random(world.scrapes) < world.resets
    drawn[:, reset] = random.binomial(drawn[:, reset], 0.5)
    kept = random.random(world.scrapes) >= world.lost
    kept[-1] = True
    return Run(world, salt, drawn, tuple(parts), kept, past_good + past_failed, past_failed, random)


@lru_cache(maxsize=8)
def _traffic(world: World) -> Shares:
    """What each client sends in a scrape."""
    traffic: Shares = np.arange(1.0, world.clients + 1) ** -world.zipf
    traffic *= world.rate * world.scrape / traffic.sum()
    return traffic


def _factor(world: World, failing: Shares, traffic: Shares) -> float:
    """What makes each client's failure rate so much larger as the world says, none beyond 1."""
    if not world.added:
        return world.harm
    aim = (traffic * failing).sum() + world.added * traffic.sum()
    low, high = 1.0, 1e9
    for _ in range(80):
        middle = math.sqrt(low * high)
        enough = (traffic * np.minimum(1.0, failing * middle)).sum() >= aim
        low, high = (low, middle) if enough else (middle, high)
    return high


def _failure_rates(world: World, random: np.random.Generator) -> Shares:
    if not world.concentration:
        return np.full(world.clients, world.base)
    a, b = world.concentration * world.base, world.concentration * (1 - world.base)
    return random.beta(a, b, world.clients)


@dataclass(frozen=True)
class _Clients:
    """Who sends how much in a scrape, from which slot."""

    world: World
    slot: Numbers
    traffic: Shares

    def expected(
        self, random: np.random.Generator, failing: Shares, canary: Flags, scrapes: range
    ) -> Shares:
        """Good requests, then failures, on average; by scrape, slot and arm."""
        cell = self.slot * 2 + canary
        alike = not self.world.bursts and not self.world.daily
        result = np.empty((2, 1 if alike else len(scrapes), SLOTS * 2))
        for place, scrape in enumerate(scrapes[: result.shape[1]]):
            swing = 1 + self.world.daily * np.sin(2 * np.pi * scrape / self.world.scrapes)
            rates = np.minimum(1.0, failing * swing)
            if self.world.bursts:
                rates = (random.random(len(rates)) < rates).astype(float)
            sent = self.traffic * swing
            bad = np.bincount(cell, sent * rates, SLOTS * 2)
            result[0, place] = np.maximum(0.0, np.bincount(cell, sent, SLOTS * 2) - bad)
            result[1, place] = bad
        shape = (2, len(scrapes), SLOTS, 2)
        return np.broadcast_to(result.reshape(2, -1, SLOTS, 2), shape)


def _of_arms(expected: Shares) -> Shares:
    """The sum over slots; of scrapes that are one in memory, only once."""
    if expected.strides[1]:
        result: Shares = expected.sum(axis=2)
        return result
    return np.broadcast_to(expected[:, :1].sum(axis=2), (2, expected.shape[1], 2))
