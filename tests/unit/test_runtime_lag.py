"""Descriptions may wait for each other; what is intended for clients never waits."""

from __future__ import annotations

from msgspec import structs

from kohort.api.status import CohortPhase, CohortStatus, RevisionStatus, Status
from kohort.plan.outcome import Event, EventType, Outcome
from kohort.runtime.lag import may_lag

SERVING = Status(
    observed_generation=1,
    desired="burger-1",
    cohorts=(CohortStatus(name="everyone", stable="burger-1", phase=CohortPhase.STABLE),),
    revisions=(
        RevisionStatus(name="burger-1", number=1, uri="u", created_at="2026-01-01T00:00:00Z"),
    ),
)


def test_a_message_may_wait() -> None:
    assert may_lag(SERVING, Outcome(structs.replace(SERVING, message="0 of 2 pods are ready")))


def test_ready_pods_are_only_counted() -> None:
    (revision,) = SERVING.revisions
    seen = structs.replace(revision, ready_replicas=2)
    assert may_lag(SERVING, Outcome(structs.replace(SERVING, revisions=(seen,), replicas=2)))


def test_a_weight_never_waits() -> None:
    (cohort,) = SERVING.cohorts
    moved = structs.replace(cohort, canary="burger-2", weight=5)
    assert not may_lag(SERVING, Outcome(structs.replace(SERVING, cohorts=(moved,))))


def test_another_wish_never_waits_while_clients_are_served() -> None:
    assert not may_lag(SERVING, Outcome(structs.replace(SERVING, desired="burger-2")))


def test_what_an_event_tells_never_waits() -> None:
    event = Event(EventType.NORMAL, "Said", "something")
    status = structs.replace(SERVING, message="something")
    assert not may_lag(SERVING, Outcome(status, events=(event,)))


def test_the_first_status_of_a_model_may_wait_until_something_can_serve() -> None:
    waiting = structs.replace(SERVING, cohorts=(CohortStatus(name="everyone"),))
    assert may_lag(Status(), Outcome(waiting))
    assert not may_lag(Status(), Outcome(SERVING))
