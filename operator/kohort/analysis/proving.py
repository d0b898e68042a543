"""Proof that a canary is not worse, also where clients clump: a comparison of slots, not of requests.

The bets of ``betting`` prove it for independent requests. Clients that differ make both arms' rates
wander by more, and what requests seem to prove is then often luck. How much more is seen in the slots.
It is an approximation, by Student's t; docs/statistics.md measures how well it holds.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from statistics import NormalDist

from kohort.analysis.slots import Totals
from kohort.contract import SLOTS

FEWEST_SLOTS = 8
"""Slots that each arm needs, for less says nothing about how much slots differ."""

PROOF_EPOCH = 1000
"""Requests of both arms at which the first epoch of looks for a proof ends at the earliest."""


def chance_of_luck(
    past: Totals,
    now: Totals,
    canary: Collection[int],
    border: int | None,
    margin: float,
    ratio: float = 1.0,
    *,
    more: bool = False,
) -> float:
    """The chance to look so good for a canary whose failed share is ``ratio`` times stable's + ``margin``.

    1 with too few slots. ``canary``: slots that are wholly the canary's; ``border``: the one that both
    arms have a part of, which is left out. ``more``: it looks the better the more of it is counted.
    """
    arms: tuple[list[int], list[int]] = ([], [])
    for slot, requests in enumerate(now.requests):
        if requests and slot != border:
            arms[slot in canary].append(slot)
    stable, chosen = arms
    if min(len(stable), len(chosen)) < FEWEST_SLOTS:
        return 1.0
    expected = _expected(now, _usual(past, now), stable, chosen)
    of_stable = math.fsum(expected[s] for s in stable)
    of_canary = math.fsum(expected[s] for s in chosen)
    added = margin * _total(now.requests, chosen) + (ratio - 1) * of_canary
    failed = _total(now.failed, chosen)
    # Slots differ by what their past does not tell. Harm would differ too, the more the less alike
    # clients are, so that it matters who happens to be in the canary.
    surprising = _dispersion(now, expected, stable) - 1
    unlike = _dispersion(now, _expected(now, [1.0] * SLOTS, stable, chosen), stable) - 1
    variance = of_canary + added + surprising * of_canary
    if of_stable:
        variance += unlike * added**2 / of_canary + (1 + surprising) * of_canary**2 / of_stable
    around = failed / of_canary if of_canary else 0.0
    seen = math.fsum((now.failed[s] - expected[s] * around) ** 2 for s in chosen)
    deviation = math.sqrt(max(variance, len(chosen) / (len(chosen) - 1) * seen))
    better = failed - of_canary - added if more else of_canary + added - failed
    return _student_tail(better / deviation, len(chosen) - 1)


def _expected(
    now: Totals, usual: list[float], stable: list[int], chosen: list[int]
) -> dict[int, float]:
    """Failures of each slot if the canary failed as stable does."""
    level = _total(now.failed, stable) / math.fsum(now.requests[s] * usual[s] for s in stable)
    return {s: now.requests[s] * usual[s] * level for s in (*stable, *chosen)}


def _usual(past: Totals, now: Totals) -> list[float]:
    """Each slot's failure rate before the canary, shrunk towards all slots' rate."""
    requests = sum(past.requests) + sum(now.requests)
    rate = (sum(past.failed) + sum(now.failed) + 0.5) / (requests + 1)
    weight = 1 / rate + 10
    return [
        (failed + weight * rate) / (sent + weight)
        for sent, failed in zip(past.requests, past.failed, strict=True)
    ]


def _dispersion(now: Totals, expected: dict[int, float], stable: list[int]) -> float:
    """How many times more slots of stable vary than counts of independent requests would; at least 1."""
    total = math.fsum(expected[s] for s in stable)
    if not total:
        return 1.0
    squares = math.fsum((now.failed[s] - expected[s]) ** 2 for s in stable)
    return max(1.0, squares / total)


def _total(numbers: tuple[float, ...], slots: list[int]) -> float:
    return sum(numbers[slot] for slot in slots)


def _student_tail(t: float, freedom: int) -> float:
    """The chance that Student's t exceeds ``t``. Source: D. L. Wallace, 1959: within 1 % of it."""
    z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return NormalDist().cdf(-math.copysign(z, t))
