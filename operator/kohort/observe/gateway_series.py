"""What gateways counted, as the Prometheus that scrapes them tells it."""

from __future__ import annotations

import math
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kohort.analysis.reading import Arms, Count
from kohort.contract import LABEL_ARM, LABEL_CODE, LABEL_COHORT, METRIC_REQUESTS, METRIC_UPTIME
from kohort.observe.counter_queries import IN_THE_FUTURE
from kohort.observe.counters import Cell, Cells, Cohort, series_of
from kohort.observe.gateways import GatewayAddress, Scrape
from kohort.observe.prometheus import Answer, Point, PrometheusError, Question, cut
from kohort.route.table import ModelKey

_OWN = frozenset({"__name__", LABEL_ARM, LABEL_COHORT, LABEL_CODE})
Target = tuple[tuple[str, str], ...]
"""Labels of what Prometheus scrapes."""


class Heard(NamedTuple):
    """When a gateway was scraped (Unix time), and for how many seconds it had run; 0 if not told."""

    at: float
    uptime: float


def question(key: ModelKey, gateways: Iterable[GatewayAddress]) -> Question:
    """A model's counters at all gateways, and when each gateway was scraped."""
    listed = tuple(gateways)
    names = {
        "pod": "|".join(re.escape(gateway.name) for gateway in listed),
        "instance": "|".join(re.escape(_instance(gateway)) for gateway in listed),
    }
    alive = [f"{METRIC_UPTIME}{{{name}=~{_text(those)}}}" for name, those in names.items()]
    arms = f"{re.escape(key.namespace)}/{re.escape(key.name)}/.+"
    return Question(
        " or ".join([f"{METRIC_REQUESTS}{{{LABEL_ARM}=~{_text(arms)}}}", *alive]),
        " or ".join(f"timestamp({each})" for each in alive),
    )


def _text(pattern: str) -> str:
    return '"' + pattern.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _instance(gateway: GatewayAddress) -> str:
    host = f"[{gateway.address}]" if ":" in gateway.address else gateway.address
    return f"{host}:{gateway.status_port}"


def scraped(
    answer: Answer | PrometheusError,
    gateways: Sequence[GatewayAddress],
    at: float,
    stale_after: float,
) -> tuple[Scrape, Mapping[str, Heard]]:
    """A look at all gateways, and when each was heard, by its name.

    A gateway that is not scraped, or not lately, or twice, is an error in the look. ``at`` of the look is
    the time of the oldest scrape. ``at``: Unix time of the answer; ``stale_after``: seconds.
    """
    if isinstance(answer, PrometheusError):
        return Scrape(at, errors=(str(answer),)), {}
    targets: dict[Target, str] = {}
    heard: dict[str, Heard] = {}
    errors: list[str] = []
    for gateway in gateways:
        theirs = [point for point in answer.times if _is(gateway, point)]
        taken = theirs[0].number if theirs else math.nan
        if not theirs:
            errors.append(
                f"{METRIC_UPTIME} of gateway {gateway.name} is not in Prometheus, by pod={gateway.name} or "
                f"instance={_instance(gateway)}: is it scraped?"
            )
        elif len(theirs) > 1:
            errors.append(
                f"{len(theirs)} series of gateway {gateway.name} where one was meant; they differ in "
                f"{_differing(theirs)}: scrape it once, and ask where replicas are made one"
            )
        elif not at - stale_after <= taken <= at + IN_THE_FUTURE:
            errors.append(f"stale: gateway {gateway.name} was scraped {at - taken:.0f} s ago")
        else:
            targets[_target(theirs[0])] = gateway.name
            heard[gateway.name] = Heard(taken, 0.0)
    counts: dict[Cohort, dict[str, dict[Cell, int]]] = {}
    for point in answer.values:
        name = targets.get(_target(point))
        if name and point.metric.get("__name__") == METRIC_UPTIME:
            heard[name] = Heard(heard[name].at, point.number)
            continue
        told = series_of(
            *(point.metric.get(label, "") for label in (LABEL_ARM, LABEL_COHORT, LABEL_CODE))
        )
        if name is None or told is None or not math.isfinite(point.number):
            continue
        cohort, cell = told
        cells = counts.setdefault(cohort, {}).setdefault(name, {})
        cells[cell] = cells.get(cell, 0) + int(point.number)
    oldest = min((each.at for each in heard.values()), default=at)
    return Scrape(oldest, counts, tuple(sorted(heard)), tuple(errors)), heard


def _target(point: Point) -> Target:
    return tuple(sorted(item for item in point.metric.items() if item[0] not in _OWN))


def _is(gateway: GatewayAddress, point: Point) -> bool:
    pod = point.metric.get("pod")
    if pod is not None:
        return pod == gateway.name
    return point.metric.get("instance") == _instance(gateway)


def _differing(points: Sequence[Point]) -> str:
    names = sorted({name for point in points for name in point.metric})
    differing = [n for n in names if len({point.metric.get(n) for point in points}) > 1]
    return cut(", ".join(differing), 80)


@dataclass
class _Entry:
    """One rollout of a cohort: what its arms have gained, and what each process told last."""

    salt: str
    source: str = field(default_factory=lambda: f"prometheus/{secrets.token_hex(8)}")
    complete: bool = False
    known: dict[str, Cells] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    arms: dict[str, list[int]] = field(default_factory=dict)


_NEVER = Heard(0.0, 0.0)


def _started_between(last: Heard, now: Heard) -> bool:
    """Whether a gateway has started since it was last heard: it has run for less than that time."""
    return now.uptime < last.uptime or (last.uptime >= 1 and now.uptime <= now.at - last.at)


class ArmLedger:
    """Sums up arms over gateways, series by series, in memory.

    Who scrapes gateways calls one start of a gateway like another. Where it has started since, or a series
    fell, they count from nought; their sum need not fall. An operator that starts anew counts on from what
    it reads first.
    """

    def __init__(self) -> None:
        self._entries: dict[Cohort, _Entry] = {}

    def take(
        self, cohort: Cohort, salt: str, scrape: Scrape, heard: Mapping[str, Heard]
    ) -> tuple[str, Arms, dict[str, Cells]]:
        """A source's name with what its arms have gained, and the cells of processes that were read anew,
        by their names and how many times they started.

        A process that is read for the first time brings nothing yet, unless all that there were are known:
        then it is new. One whose scrape is no newer than the last is passed over, for of two replicas of
        Prometheus one may lag.
        """
        entry = self._entries.get(cohort)
        if entry is None or entry.salt != salt:
            entry = self._entries[cohort] = _Entry(salt)
        found = scrape.counts.get(cohort, {})
        fresh: dict[str, Cells] = {}
        for process in scrape.processes:
            last, now = entry.heard.get(process, _NEVER), heard[process]
            if now.at <= last.at:
                continue
            cells = found.get(process, {})
            before = entry.known.get(process, {} if entry.complete else cells)
            if _started_between(last, now):
                before = {}
                entry.starts[process] += 1
            fresh[f"{process}/{entry.starts[process]}"] = cells
            for cell, number in cells.items():
                gained = number - before.get(cell, 0)
                # A counter that fell was reset, and counts from nought.
                gained = gained if gained >= 0 else number
                arm = entry.arms.setdefault(cell.revision, [0, 0])
                arm[0] += gained
                arm[1] += gained if cell.took is None else 0
            entry.known[process], entry.heard[process] = cells, now
        entry.complete |= not scrape.errors
        arms = {revision: Count(*count) for revision, count in entry.arms.items()}
        return entry.source, arms, fresh

    def keep(self, cohorts: Iterable[Cohort]) -> None:
        """Forgets all but these cohorts."""
        wanted = set(cohorts)
        for cohort in [known for known in self._entries if known not in wanted]:
            del self._entries[cohort]
