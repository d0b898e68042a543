"""What decides in simulated rollouts: Kohort, and beside it what others do with the same counters.

Each decider returns the scrape (from 0) after which the canary goes back, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from kohort.analysis.betting import HARM_BETS, PROOF_BETS
from kohort.analysis.confirming import LOOK_GROWTH, level, look
from kohort.analysis.proving import PROOF_EPOCH, chance_of_luck
from kohort.analysis.slots import Totals
from kohort.analysis.split import canary_slots
from tests.bench.worlds import Run

ALPHA, BETA = 0.01, 0.05
Array = npt.NDArray[np.float64]
Decider = Callable[[Run], int | None]
_BETS, _PROOF = np.array(HARM_BETS), np.array(PROOF_BETS)
_Z = NormalDist().inv_cdf(1 - ALPHA)


def capital(run: Run, bets: Array = _BETS, margin: float = 0.0) -> Array:
    """Log of the mean capital after each scrape: ``betting.raised`` of all scrapes at once."""
    canary, canary_failed, stable, stable_failed = run.arms
    both = (canary > 0) & (stable > 0)
    share = np.where(both, canary / np.maximum(1, canary + stable), 0.0)
    for_stable = 1 / (1 - share[:, None] + share[:, None] * bets)
    gain = canary_failed[:, None] * np.log(bets * for_stable)
    gain += stable_failed[:, None] * np.log(for_stable)
    gain -= canary[:, None] * margin * (bets * for_stable - 1)
    return mean_capital(np.where(both[:, None], gain, 0.0).cumsum(axis=0))


def mean_capital(logs: Array) -> Array:
    """Log of the mean capital of all bets: ``betting.log_mean`` of many rows."""
    highest = logs.max(axis=1, keepdims=True)
    result: Array = highest[:, 0] + np.log(np.exp(logs - highest).mean(axis=1))
    return result


def single_requests(run: Run) -> int | None:
    """Kohort's first layer alone."""
    return _first(capital(run) >= math.log(1 / ALPHA))


def kohort(run: Run) -> int | None:
    """Both layers: ``sequential.advance`` with all scrapes at once."""
    log_capital = capital(run)
    failures = (run.arms[1] + run.arms[3]).cumsum()
    weights = run.world.weight_of_scrape
    before = past(run)
    looked_at = 0.0
    for scrape in np.flatnonzero(log_capital >= math.log(1 / ALPHA)).tolist():
        if failures[scrape] < LOOK_GROWTH * looked_at:
            continue
        looked_at = failures[scrape]
        canary, border = canary_slots(weights[scrape], run.salt)
        now = since(run, weights.index(weights[scrape]), scrape)
        seen = look(before, now, canary, border, log_capital[scrape], ALPHA, int(looked_at))
        if seen.confirmed:
            return scrape
    return None


def proofs(run: Run, margin: float) -> tuple[int | None, int | None]:
    """When single requests prove that the canary is not worse by a margin, and when Kohort says so."""
    proven = capital(run, _PROOF, margin) >= math.log(1 / BETA)
    requests = (run.arms[0] + run.arms[2]).cumsum()
    canary, border = canary_slots(run.world.weights[0][1], run.salt)
    looked_at = 0.0
    for scrape in np.flatnonzero(proven).tolist():
        if requests[scrape] < LOOK_GROWTH * looked_at:
            continue
        looked_at = requests[scrape]
        chance = chance_of_luck(past(run), since(run, 0, scrape), canary, border, margin)
        if chance <= level(BETA, int(looked_at), PROOF_EPOCH):
            return _first(proven), scrape
    return _first(proven), None


def peeking(run: Run) -> int | None:
    """A one-sided z-test of two proportions at every scrape."""
    return _first(_z(run) > _Z)


def once(run: Run) -> int | None:
    """The same test once, when a doubled failure rate would be seen nine times out of ten."""
    canary, _, stable, _ = (a.cumsum() for a in run.arms)
    base, power = run.world.base, NormalDist().inv_cdf(0.9)
    share = run.world.weights[0][1] / 100
    common = base * (1 + share)
    spread = _Z * math.sqrt(common * (1 - common) / share / (1 - share)) + power * math.sqrt(
        2 * base * (1 - 2 * base) / share + base * (1 - base) / (1 - share)
    )
    planned = _first(canary + stable >= (spread / base) ** 2)
    return planned if planned is not None and _z(run)[planned] > _Z else None


def msprt(run: Run) -> int | None:
    """Mixture sequential probability ratio of the difference, which is normal with the base rate's size."""
    canary, canary_failed, stable, stable_failed = (a.cumsum() for a in run.arms)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = canary_failed / canary - stable_failed / stable
        common = (canary_failed + stable_failed) / (canary + stable)
        variance = common * (1 - common) * (1 / canary + 1 / stable)
        mixed = variance + run.world.base**2
        ratio = 0.5 * np.log(variance / mixed)
        ratio += difference**2 * run.world.base**2 / (2 * variance * mixed)
    return _first((difference > 0) & (ratio >= math.log(1 / ALPHA)))


def minute_thresholds(run: Run) -> int | None:
    """As Flagger's documentation: success below 99 % in a minute is a failed check, the fifth rolls back."""
    canary, failed, _, _ = run.arms
    per_minute = round(60 / run.world.scrape)
    checks = np.arange(per_minute - 1, len(canary), per_minute)
    bad = np.array([_below(canary, failed, int(at), per_minute) for at in checks], np.bool_)
    return _nth(checks, bad, 5)


def rate_thresholds(run: Run) -> int | None:
    """As Argo Rollouts' documentation: success over the last minute, every ten seconds, limit 3."""
    canary, failed, _, _ = run.arms
    per_minute, per_check = round(60 / run.world.scrape), round(10 / run.world.scrape)
    checks = np.arange(per_check - 1, len(canary), per_check)
    bad = np.array([_below(canary, failed, int(at), per_minute) for at in checks], np.bool_)
    return _nth(checks, bad, 4)


DECIDERS: dict[str, Decider] = {
    "thresholds, 5 bad minutes": minute_thresholds,
    "thresholds, 4 bad rates": rate_thresholds,
    "z-test, peeking": peeking,
    "z-test, once": once,
    "mSPRT": msprt,
    "single requests": single_requests,
    "Kohort": kohort,
}


def past(run: Run) -> Totals:
    """What slots sent before the canary."""
    return Totals(tuple(run.past_requests.tolist()), tuple(run.past_failed.tolist()))


def since(run: Run, first: int, last: int) -> Totals:
    """What slots sent from one scrape to another, both included."""
    counts = (c[first : last + 1].sum(axis=(0, 2)) for c in (run.requests, run.failed))
    return Totals(*(tuple(c.tolist()) for c in counts))


def _z(run: Run) -> Array:
    canary, canary_failed, stable, stable_failed = (a.cumsum() for a in run.arms)
    with np.errstate(divide="ignore", invalid="ignore"):
        common = (canary_failed + stable_failed) / (canary + stable)
        deviation = np.sqrt(common * (1 - common) * (1 / canary + 1 / stable))
        z: Array = (canary_failed / canary - stable_failed / stable) / deviation
    return np.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0)


def _below(requests: Array, failed: Array, at: int, scrapes: int) -> bool:
    window = slice(max(0, at + 1 - scrapes), at + 1)
    return bool(failed[window].sum() > 0.01 * requests[window].sum())


def _first(hits: npt.NDArray[np.bool_]) -> int | None:
    found = np.flatnonzero(hits)
    return int(found[0]) if len(found) else None


def _nth(checks: npt.NDArray[np.int64], bad: npt.NDArray[np.bool_], count: int) -> int | None:
    hits = checks[bad]
    return int(hits[count - 1]) if len(hits) >= count else None
