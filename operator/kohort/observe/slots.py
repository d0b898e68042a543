"""What each slot has sent since a rollout began: gateways' counters made into totals that never fall."""

from __future__ import annotations

import secrets
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kohort.analysis.astray import Routed
from kohort.analysis.reading import Slots, SlotTotals, packed
from kohort.analysis.split import canary_slots
from kohort.contract import SLOTS, TOOK_MS
from kohort.observe.counters import Cell, Cells, Cohort


def _zeros() -> array[int]:
    return array("q", bytes(8 * SLOTS))


FORGETTING = 1000
"""Requests after which half of what is known of where they went is forgotten at every look."""


FORGIVEN_SECONDS = 30.0
"""For so long from the first time on, a canary whose pods are gone is not blamed, once in a rollout: its
node may have died. A canary that goes on losing pods is."""


class Split(NamedTuple):
    """Which revision is the canary, and which percentage of clients every gateway gives it."""

    canary: str
    weight: int


@dataclass
class _Entry:
    """One rollout of a cohort: totals, and what each process had counted when it was last read."""

    salt: str
    counter: str = field(default_factory=lambda: secrets.token_hex(8))
    requests: array[int] = field(default_factory=_zeros)
    failed: array[int] = field(default_factory=_zeros)
    took: dict[int, array[int]] = field(default_factory=dict)
    arms: dict[str, list[int]] = field(default_factory=dict)
    known: dict[str, Cells] = field(default_factory=dict)
    past: Slots | None = None
    had_clients: bool = False
    split: Split | None = None
    routed: Routed = field(default_factory=Routed)
    fell_back_at: float | None = None

    def forgives(self, cell: Cell, now: float) -> bool:
        """Whether these requests say nothing against the revision that they were for."""
        if not cell.fell_back:
            return False
        if self.fell_back_at is None:
            self.fell_back_at = now
        return now - self.fell_back_at <= FORGIVEN_SECONDS

    def add(self, cell: Cell, number: int) -> None:
        """Counts so many more requests."""
        if cell.took is not None:
            row = self.arms.get(cell.revision)
            if row is None:
                row = self.arms[cell.revision] = [0] * len(TOOK_MS)
            row[cell.took] += number
        if cell.slot is None or cell.slot >= SLOTS:
            return
        self.requests[cell.slot] += number
        if cell.took is None:
            self.failed[cell.slot] += number
            return
        slots = self.took.get(cell.took)
        if slots is None:
            slots = self.took[cell.took] = _zeros()
        slots[cell.slot] += number

    def follow(self, gained: Mapping[Cell, int], split: Split | None) -> None:
        """Looks whether new requests went where the split sends them, if it was in effect all the time."""
        same, self.split = split is not None and split == self.split, split
        if not same or split is None:
            self.routed = Routed()
            return
        canary, border = canary_slots(split.weight, self.salt)
        requests = astray = 0
        for cell, number in gained.items():
            if cell.slot is not None and cell.slot != border:
                requests += number
                astray += number if (cell.slot in canary) != (cell.revision == split.canary) else 0
        # What went astray long ago is forgotten, so that an alarm ends when its cause does.
        kept = 0.5 if self.routed.requests > FORGETTING else 1.0
        self.routed = Routed(
            round(self.routed.requests * kept) + requests, round(self.routed.astray * kept) + astray
        )

    def totals(self) -> Slots:
        """What was counted so far."""
        took = {index: packed(slots) for index, slots in self.took.items()}
        return Slots(tuple(self.requests), tuple(self.failed), took)


class SlotLedger:
    """Sums up slots over arms and gateways, in memory: an operator that starts anew counts anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[Cohort, _Entry] = {}

    def take(
        self,
        cohort: Cohort,
        salt: str,
        weight: int,
        counts: Mapping[str, Cells],
        split: Split | None = None,
    ) -> SlotTotals:
        """Totals after what each process that could be read has counted by now.

        ``salt``: names the rollout; another one counts from nought. ``weight``: the canary's
        percentage now. A process that is read for the first time brings nothing yet, because nobody
        knows when it counted; so ``counts`` has one that has counted nothing too. ``split``: if every
        gateway is known to serve it.
        """
        entry = self._entries.get(cohort)
        if entry is None or entry.salt != salt:
            entry = self._entries[cohort] = _Entry(salt)
        new: dict[Cell, int] = {}
        for process, cells in counts.items():
            before = entry.known.get(process, cells)
            for cell, number in cells.items():
                gained = number - before.get(cell, 0)
                if gained:
                    # A counter that fell was reset, and counts from nought.
                    new[cell] = new.get(cell, 0) + (gained if gained > 0 else number)
            entry.known[process] = cells
        for cell, number in new.items():
            if not entry.forgives(cell, self._clock()):
                entry.add(cell, number)
        entry.follow(new, split)
        totals = entry.totals()
        entry.had_clients |= weight > 0
        if not entry.had_clients:
            entry.past = totals
        arms = {revision: tuple(row) for revision, row in entry.arms.items()}
        return SlotTotals(entry.counter, totals, entry.past, arms)

    def misrouted(self, cohort: Cohort) -> str:
        """What is wrong with where requests of a cohort go; empty when nothing is."""
        entry = self._entries.get(cohort)
        return entry.routed.told() if entry is not None and entry.routed.alarming else ""

    def keep(self, cohorts: Iterable[Cohort]) -> None:
        """Forgets all but these cohorts."""
        wanted = set(cohorts)
        for cohort in [known for known in self._entries if known not in wanted]:
            del self._entries[cohort]
