"""What two counters of each revision decide in simulated rollouts, with client slots and without.

In these worlds what fails is what is counted as an event, a good one or a bad one as the metric has it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from kohort.analysis.confirming import GUARD_FACTOR, LOOK_GROWTH, look
from kohort.analysis.counts import FEWER, MORE
from kohort.analysis.split import canary_slots
from kohort.analysis.tolerance import Border, border, only_bad, worse
from kohort.api.analysis import Metric
from tests.bench.deciders import ALPHA, Array, past, since
from tests.bench.worlds import Run


class Ends(NamedTuple):
    """After which scrape (from 0) a canary is accused by single requests, accused a thousand times surer,
    and sent back by client slots too; None: never."""

    accused: int | None
    surer: int | None
    back: int | None


def ends(run: Run, metric: Metric) -> Ends:
    """``counts.advance`` with all scrapes at once."""
    log_capital, limit = capital(run, metric), math.log(1 / ALPHA)
    requests, events = (c.sum(axis=(1, 2)).cumsum() for c in (run.requests, run.failed))
    rarer = np.minimum(events, requests - events)
    weights, before = run.world.weight_of_scrape, only_bad(past(run), metric)
    accused = np.flatnonzero(log_capital >= limit).tolist()
    surer = np.flatnonzero(log_capital >= limit + math.log(GUARD_FACTOR)).tolist()
    looked_at, back = 0, None
    for scrape in accused:
        if rarer[scrape] < LOOK_GROWTH * looked_at:
            continue
        looked_at = int(rarer[scrape])
        canary, cut = canary_slots(weights[scrape], run.salt)
        now = only_bad(since(run, weights.index(weights[scrape]), scrape), metric)
        scores = partial(worse, canary=canary, tolerated=border(metric))
        capital_now = float(log_capital[scrape])
        if look(before, now, canary, cut, capital_now, ALPHA, looked_at, scores).confirmed:
            back = scrape
            break
    return Ends(next(iter(accused), None), next(iter(surer), None), back)


def capital(run: Run, metric: Metric) -> Array:
    """Log of the mean capital after each scrape, of bets on more bad ones and on fewer good ones."""
    canary, canary_events, stable, stable_events = run.arms
    events = (canary_events, stable_events)
    others = (canary - canary_events, stable - stable_events)
    more = metric.counts is not None and metric.counts.wants_more
    bad, good = (others, events) if more else (events, others)
    limit, both = border(metric), (canary > 0) & (stable > 0)
    gains = np.concatenate(
        (
            _gain(canary, stable, bad, np.array(MORE), limit),
            _gain(canary, stable, good, np.array(FEWER), limit.of_good()),
        ),
        axis=1,
    )
    logs = np.where(both[:, None], gains, 0.0).cumsum(axis=0)
    highest = logs.max(axis=1, keepdims=True)
    result: Array = highest[:, 0] + np.log(np.exp(logs - highest).mean(axis=1))
    return result


def _gain(
    canary: Array, stable: Array, events: tuple[Array, Array], bets: Array, limit: Border
) -> Array:
    """What each bet gains at each scrape: ``betting.log_factor``."""
    share = (canary / np.maximum(1, canary + stable))[:, None]
    expected = 1 + share * (limit.ratio - 1)
    for_stable = expected / (1 - share + share * limit.ratio * bets)
    gain: Array = events[0][:, None] * np.log(bets * for_stable)
    gain = gain + events[1][:, None] * np.log(for_stable)
    return gain - canary[:, None] * limit.added * (bets * for_stable - 1)
