"""A two-arm test by betting: valid however often it is looked at, at any weight and any base rate.

Each bet multiplies its capital by a factor whose expectation is at most 1 while the hypothesis is
true, so by Ville's inequality the capital ever reaches 1/alpha with probability at most alpha. The
factor needs no model of the failure rate: the other arm, at the same time, is the control.
"""

from __future__ import annotations

import math
from functools import lru_cache

from msgspec import Struct

from kohort.analysis.reading import Count

HARM_BETS = (1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 60.0)
"""Ratios of failure rates, canary to stable, that are bet on against "the canary is not worse"."""

PROOF_BETS = (0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.975, 0.99)
"""Bets against "the canary is worse by the margin"; the best one is rate / (rate + margin)."""


Logs = tuple[float, ...]
"""By bet: a ratio of rates, or the logarithm of its capital."""


class Batch(Struct, frozen=True):
    """What both arms brought in the same stretch of time; within it requests are exchangeable."""

    canary: Count
    stable: Count


def log_factor(batch: Batch, bet: float, margin: float = 0.0, ratio: float = 1.0) -> float:
    """Log of what one bet's capital is multiplied by after a batch.

    Tests, for ``bet`` > 1, "the canary's failure rate is at most ``ratio`` times stable's + ``margin``",
    and for ``bet`` < 1 "it is at least that"; bets are on rates ``bet`` times as high. 0 when an arm has
    no request.
    Source: U**y <= 1 + y(U - 1) on [0, 1], 1 + z <= exp(z), and
    share*ratio*(U-1) + (1-share)*(V-1) = 0.
    """
    total = batch.canary.requests + batch.stable.requests
    if not batch.canary.requests or not batch.stable.requests:
        return 0.0
    canary_share = batch.canary.requests / total
    expected = 1 + canary_share * (ratio - 1)
    for_stable = expected / (1 - canary_share + canary_share * ratio * bet)
    for_canary = bet * for_stable
    return (
        batch.canary.failed * math.log(for_canary)
        + batch.stable.failed * math.log(for_stable)
        - batch.canary.requests * margin * (for_canary - 1)
    )


def raised(
    logs: Logs,
    bets: Logs,
    batch: Batch,
    margin: float = 0.0,
    ratio: float = 1.0,
) -> Logs:
    """The log capital of every bet after one more batch; see ``log_factor``."""
    canary, stable = batch.canary, batch.stable
    if not canary.requests or not stable.requests:
        return logs
    # As ``log_factor``, with what is the same for all bets found once: this runs at every scrape.
    share = canary.requests / (canary.requests + stable.requests)
    rest, tolerated, log = 1 - share, canary.requests * margin, math.log
    failed, of_canary = canary.failed + stable.failed, canary.failed
    theirs, expected = share * ratio, 1 + share * (ratio - 1)
    log_expected, raised_logs = log(expected), []
    for before, bet, log_bet in zip(logs, bets, _logs(bets), strict=True):
        weighted = rest + theirs * bet
        gain = of_canary * log_bet - failed * (log(weighted) - log_expected)
        gain -= tolerated * (bet * expected / weighted - 1)
        raised_logs.append(before + gain)
    return tuple(raised_logs)


@lru_cache(maxsize=16)
def _logs(bets: Logs) -> Logs:
    return tuple(map(math.log, bets))


@lru_cache(maxsize=64)
def log_mean(logs: Logs) -> float:
    """Log of the mean capital over equally weighted bets; asked for again and again in one pass."""
    highest, exp = max(logs), math.exp
    return highest + math.log(sum([exp(log - highest) for log in logs]) / len(logs))


def requests_to_tell(
    canary_share: float, stable_rate: float, canary_rate: float, alpha: float
) -> float:
    """Requests of both arms that any test at level ``alpha`` needs on average to tell the rates apart.

    The information limit ln(1/alpha) / G, with G the mean Kullback-Leibler divergence of the arms
    from their common rate; infinite when there is nothing to tell apart.
    """
    common = canary_share * canary_rate + (1 - canary_share) * stable_rate
    gain = canary_share * _divergence(canary_rate, common) + (1 - canary_share) * _divergence(
        stable_rate, common
    )
    return math.log(1 / alpha) / gain if gain > 0 else math.inf


def _divergence(rate: float, other: float) -> float:
    """Kullback-Leibler divergence of two coins, in nats."""
    return sum(
        p * math.log(p / q) for p, q in ((rate, other), (1 - rate, 1 - other)) if p > 0 and q > 0
    )
