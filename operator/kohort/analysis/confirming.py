"""The second layer: do client slots bear out what single requests say?

Requests of one client are alike: one client fails all day, another never. A test of single requests
takes that for the canary's doing. What was randomised is which slots are the canary's, so a permutation
of slots is exact, however clients behave. Before a canary goes back, it must agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kohort.analysis.permutation import tail_share
from kohort.analysis.slots import Totals
from kohort.analysis.wording import one_in

CLIP = 3.0
"""Standard deviations beyond which one slot counts no more: a few clients must not decide."""

STEPS_TIMES_CHOSEN = 1200
LEAST_STEPS, MOST_STEPS = 8, 48
"""How finely scores are told apart: as finely as milliseconds allow, coarser the more slots are summed."""

HOPELESS = 2.0
"""Standard deviations below which no look is worth its milliseconds."""

FIRST_EPOCH, EPOCH_GROWTH, FAVOURED_EPOCHS = 4, 3.0, 3.0
"""An epoch ends when failures have tripled. Most of alpha goes to the first ones, where most is decided."""

LOOK_GROWTH = 1.1
"""Between two looks failures grow by a tenth: a look sooner would see the same."""

GUARD_FACTOR = 1000.0
"""How much less likely than alpha chance must be before too few clients may decide."""

KNOWN_REQUESTS = 20
"""Requests before the canary, from which on a slot's own past says what is usual for it."""

GUARD_RATIO = 3.0

N = TypeVar("N", int, float)


Scores = Callable[[Totals, Totals], dict[int, float]]
"""How much worse than expected each slot does, from what all did before and what they do now."""


@dataclass(frozen=True)
class Look:
    """What slots say to an accusation: whether they bear it out, and why in words."""

    confirmed: bool
    chance: float
    told: str


def level(alpha: float, count: int, first: int = FIRST_EPOCH) -> float:
    """What one look may spend of ``alpha`` when so much has been counted of both arms.

    ``count``: failures, or requests; ``first``: when the first epoch begins to end. The levels of all
    epochs add up to ``alpha``. Which epoch it is depends on no arm: one look at the end of each would
    be exact for ever. Looks in between are covered by what an epoch's level leaves unused, because only
    looks that follow an accusation are taken: docs/statistics.md measures it.
    """
    epoch = 1 + max(0, math.floor(math.log(max(count, 1) / first, EPOCH_GROWTH)))
    return alpha / _EPOCHS / (1 + (epoch / FAVOURED_EPOCHS) ** 2)


# The sum over all epochs of 1 / (1 + (epoch / favoured)**2).
_EPOCHS = (FAVOURED_EPOCHS * math.pi / math.tanh(math.pi * FAVOURED_EPOCHS) - 1) / 2


def look(
    past: Totals,
    now: Totals,
    canary: Collection[int],
    border: int | None,
    log_capital: float,
    alpha: float,
    failures: int,
    scores: Scores | None = None,
) -> Look:
    """Whether slots bear out that the canary is worse.

    ``canary``: slots that are wholly the canary's. ``border``: the one that both arms have a part of,
    which no permutation can label. ``log_capital``: of the bets on single requests.
    ``failures``: of both arms since the analysis began. ``scores``: ``surprise`` if absent.
    """
    whole = Totals(_without(now.requests, border), _without(now.failed, border))
    active = {slot for slot, requests in enumerate(whole.requests) if requests}
    chosen = active.intersection(canary)
    allowed = level(alpha, failures)
    if math.comb(len(active), len(chosen)) * allowed < 1:
        accused = chosen or ({border} if border is not None and now.requests[border] else set())
        return _few_clients(past, now, accused, len(active), log_capital, alpha)
    chance = chance_of_slots((scores or surprise)(past, whole), chosen)
    if chance <= allowed:
        slots = f"{len(chosen)} of {len(active)} client slots"
        return Look(True, chance, f"{slots} bear it out, chance {one_in(chance)}")
    told = f"client slots do not bear it out: chance {one_in(chance)}, {one_in(allowed)} is needed"
    return Look(False, chance, told)


def _few_clients(
    past: Totals,
    now: Totals,
    canary: Collection[int],
    active: int,
    log_capital: float,
    alpha: float,
) -> Look:
    """The weaker guard where so few slots are active that no choice of them is rare enough.

    It takes much stronger evidence of single requests, and that at least half of the canary's slots
    fail much more than they did before, or at least half of their requests if that is not known.
    """
    few = f"too few clients for an exact test ({len(canary)} slots of the canary among {active})"
    failing = [slot for slot in canary if _fails_anew(past, now, slot)]
    told = f"{few}; {len(failing)} of them fail more than before"
    if not failing or 2 * len(failing) < len(canary):
        return Look(False, 1.0, told)
    if log_capital < math.log(GUARD_FACTOR / alpha):
        return Look(False, 1.0, f"{told}, but chance {one_in(alpha / GUARD_FACTOR)} is needed")
    return Look(True, 1.0, told)


def _fails_anew(past: Totals, now: Totals, slot: int) -> bool:
    requests, failed = now.requests[slot], now.failed[slot]
    if past.requests[slot] < KNOWN_REQUESTS:
        return 2 * failed >= requests > 0
    usual = (past.failed[slot] + 1) / (past.requests[slot] + 2)
    return failed > GUARD_RATIO * usual * requests


def _without(numbers: Sequence[N], slot: int | None) -> tuple[N, ...]:
    return tuple(number if each != slot else number * 0 for each, number in enumerate(numbers))


def surprise(past: Totals, now: Totals) -> dict[int, float]:
    """How much more than expected each slot has failed; only slots that sent anything.

    Expected is what a slot did before there was a canary, shrunk towards all slots' rate, in all as
    many failures as there were. A slot's surprise is its score in a negative binomial model, whose
    dispersion is that of all slots: plain counts where requests are independent, relative ones where
    clients differ. It depends on no arm, so that the labels of slots stay exchangeable.
    """
    active = [slot for slot, requests in enumerate(now.requests) if requests]
    if sum(now.failed) <= 0:
        return dict.fromkeys(active, 0.0)
    expected = _expected(past, now, active)
    residual = {slot: now.failed[slot] - expected[slot] for slot in active}
    excess = math.fsum(r * r - expected[slot] for slot, r in residual.items())
    dispersion = max(0.0, excess / math.fsum(e * e for e in expected.values()))
    result = {}
    for slot, mean in expected.items():
        variance = mean + dispersion * mean * mean + 0.5
        bound = CLIP * math.sqrt(variance)
        result[slot] = max(-bound, min(bound, residual[slot])) / (1 + dispersion * mean)
    return result


def _expected(past: Totals, now: Totals, active: Sequence[int]) -> dict[int, float]:
    """Failures by slot that its past makes likely, scaled to as many as there were in all."""
    requests = sum(past.requests) + sum(now.requests)
    rate = (sum(past.failed) + sum(now.failed)) / requests
    weight = 1 / rate + 10
    raw = {
        slot: now.requests[slot]
        * (past.failed[slot] + weight * rate)
        / (past.requests[slot] + weight)
        for slot in active
    }
    scale = sum(now.failed) / math.fsum(raw.values())
    return {slot: value * scale for slot, value in raw.items()}


def chance_of_slots(surprises: dict[int, float], canary: Collection[int]) -> float:
    """The share of all choices of as many slots whose surprises add up to at least the canary's.

    1 when they do not even come near; the p-value of a permutation test otherwise.
    """
    chosen = [value for slot, value in surprises.items() if slot in canary]
    values = list(surprises.values())
    if not chosen or len(chosen) == len(values) or _deviations(values, chosen) < HOPELESS:
        return 1.0
    # As many subsets have the others' sum at most as have the chosen ones' sum at least.
    if len(chosen) * 2 > len(values):
        values = [-value for value in values]
        chosen = [-value for slot, value in surprises.items() if slot not in canary]
    low, high = min(values), max(values)
    steps = max(LEAST_STEPS, min(MOST_STEPS, STEPS_TIMES_CHOSEN // len(chosen)))
    step = (high - low) / steps

    def rounded(value: float) -> int:
        return round((value - low) / step)

    return tail_share([rounded(v) for v in values], len(chosen), sum(map(rounded, chosen)))


def _deviations(values: Sequence[float], chosen: Sequence[float]) -> float:
    """How many standard deviations the chosen ones' sum lies above that of a random choice."""
    count, share = len(values), len(chosen) / len(values)
    mean = math.fsum(values) / count
    variance = math.fsum((v - mean) ** 2 for v in values) / (count - 1)
    deviation = math.sqrt(len(chosen) * (1 - share) * variance)
    return (math.fsum(chosen) - mean * len(chosen)) / deviation if deviation else 0.0
