"""Simulated clients of a rollout: what gateways would count, by scrape, slot and arm.

Clients differ in how much they send (Zipf) and how often they fail (Beta), stay on their slot, and can
fail in bursts. Between scrapes requests come at random (Poisson), so that what clients of one slot and
arm send adds up to two Poisson numbers: requests that fail and requests that do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from kohort.analysis.split import canary_order
from kohort.contract import SLOTS

Numbers = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


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
    """One rollout. Arrays by scrape, slot, arm (0 stable, 1 canary); ``past_…`` by slot."""

    world: World
    salt: str
    requests: Numbers
    failed: Numbers
    past_requests: Numbers
    past_failed: Numbers

    @cached_property
    def arms(self) -> tuple[Shares, Shares, Shares, Shares]:
        """By scrape: requests and failures of the canary, then of stable."""
        requests, failed = (
            self.requests.sum(axis=1, dtype=float),
            self.failed.sum(axis=1, dtype=float),
        )
        return requests[:, 1], failed[:, 1], requests[:, 0], failed[:, 0]


def runs(world: World, count: int, seed: int) -> Iterator[Run]:
    """So many rollouts, the same ones for the same seed."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield _run(world, random)


def _run(world: World, random: np.random.Generator) -> Run:
    traffic = np.arange(1.0, world.clients + 1) ** -world.zipf
    traffic *= world.rate * world.scrape / traffic.sum()
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
    past = clients.send(random, failing, np.zeros(world.clients, bool), range(pasts))
    parts, scrape = [], 0
    for seconds, weight in world.weights:
        canary = position < weight * SLOTS / 100
        rates = np.where(canary, worse, failing)
        scrapes = range(scrape, scrape + round(seconds / world.scrape))
        parts.append(clients.send(random, rates, canary, scrapes))
        scrape = scrapes.stop
    requests, failed = np.concatenate(parts, axis=1)
    _mishaps(world, random, requests, failed)
    return Run(world, salt, requests, failed, *past.sum(axis=(1, 3)))


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

    def send(
        self,
        random: np.random.Generator,
        failing: Shares,
        canary: npt.NDArray[np.bool_],
        scrapes: range,
    ) -> Numbers:
        """Requests, then failures; by scrape, slot and arm."""
        cell = self.slot * 2 + canary
        expected = np.empty((2, len(scrapes), 2 * SLOTS))
        alike = not self.world.bursts and not self.world.daily
        for place, scrape in enumerate(scrapes):
            if place and alike:
                expected[:, 1:] = expected[:, :1]
                break
            swing = 1 + self.world.daily * np.sin(2 * np.pi * scrape / self.world.scrapes)
            rates = np.minimum(1.0, failing * swing)
            if self.world.bursts:
                rates = (random.random(len(rates)) < rates).astype(float)
            sent = self.traffic * swing
            expected[0, place] = np.bincount(cell, sent * (1 - rates), 2 * SLOTS)
            expected[1, place] = np.bincount(cell, sent * rates, 2 * SLOTS)
        good, bad = random.poisson(expected).reshape(2, len(scrapes), SLOTS, 2)
        return np.stack((good + bad, bad))


def _mishaps(world: World, random: np.random.Generator, requests: Numbers, failed: Numbers) -> None:
    """What a lost scrape misses comes with the next one; what a reset loses never comes."""
    for scrape in range(len(requests)):
        if random.random() < world.resets:
            kept = random.binomial(failed[scrape], 0.5)
            requests[scrape] = kept + random.binomial(requests[scrape] - failed[scrape], 0.5)
            failed[scrape] = kept
        if random.random() < world.lost and scrape + 1 < len(requests):
            for counts in (requests, failed):
                counts[scrape + 1] += counts[scrape]
                counts[scrape] = 0
