"""Decisions and events as CloudEvents 1.0: ids are made of what happened, so that a second one is known."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

from kohort.act.manifests import Owner
from kohort.analysis.timestamps import to_time
from kohort.api.status import CohortStatus, Decision, Status, Tally
from kohort.contract import API_VERSION, PLURAL
from kohort.plan.context import revision_of
from kohort.plan.outcome import Event

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
DECISION, EVENT = "dev.kohort.decision", "dev.kohort.event"


class Evidence(Struct, rename="camel", omit_defaults=True):
    """What was seen of one metric when it was decided."""

    metric: str
    verdict: str
    message: str
    canary: Tally
    stable: Tally


class Data(Struct, rename="camel", omit_defaults=True):
    """What it is about. ``action`` is a decision's, ``reason`` and ``severity`` are an event's."""

    namespace: str
    name: str
    uid: str
    message: str
    action: str = ""
    cohort: str = ""
    revision: str = ""
    number: int = 0
    uri: str = ""
    by: str = ""
    why: str = ""
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
    severity: str = ""


class CloudEvent(Struct):
    """A CloudEvent in structured mode."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: Data
    specversion: str = "1.0"
    datacontenttype: str = field(default="application/json")


def _source(owner: Owner) -> str:
    return f"/apis/{API_VERSION}/namespaces/{owner.namespace}/{PLURAL}/{owner.name}"


def decision_event(
    owner: Owner, status: Status, cohort: CohortStatus, decision: Decision
) -> CloudEvent:
    """A decision as it stands in status; whoever reads it there again makes the same CloudEvent."""
    revision = revision_of(status, decision.revision)
    newest = cohort.decisions[0] == decision
    seen = cohort.evidence if newest and not cohort.canary else ()  # else of the next rollout
    return CloudEvent(
        id="/".join((owner.uid, cohort.name, decision.at, decision.action, decision.revision)),
        source=_source(owner),
        type=f"{DECISION}.{decision.action.lower()}",
        subject=cohort.name,
        time=decision.at,
        data=Data(
            namespace=owner.namespace,
            name=owner.name,
            uid=owner.uid,
            message=decision.message,
            action=decision.action,
            cohort=cohort.name,
            revision=decision.revision,
            number=revision.number if revision else 0,
            uri=revision.uri if revision else "",
            by=decision.by,
            why=decision.why,
            evidence=tuple(
                Evidence(e.metric, e.verdict.value, e.message, e.canary, e.stable) for e in seen
            ),
        ),
    )


def plain_event(owner: Owner, version: int, index: int, event: Event, at: datetime) -> CloudEvent:
    """An event of the pass that wrote resource version ``version``; ``index`` counts its events."""
    return CloudEvent(
        id=f"{owner.uid}/{version}/{index}",
        source=_source(owner),
        type=f"{EVENT}.{event.reason.lower()}",
        subject=owner.name,
        time=to_time(at),
        data=Data(
            namespace=owner.namespace,
            name=owner.name,
            uid=owner.uid,
            message=event.message,
            reason=event.reason,
            severity=event.type.value,
        ),
    )
