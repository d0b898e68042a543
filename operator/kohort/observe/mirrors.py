"""Read what the gateways counted of mirrored requests."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import aiohttp

from kohort.analysis.mirroring import DIFFERENT
from kohort.contract import METRIC_MIRRORED, MIRROR, MIRROR_COUNTERS_PATH, Outcome
from kohort.observe.counters import Cell, Cohort, arm
from kohort.observe.gateways import GatewayAddress, Page, Scrape, scrape

_LINE = re.compile(rf"^{METRIC_MIRRORED}\{{(.*)\}} ([0-9]+)$".encode(), re.MULTILINE)
_LABEL = re.compile(rb'([a-z_]+)="([^"]*)"')


def parse(text: bytes) -> dict[Cohort, dict[Cell, int]]:
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
            found[cohort, stable[1].revision, canary[1].revision][labels["outcome"]] += int(value)
    counts: dict[Cohort, dict[Cell, int]] = {}
    for (cohort, stable_name, canary_name), outcomes in found.items():
        pairs = outcomes.total()
        cells = counts.setdefault(cohort, {})
        for revision, requests, bad in (
            (stable_name, pairs, outcomes[Outcome.STABLE_FAILED]),
            (canary_name, pairs, outcomes[Outcome.CANARY_FAILED]),
            (DIFFERENT, outcomes[Outcome.DIFFERENT], 0),
        ):
            for took, number in ((0, requests - bad), (None, bad)):
                cell = Cell(revision, None, took)
                cells[cell] = cells.get(cell, 0) + number
    return counts


PAGE = Page(MIRROR_COUNTERS_PATH, "mirrored requests", parse)


async def scrape_mirrors(
    session: aiohttp.ClientSession, gateways: Iterable[GatewayAddress]
) -> Scrape:
    """Read the outcomes of mirrored requests of all gateways at once."""
    return await scrape(session, gateways, PAGE)
