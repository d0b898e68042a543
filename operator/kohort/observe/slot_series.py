"""Counters of an application that tell client slots: series made into totals that never fall."""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kohort.analysis.astray import Routed
from kohort.analysis.reading import Reading, Sample, Series, Slots, SlotTotals
from kohort.analysis.split import canary_slots
from kohort.contract import SLOTS
from kohort.observe.prometheus import PrometheusError
from kohort.observe.slots import FORGETTING, Split
from kohort.route.table import ModelKey

SERIES_LIMIT = 1 << 16
"""Series of one cohort and metric that are remembered: two counters of 256 slots at 128 pods."""

Name = tuple[ModelKey, str]
"""A model, and what readings of a cohort's metric are called."""


class SlotSeries(NamedTuple):
    """A counter of one slot: of which arm, of events or of all, and who counts.

    ``slot``: None for what has no slot, as requests outside of a rollout.
    """

    revision: str
    events: bool
    slot: int | None
    source: str


Told = Mapping[SlotSeries, Sample]


def _zeros() -> array[int]:
    return array("q", bytes(8 * SLOTS))


@dataclass
class _Entry:
    """One rollout of a cohort: totals, and what each series told last."""

    salt: str
    counter: str = field(default_factory=lambda: secrets.token_hex(8))
    known: dict[SlotSeries, Sample] = field(default_factory=dict)
    sources: set[tuple[str, str]] = field(default_factory=set)
    requests: array[int] = field(default_factory=_zeros)
    events: array[int] = field(default_factory=_zeros)
    arms: dict[tuple[str, bool], int] = field(default_factory=dict)
    past: Slots | None = None
    had_clients: bool = False
    split: Split | None = None
    routed: Routed = field(default_factory=Routed)
    slotted: Routed = field(default_factory=Routed)

    def gained(self, told: Told) -> dict[SlotSeries, int]:
        """What is new. Of a source that was told before, a series that was not is new and counts from
        nought; of any other nobody knows since when it counts. One whose sample is not newer than the
        known one is passed over, for of two replicas one may lag."""
        new: dict[SlotSeries, int] = {}
        for name, sample in told.items():
            known = self.known.get(name)
            if known is None:
                was_told = (name.revision, name.source) in self.sources
                known = Sample(0 if was_told else sample.value, float("-inf"))
            if sample.at > known.at:
                # A counter that fell was reset, and counts from nought.
                fell = sample.value < known.value
                new[name] = sample.value if fell else sample.value - known.value
                self.known[name] = sample
        self.sources |= {(name.revision, name.source) for name in told}
        return new

    def forget_others(self, told: Told) -> None:
        """Forgets sources that are told no more."""
        self.sources = {(name.revision, name.source) for name in told}
        self.known = {
            name: sample
            for name, sample in self.known.items()
            if (name.revision, name.source) in self.sources
        }

    def add(self, new: Mapping[SlotSeries, int]) -> None:
        """Counts what is of a slot; what is of none is from before the rollout, or told by ``follow``."""
        for (revision, events, slot, _), number in new.items():
            if slot is not None:
                (self.events if events else self.requests)[slot] += number
                self.arms[revision, events] = self.arms.get((revision, events), 0) + number

    def follow(self, new: Mapping[SlotSeries, int], split: Split | None) -> None:
        """Looks whether slots are told, and those that the gateways sent, while a split is in effect."""
        same, self.split = split is not None and split == self.split, split
        if not same or split is None:
            self.routed = self.slotted = Routed()
            return
        canary, border = canary_slots(split.weight, self.salt)
        without = known = astray = 0
        for (revision, events, slot, _), number in new.items():
            if events:
                continue
            if slot is None:
                without += number
            elif slot != border:
                known += number
                astray += number if (slot in canary) != (revision == split.canary) else 0
        self.routed = _after(self.routed, known, astray)
        self.slotted = _after(self.slotted, known + without, without)

    def totals(self) -> Slots:
        """What was counted so far; events stand where failures do."""
        return Slots(tuple(self.requests), tuple(self.events))


def _after(routed: Routed, requests: int, astray: int) -> Routed:
    """With another look; what went wrong long ago is forgotten, so that an alarm ends with its cause."""
    kept = 0.5 if routed.requests > FORGETTING else 1.0
    return Routed(round(routed.requests * kept) + requests, round(routed.astray * kept) + astray)


class Asked(NamedTuple):
    """What messages name: the query of all, and the label that tells slots."""

    total: str
    label: str


class SlotSeriesLedger:
    """Sums up counters by slot and arm, in memory: an operator that starts anew counts on from what it
    reads first."""

    def __init__(self) -> None:
        self._entries: dict[Name, _Entry] = {}

    def take(
        self, name: Name, salt: str, weight: int, told: Told, asked: Asked, split: Split | None
    ) -> Reading:
        """A reading after what was told; an error in it where slots are not told, or others.

        ``salt``: names the rollout; another one counts from nought. ``weight``: the canary's percentage
        now. ``split``: if every gateway is known to serve it since before these samples were taken.
        """
        entry = self._entries.get(name)
        if entry is None or entry.salt != salt:
            entry = self._entries[name] = _Entry(salt)
        new = entry.gained(told)
        if len(entry.known) > SERIES_LIMIT:
            entry.forget_others(told)
        if len(entry.known) > SERIES_LIMIT:
            del self._entries[name]
            raise PrometheusError(
                f"more than {SERIES_LIMIT} series were selected, and no more can be kept: {asked.total}"
            )
        entry.add(new)
        entry.follow(new, split)
        totals = entry.totals()
        entry.had_clients |= weight > 0
        if not entry.had_clients:
            entry.past = totals
        at = min(sample.at for sample in told.values())
        series = {
            Series(revision, events, entry.counter): Sample(
                entry.arms.get((revision, events), 0), at
            )
            for revision in {each.revision for each in told}
            for events in (False, True)
        }
        errors = tuple(filter(None, (_unslotted(entry, asked), _misled(entry, asked))))
        slots = SlotTotals(entry.counter, totals, entry.past)
        return Reading(at, {}, errors, slots, series, sampled=True)

    def keep(self, names: Iterable[Name]) -> None:
        """Forgets all but these."""
        wanted = set(names)
        for name in [known for known in self._entries if known not in wanted]:
            del self._entries[name]


def _unslotted(entry: _Entry, asked: Asked) -> str:
    if not entry.slotted.alarming:
        return ""
    seen = entry.slotted
    return (
        f"{seen.astray:,} of {seen.requests:,} were counted without {asked.label}: {asked.total}; label what "
        "is counted with what the request says in x-kohort-slot"
    )


def _misled(entry: _Entry, asked: Asked) -> str:
    if not entry.routed.alarming:
        return ""
    seen = entry.routed
    return (
        f"{seen.astray:,} of {seen.requests:,} were counted in slots of the other revision: {asked.total}; "
        f"is {asked.label} what the request says in x-kohort-slot?"
    )
