"""Counters of an application, by client slot where they tell it: series made into totals that never fall."""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kohort.analysis.astray import Routed
from kohort.analysis.reading import Row, Sample
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
    """A counter of one slot: of which arm, which one of a metric's, and who counts.

    ``kind``: its number among those that a metric has of each revision; the last one counts all.
    ``slot``: None for what has no slot, as requests outside of a rollout.
    """

    revision: str
    kind: int
    slot: int | None
    source: str


Told = Mapping[SlotSeries, Sample]
Rows = tuple[Row, ...]
"""By kind, by slot number."""


@dataclass(frozen=True)
class Totals:
    """What was counted so far, in whose name, and what it was before any client had the canary.

    ``at``: Unix time of the oldest sample. ``arms``: by revision, by kind. ``errors``: why it is not to be
    believed.
    """

    counter: str
    at: float
    now: Rows
    past: Rows | None
    arms: Mapping[str, Row]
    errors: tuple[str, ...]


_NOTHING: Row = (0,) * SLOTS


def _zeros() -> array[int]:
    return array("q", bytes(8 * SLOTS))


@dataclass
class _Entry:
    """One rollout of a cohort: totals, and what each series told last."""

    salt: str
    kinds: tuple[str, ...]
    counter: str = field(default_factory=lambda: secrets.token_hex(8))
    known: dict[SlotSeries, Sample] = field(default_factory=dict)
    sources: set[tuple[str, str]] = field(default_factory=set)
    rows: dict[int, array[int]] = field(default_factory=dict)
    arms: dict[str, list[int]] = field(default_factory=dict)
    past: Rows | None = None
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

    def add(self, new: Mapping[SlotSeries, int], *, slotted: bool) -> None:
        """Counts what is new; of counters that tell slots what is of one, for the rest is from before the
        rollout, or told by ``follow``."""
        for (revision, kind, slot, _), number in new.items():
            if slotted == (slot is None):
                continue
            arm = self.arms.setdefault(revision, [0] * len(self.kinds))
            arm[kind] += number
            if slot is not None:
                row = self.rows.get(kind)
                if row is None:
                    row = self.rows[kind] = _zeros()
                row[slot] += number

    def follow(self, new: Mapping[SlotSeries, int], split: Split | None) -> None:
        """Looks whether slots are told, and those that the gateways sent, while a split is in effect."""
        same, self.split = split is not None and split == self.split, split
        if not same or split is None:
            self.routed = self.slotted = Routed()
            return
        canary, border = canary_slots(split.weight, self.salt)
        without = known = astray = 0
        for (revision, kind, slot, _), number in new.items():
            if kind != len(self.kinds) - 1:
                continue
            if slot is None:
                without += number
            elif slot != border:
                known += number
                astray += number if (slot in canary) != (revision == split.canary) else 0
        self.routed = _after(self.routed, known, astray)
        self.slotted = _after(self.slotted, known + without, without)

    def totals(self) -> Rows:
        """What was counted so far by slot."""
        return tuple(tuple(self.rows.get(kind, _NOTHING)) for kind in range(len(self.kinds)))


def _after(routed: Routed, requests: int, astray: int) -> Routed:
    """With another look; what went wrong long ago is forgotten, so that an alarm ends with its cause."""
    kept = 0.5 if routed.requests > FORGETTING else 1.0
    return Routed(round(routed.requests * kept) + requests, round(routed.astray * kept) + astray)


class Asked(NamedTuple):
    """What messages name: the query of all, and the label that tells slots, if there is one.

    ``kinds``: names of the counters that a metric has of each revision and slot.
    """

    total: str
    label: str | None
    kinds: tuple[str, ...]


class SlotSeriesLedger:
    """Sums up counters by slot and arm, in memory: an operator that starts anew counts on from what it
    reads first."""

    def __init__(self) -> None:
        self._entries: dict[Name, _Entry] = {}

    def take(
        self,
        name: Name,
        salt: str,
        weight: int,
        told: Told,
        asked: Asked,
        split: Split | None,
    ) -> Totals:
        """Totals after what was told; an error in them where slots are not told, or others.

        ``salt``: names the rollout; another one counts from nought, and so do other counters. ``weight``:
        the canary's percentage now. ``split``: if every gateway is known to serve it since before these
        samples were taken. Raises PrometheusError for more series than can be kept.
        """
        entry = self._entries.get(name)
        if entry is None or (entry.salt, entry.kinds) != (salt, asked.kinds):
            entry = self._entries[name] = _Entry(salt, asked.kinds)
        new = entry.gained(told)
        if len(entry.known) > SERIES_LIMIT:
            entry.forget_others(told)
        if len(entry.known) > SERIES_LIMIT:
            del self._entries[name]
            raise PrometheusError(
                f"more than {SERIES_LIMIT} series were selected, and no more can be kept: {asked.total}"
            )
        entry.add(new, slotted=bool(asked.label))
        entry.follow(new, split if asked.label else None)
        totals = entry.totals()
        entry.had_clients |= weight > 0
        if not entry.had_clients:
            entry.past = totals
        return Totals(
            entry.counter,
            min(sample.at for sample in told.values()),
            totals,
            entry.past,
            {
                revision: tuple(entry.arms.get(revision, (0,) * len(entry.kinds)))
                for revision in {each.revision for each in told}
            },
            tuple(filter(None, (_unslotted(entry, asked), _misled(entry, asked)))),
        )

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
