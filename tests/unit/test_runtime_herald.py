"""Decisions are told once by each leader, from what stands in status, with ids that tell them apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import structs

from kohort.act.cloudevents import CloudEvent
from kohort.act.events import Recorder
from kohort.act.sink import Sink
from kohort.analysis.timestamps import to_time
from kohort.api.status import CohortStatus, Decision, RevisionStatus, Status
from kohort.plan.outcome import Event, EventType
from kohort.route.table import ModelKey
from kohort.runtime.herald import TOLD_AGAIN, Herald
from kohort.runtime.metrics import Metrics
from kohort.runtime.models import Model

KEY = ModelKey("shop", "burger")


class KeptRecorder(Recorder):
    """Keeps what it is to record."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def record(self, owner: object, event: Event) -> None:
        self.reasons.append(event.reason)


class KeptSink(Sink):
    """Keeps what it is to send."""

    def __init__(self) -> None:
        self.sent: list[CloudEvent] = []

    def send(self, event: CloudEvent) -> None:
        self.sent.append(event)


class World:
    """One leader's herald, and a model whose everyone-cohort has decisions."""

    def __init__(self) -> None:
        self.sink, self.recorder, self.metrics = KeptSink(), KeptRecorder(), Metrics()
        self.herald = Herald(self.recorder, self.sink, self.metrics)

    def see(self, *decisions: Decision, uid: str = "u1") -> list[str]:
        """What is sent when these stand in status, newest first."""
        before = len(self.sink.sent)
        self.herald.see(model(*decisions, uid=uid))
        return [event.id for event in self.sink.sent[before:]]

    def counted(self) -> str:
        text = self.metrics.text().decode()
        return "\n".join(
            line for line in text.splitlines() if line.startswith("kohort_operator_decisions_total")
        )


def model(*decisions: Decision, uid: str = "u1") -> Model:
    status = Status(
        cohorts=(CohortStatus(name="everyone", stable="burger-1", decisions=decisions),),
        revisions=(
            RevisionStatus(
                name="burger-1", number=1, uri="file:///m.onnx", created_at=decision(1).at
            ),
        ),
    )
    return Model(KEY, uid, 1, 7, False, None, status)


def decision(minutes_ago: float, action: str = "Promoted", by: str = "") -> Decision:
    at = to_time(NOW - timedelta(minutes=minutes_ago))
    return Decision(action=action, revision="burger-1", at=at, message="as asked", by=by)


NOW = datetime.now(UTC)
OLD, RECENT, NEW = decision(60), decision(2, "RolledBack"), decision(0, "Held", by="ann")


def test_a_new_decision_is_sent_once() -> None:
    world = World()
    assert world.see() == []
    (first,) = world.see(OLD)
    assert world.see(OLD) == []
    (second,) = world.see(NEW, OLD)
    assert first != second
    assert world.sink.sent[-1].type == "dev.kohort.decision.held"
    assert world.sink.sent[-1].data.by == "ann"


def test_the_next_leader_sends_recent_decisions_again_under_the_same_ids() -> None:
    assert timedelta(minutes=2) < TOLD_AGAIN < timedelta(minutes=60)
    one, other = World(), World()
    one.see()
    sent = one.see(RECENT, OLD)
    assert other.see(RECENT, OLD) == sent[-1:]


def test_decisions_are_counted_by_action_and_by_who_decided() -> None:
    world = World()
    world.see(OLD)  # of a former leader
    world.see(NEW, RECENT, OLD)
    assert 'action="Held",by="person"} 1.0' in world.counted()
    assert 'action="RolledBack",by="kohort"} 1.0' in world.counted()
    assert "Promoted" not in world.counted()


def test_a_model_that_is_made_anew_under_its_name_tells_of_its_own_decisions() -> None:
    world = World()
    world.see()
    world.see(RECENT)
    (again,) = world.see(RECENT, uid="u2")
    assert again.startswith("u2/")


def test_events_of_a_pass_have_ids_of_the_status_that_it_wrote() -> None:
    world = World()
    events = [Event(EventType.NORMAL, reason, "so it is") for reason in ("Begun", "WeightChanged")]
    world.herald.tell(model(), events)
    assert [event.id for event in world.sink.sent] == ["u1/7/0", "u1/7/1"]
    assert world.recorder.reasons == ["Begun", "WeightChanged"]
    world.herald.tell(structs.replace(model(), version=8), events[:1])
    assert world.sink.sent[-1].id == "u1/8/0"
