"""How much worse a metric with counts lets a canary be, and what client slots say about it.

Slots are asked about the canary without what is tolerated: of its slots as many bad ones are taken off as
the margin allows. A canary at the margin, that makes all slots worse alike, then looks like a harmless one,
and the permutation of slots holds for it as it does for failures.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import NamedTuple

from msgspec import structs

from kohort.analysis import wording
from kohort.analysis.confirming import Look, level, look, surprise
from kohort.analysis.proving import PROOF_EPOCH, chance_of_luck
from kohort.analysis.sequential import Trial
from kohort.analysis.slots import SlotState, Totals
from kohort.analysis.split import canary_slots
from kohort.api.analysis import Metric
from kohort.api.prometheus import MarginType


class Border(NamedTuple):
    """The canary's share of bad ones that is still tolerated: ``ratio`` times stable's + ``added``."""

    ratio: float
    added: float

    def of_good(self) -> Border:
        """The same border as a share of good ones."""
        return Border(self.ratio, 1 - self.ratio - self.added)


def border(metric: Metric) -> Border:
    """What a metric with counts tolerates."""
    counts, margin = metric.counts, metric.allowed
    if counts is None or counts.margin_type is MarginType.ABSOLUTE:
        return Border(1.0, margin)
    # Good ones fewer by the margin: 1 - bad >= (1 - margin) * (1 - stable's bad).
    return Border(1 - margin, margin) if counts.wants_more else Border(1 + margin, 0.0)


def bear_out(
    slots: SlotState, trial: Trial, metric: Metric, log_capital: float, alpha: float, events: int
) -> Look:
    """Whether slots bear out that the canary is worse than tolerated; see ``confirming.look``."""
    canary, cut = canary_slots(slots.weight, trial.salt)
    past, now = only_bad(slots.before(), metric), only_bad(slots.since(), metric)
    scores = partial(worse, canary=canary, tolerated=border(metric))
    return look(past, now, canary, cut, log_capital, alpha, events, scores)


def asked_for_proof(
    slots: SlotState, trial: Trial, metric: Metric, beta: float, requests: int
) -> SlotState:
    """The slots with whether they bear out that the canary is not worse than tolerated."""
    canary, cut = canary_slots(slots.weight, trial.salt)
    past, now, tolerated = (
        only_bad(slots.before(), metric),
        only_bad(slots.since(), metric),
        border(metric),
    )
    if bad_are_rare(now):
        chance = chance_of_luck(past, now, canary, cut, tolerated.added, tolerated.ratio)
    else:
        good = tolerated.of_good()
        past, now = _others(past), _others(now)
        chance = chance_of_luck(past, now, canary, cut, good.added, good.ratio, more=True)
    needed = level(beta, requests, PROOF_EPOCH)
    doubt = f"chance {wording.one_in(chance)}, {wording.one_in(needed)} is needed"
    return structs.replace(slots, proof_looked_at=requests, proven=chance <= needed, doubt=doubt)


def worse(
    past: Totals, now: Totals, canary: Collection[int], tolerated: Border
) -> dict[int, float]:
    """How much worse than expected each slot does, the canary's without what is tolerated.

    Of bad and good ones the rarer kind is counted: it tells more.
    """
    if bad_are_rare(now):
        return surprise(past, _without_tolerated(now, canary, tolerated))
    past, now = _others(past), _others(now)
    more_good = surprise(past, _without_tolerated(now, canary, tolerated.of_good()))
    return {slot: -value for slot, value in more_good.items()}


def bad_are_rare(now: Totals) -> bool:
    """Whether less than half are bad."""
    return 2 * sum(now.failed) <= sum(now.requests)


def only_bad(totals: Totals, metric: Metric) -> Totals:
    """Requests and bad ones, of requests and events: never more than requests, for events may come later."""
    more = metric.counts is not None and metric.counts.wants_more
    bad = (
        sent - events if more else events
        for sent, events in zip(totals.requests, totals.failed, strict=True)
    )
    kept = (min(max(number, 0), sent) for number, sent in zip(bad, totals.requests, strict=True))
    return Totals(totals.requests, tuple(kept))


def _others(totals: Totals) -> Totals:
    """The same requests; those that were not bad counted instead."""
    return Totals(
        totals.requests,
        tuple(sent - bad for sent, bad in zip(totals.requests, totals.failed, strict=True)),
    )


def _without_tolerated(now: Totals, canary: Collection[int], tolerated: Border) -> Totals:
    """What the canary's slots would have had, were it worse by just what is tolerated and harmless."""
    if tolerated == (1.0, 0.0):
        return now
    bad = (
        (each - tolerated.added * sent) / tolerated.ratio if slot in canary else each
        for slot, (sent, each) in enumerate(zip(now.requests, now.failed, strict=True))
    )
    return Totals(now.requests, tuple(bad))
