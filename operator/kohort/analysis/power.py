"""What harm would have been seen by now: without it, that nothing was seen says nothing.

An approximation: bets at level alpha see harm once the evidence that it brings on average, less what
chance takes from it one time in five, is as much as they need. Clients that clump take the more requests,
the more their slots vary. docs/statistics.md measures how well it holds.
"""

from __future__ import annotations

import math

from kohort.analysis.betting import requests_to_tell
from kohort.analysis.slots import Totals
from kohort.contract import SLOTS

SEEN = 0.8
"""How often harm is seen that is told as one that would have been."""

_BELOW = 0.84  # standard deviations that a fifth of a normal distribution is below the mean by

MIXTURE = math.log(12)
"""What it takes more, because the right bet is one among many, and slots have to bear it out."""

_STEPS = 40


def dispersion(past: Totals, now: Totals) -> float:
    """How many times more slots vary than independent requests would make them; at least 1.

    Of slots against their own past where that is known, for what a slot always does harms no power.
    """
    requests, failed = sum(now.requests), sum(now.failed)
    if not failed:
        return 1.0
    known = sum(past.requests) + requests
    rate = (sum(past.failed) + failed) / known
    weight = 1 / rate + 10
    usual = [
        sent * (bad + weight * rate) / (before + weight)
        for sent, before, bad in zip(now.requests, past.requests, past.failed, strict=True)
    ]
    scale = failed / math.fsum(usual)
    squares = math.fsum((bad - scale * u) ** 2 for bad, u in zip(now.failed, usual, strict=True))
    return max(1.0, squares / failed * SLOTS / (SLOTS - 1))


def seen_rate(canary: int, stable: int, rate: float, alpha: float, spread: float = 1.0) -> float:
    """The least failure rate of the canary that would have been seen four times out of five.

    ``canary``, ``stable``: requests of the arms. ``rate``: stable's. ``spread``: the dispersion of
    slots. 1 where even a canary that always fails might not have been seen, or cannot be told.
    """
    if not canary or not stable:
        return 1.0
    total, share = canary + stable, canary / (canary + stable)
    needed = math.log(1 / alpha) + MIXTURE

    def seen(other: float) -> bool:
        # Where clients clump, slots vary the more, the more they fail; how much so was measured.
        clumping = 1 + (spread - 1) * math.sqrt(other / rate)
        # ln(1/alpha) / requests is what one request brings.
        evidence = total / requests_to_tell(share, rate, other, 1 / math.e) / clumping
        return evidence - _BELOW * math.sqrt(2 * evidence) >= needed

    if not seen(1.0):
        return 1.0
    low, high = rate, 1.0
    for _ in range(_STEPS):
        middle = math.sqrt(low * high) if low > 0 else high / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high
