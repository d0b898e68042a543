"""Which share of a model's requests each cohort sends, out of the gateways' counters."""

from __future__ import annotations

from collections.abc import Mapping

from kohort.analysis.reading import Reading

ENOUGH = 1000
"""Requests of the whole model below which shares would be chance: 1% is told within a third of it."""

Requests = Mapping[str, Mapping[str, int]]
"""Requests by cohort, by the process that counts."""


def requests(readings: Mapping[str, Reading]) -> Requests:
    """All requests of each cohort, whichever revision answered."""
    return {
        cohort: {
            source: sum(count.requests for count in arms.values())
            for source, arms in reading.sources.items()
        }
        for cohort, reading in readings.items()
    }


def shares(before: Requests, after: Requests) -> dict[str, float]:
    """Each cohort's share of the requests between two looks; empty while they are not ENOUGH.

    A source that ``before`` does not know counts from its own beginning.
    """
    new = {
        cohort: sum(
            max(0, count - before.get(cohort, {}).get(source, 0))
            for source, count in sources.items()
        )
        for cohort, sources in after.items()
    }
    total = sum(new.values())
    return {cohort: count / total for cohort, count in new.items()} if total >= ENOUGH else {}
