"""The weights that cohorts had, as far as somebody looked: status keeps only the present ones."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from kohort.api.status import CohortStatus
from kohort.view.rollout import Facts
from kohort.view.words import clean, parse_time

MOST_POINTS = 200
"""Of a cohort; then the oldest go."""


class Point(Struct, frozen=True, rename="camel"):
    """From ``at`` on (seconds since 1970), ``weight`` per cent of the clients had ``canary``."""

    at: float
    stable: str
    canary: str
    weight: int


class Line(Struct, frozen=True):
    """Points, oldest first. ``recorded``: status told when the first one began, nobody had to see it."""

    points: tuple[Point, ...] = ()
    recorded: bool = False

    def after(self, cohort: CohortStatus, labels: dict[str, str], now: datetime) -> Line:
        """With what a status says; the same line when that is nothing new."""
        point = Point(
            now.timestamp(),
            labels.get(cohort.stable, clean(cohort.stable)),
            labels.get(cohort.canary, clean(cohort.canary)),
            cohort.weight if cohort.canary else 0,
        )
        if not self.points:
            began = parse_time(cohort.step_started_at) if cohort.canary else None
            if began is None or began > now:
                return Line((point,))
            return Line((_at(point, began.timestamp()),), recorded=True)
        last = self.points[-1]
        if _at(last, point.at) == point:
            return self
        kept = self.points[-(MOST_POINTS - 1) :]
        return Line((*kept, point), self.recorded and len(kept) == len(self.points))


class Seen:
    """The lines of all models."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], dict[str, Line]] = {}

    def take(self, facts: Facts, now: datetime) -> None:
        """Takes in what a model's status says at ``now``."""
        labels = {revision.name: f"v{revision.number}" for revision in facts.status.revisions}
        known = self._lines.get((facts.namespace, facts.name), {})
        self._lines[facts.namespace, facts.name] = {
            cohort.name: known.get(cohort.name, Line()).after(cohort, labels, now)
            for cohort in facts.status.cohorts
        }

    def forget(self, namespace: str, name: str) -> None:
        """A model is gone."""
        self._lines.pop((namespace, name), None)

    def keep(self, names: Iterable[tuple[str, str]]) -> None:
        """Forgets all models but these."""
        for gone in self._lines.keys() - set(names):
            del self._lines[gone]

    def of(self, namespace: str, name: str) -> dict[str, Line]:
        """A model's lines by cohort."""
        return self._lines.get((namespace, name), {})


def _at(point: Point, at: float) -> Point:
    return Point(at, point.stable, point.canary, point.weight)
