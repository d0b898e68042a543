"""How far each metric of each cohort is from its two borders, and how it got there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from kohort.analysis import counts, latency, mirroring, score, sequential
from kohort.api.analysis import MetricName
from kohort.api.status import Evidence, Status


@dataclass(frozen=True)
class Line:
    """One kind of evidence: log capital in percent of its border, oldest first.

    ``readings``: of the counters from one point to the next.
    """

    kind: str
    points: tuple[int, ...]
    readings: int


@dataclass(frozen=True)
class Row:
    """One metric of one cohort."""

    cohort: str
    evidence: Evidence
    lines: tuple[Line, ...]

    def data(self) -> dict[str, Any]:
        """For programs."""
        facts = msgspec.to_builtins(self.evidence)
        return {
            "cohort": self.cohort,
            # Status leaves out what is as it mostly is.
            "metric": str(self.evidence.metric),
            "verdict": str(self.evidence.verdict),
            **{name: fact for name, fact in facts.items() if name not in ("state", "slots")},
            "borders": [
                {"kind": line.kind, "percent": line.points, "readings": line.readings}
                for line in self.lines
            ],
        }


def rows(status: Status, cohort: str = "") -> Iterator[Row]:
    """Each cohort's metrics; of a cohort that is not in a rollout, those of its last one."""
    for each in status.cohorts:
        if cohort in ("", each.name):
            for evidence in each.evidence:
                yield Row(each.name, evidence, tuple(_lines(evidence)))


def _lines(evidence: Evidence) -> Iterator[Line]:
    """What is drawn of a metric: nothing once a rollout is over, for then its state is not kept."""
    scores = score.decode(evidence.state)
    if evidence.metric == MetricName.LATENCY or scores:
        classes = scores or latency.decode(evidence.state)
        trails = [("harm", classes.harm_trail)] if classes else []
    else:
        counted = evidence.metric not in (MetricName.ERRORS, mirroring.METRIC)
        failures = (counts if counted else sequential).decode(evidence.state)
        trails = (
            [("harm", failures.harm_trail), ("proof", failures.proof_trail)] if failures else []
        )
    for kind, trail in trails:
        if kind == "harm" or trail.points:
            yield Line(kind, trail.points, trail.stride)
