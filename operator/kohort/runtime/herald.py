"""Tells of decisions and events: to Kubernetes, to a sink of CloudEvents, to the log and the metrics.

Decisions are read from the status that was persisted, so that none is told that was not taken, and none
is forgotten with the operator that took it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from kohort.act.cloudevents import decision_event, plain_event
from kohort.act.events import Recorder
from kohort.act.sink import Sink
from kohort.analysis.timestamps import from_time
from kohort.api.status import CohortStatus, Decision
from kohort.plan.outcome import Event
from kohort.route.table import ModelKey
from kohort.runtime.metrics import Metrics
from kohort.runtime.models import Model

log = logging.getLogger(__name__)

# Its predecessor may have died with these untold.
TOLD_AGAIN = timedelta(minutes=15)


class Herald:
    """Of one term of leadership."""

    def __init__(self, recorder: Recorder, sink: Sink | None, metrics: Metrics) -> None:
        self._recorder = recorder
        self._sink = sink
        self._metrics = metrics
        self._seen: dict[ModelKey, tuple[str, tuple[CohortStatus, ...]]] = {}

    def see(self, model: Model) -> None:
        """Tells of decisions that are new in a model's status.

        Of a model that is met for the first time, recent ones are sent again to the sink: their ids
        tell receivers that know them already.
        """
        known, cohorts = self._seen.get(model.key), model.status.cohorts
        if known and known[1] is cohorts:
            return
        self._seen[model.key] = (model.uid, cohorts)
        if known is None or known[0] != model.uid:
            since = datetime.now(UTC) - TOLD_AGAIN
            for cohort, decision in _added((), cohorts):
                if from_time(decision.at) > since:
                    self._send(model, cohort, decision)
            return
        for cohort, decision in _added(known[1], cohorts):
            by = "person" if decision.by else "kohort"
            self._metrics.decisions.labels(decision.action, by).inc()
            self._send(model, cohort, decision)

    def forget(self, key: ModelKey) -> None:
        """Drops what is remembered of a model that is gone."""
        self._seen.pop(key, None)

    def tell(self, model: Model, events: Sequence[Event]) -> None:
        """Tells of what a pass did, which persisted ``model`` as it is."""
        for index, event in enumerate(events):
            log.info("%s: %s: %s", model.key, event.reason, event.message)
            self._metrics.events.labels(event.type.value, event.reason).inc()
            self._recorder.record(model.owner, event)
            if self._sink:
                at = datetime.now(UTC)
                self._sink.send(plain_event(model.owner, model.version, index, event, at))

    def _send(self, model: Model, cohort: CohortStatus, decision: Decision) -> None:
        if self._sink:
            self._sink.send(decision_event(model.owner, model.status, cohort, decision))


def _added(
    before: Sequence[CohortStatus], after: Sequence[CohortStatus]
) -> Iterator[tuple[CohortStatus, Decision]]:
    """Decisions that were not there before, oldest first."""
    old = {cohort.name: cohort.decisions for cohort in before}
    for cohort in after:
        for decision in reversed(cohort.decisions):
            if decision not in old.get(cohort.name, ()):
                yield cohort, decision
