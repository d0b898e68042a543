"""What each slot has sent since a rollout began: gateways' counters made into totals that never fall."""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kohort.analysis.reading import Count, SlotTotals
from kohort.contract import SLOTS
from kohort.observe.gateways import Cohort, Slot, SlotCounts

Numbers = tuple[int, ...]


def _zeros() -> array[int]:
    return array("q", bytes(8 * SLOTS))


@dataclass
class _Entry:
    """One rollout of a cohort: totals, and what each process had counted when it was last read."""

    salt: str
    counter: str = field(default_factory=lambda: secrets.token_hex(8))
    requests: array[int] = field(default_factory=_zeros)
    failed: array[int] = field(default_factory=_zeros)
    known: dict[str, tuple[array[int], array[int]]] = field(default_factory=dict)
    past: tuple[Numbers, Numbers] | tuple[None, None] = (None, None)
    had_clients: bool = False


class SlotLedger:
    """Sums up slots over arms and gateways, in memory: an operator that starts anew counts anew."""

    def __init__(self) -> None:
        self._entries: dict[Cohort, _Entry] = {}

    def take(
        self, cohort: Cohort, salt: str, weight: int, counts: Mapping[str, SlotCounts]
    ) -> SlotTotals:
        """Totals after what each process that could be read has counted by now.

        ``salt``: names the rollout; another one counts from nought. ``weight``: the canary's
        percentage now. A process that is read for the first time brings nothing yet, because nobody
        knows when it counted; so ``counts`` has one that has counted nothing too.
        """
        entry = self._entries.get(cohort)
        if entry is None or entry.salt != salt:
            entry = self._entries[cohort] = _Entry(salt)
        for process, slots in counts.items():
            now = _both_arms(slots)
            before = entry.known.get(process, now)
            for total, then, later in zip((entry.requests, entry.failed), before, now, strict=True):
                for slot in range(SLOTS):
                    gained = later[slot] - then[slot]
                    # A counter that fell was reset, and counts from nought.
                    total[slot] += gained if gained >= 0 else later[slot]
            entry.known[process] = now
        totals = tuple(entry.requests), tuple(entry.failed)
        entry.had_clients |= weight > 0
        if not entry.had_clients:
            entry.past = totals
        return SlotTotals(entry.counter, *totals, *entry.past)

    def keep(self, cohorts: Iterable[Cohort]) -> None:
        """Forgets all but these cohorts."""
        wanted = set(cohorts)
        for cohort in [known for known in self._entries if known not in wanted]:
            del self._entries[cohort]


def _both_arms(slots: Mapping[Slot, Count]) -> tuple[array[int], array[int]]:
    requests, failed = _zeros(), _zeros()
    for slot, count in slots.items():
        if slot.number is not None and slot.number < SLOTS:
            requests[slot.number] += count.requests
            failed[slot.number] += count.failed
    return requests, failed
