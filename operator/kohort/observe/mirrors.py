"""Read what the gateways counted of mirrored requests."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import aiohttp

from kohort.analysis.mirroring import DIFFERENT
from kohort.analysis.reading import Count
from kohort.contract import METRIC_MIRRORED, MIRROR, MIRROR_COUNTERS_PATH, Outcome
from kohort.observe.gateways import Cohort, GatewayAddress, Page, Scrape, Slot, arm, scrape

_LINE = re.compile(rf"^{METRIC_MIRRORED}\{{(.*)\}} ([0-9]+)$".encode(), re.MULTILINE)
_LABEL = re.compile(rb'([a-z_]+)="([^"]*)"')


def parse(text: bytes) -> dict[Cohort, dict[Slot, Count]]:
    """Pairs by cohort, whose name ends in ``MIRROR``, and by revision.

    Both revisions have the same requests, and failed are those that failed there alone; those of
    ``DIFFERENT`` are pairs of answers that differ. What was dropped was not compared.
    """
    found: dict[tuple[Cohort, str, str], Counter[str]] = defaultdict(Counter)
    for line, value in _LINE.findall(text):
        labels = {name.decode(): told.decode() for name, told in _LABEL.findall(line)}
        stable, canary = arm(labels["stable"]), arm(labels["canary"])
        if stable and canary and labels["outcome"] != Outcome.DROPPED:
            cohort = stable[0], labels["cohort"] + MIRROR
            found[cohort, stable[1], canary[1]][labels["outcome"]] += int(value)
    counts: dict[Cohort, dict[Slot, Count]] = {}
    for (cohort, stable_name, canary_name), outcomes in found.items():
        pairs = outcomes.total()
        slots = counts.setdefault(cohort, {})
        for revision, count in (
            (stable_name, Count(pairs, outcomes[Outcome.STABLE_FAILED])),
            (canary_name, Count(pairs, outcomes[Outcome.CANARY_FAILED])),
            (DIFFERENT, Count(outcomes[Outcome.DIFFERENT], 0)),
        ):
            before = slots.get(Slot(revision, None), Count(0, 0))
            slots[Slot(revision, None)] = Count(
                before.requests + count.requests, before.failed + count.failed
            )
    return counts


PAGE = Page(MIRROR_COUNTERS_PATH, "mirrored requests", parse)


async def scrape_mirrors(
    session: aiohttp.ClientSession, gateways: Iterable[GatewayAddress]
) -> Scrape:
    """Read the outcomes of mirrored requests of all gateways at once."""
    return await scrape(session, gateways, PAGE)
