"""Descriptions may wait for each other; what is intended for clients never waits."""

from __future__ import annotations

import asyncio

from msgspec import structs

from kohort.api.status import CohortPhase, CohortStatus, RevisionStatus, Status
from kohort.plan.outcome import Event, EventType, Outcome
from kohort.route.table import ModelKey
from kohort.runtime.lag import LONGEST_SECONDS, SHORTEST_SECONDS, Lag, lag_seconds, may_lag

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


def test_descriptions_wait_longer_the_more_of_them_there_are_but_not_for_ever() -> None:
    lags = [lag_seconds(waiting) for waiting in (1, 10, 200, 1000, 100_000)]
    assert lags == sorted(lags)
    assert lags[0] == SHORTEST_SECONDS
    assert lags[-1] == LONGEST_SECONDS


async def test_what_waits_is_written_once_nothing_new_comes() -> None:
    """Of a thousand models each would wait two minutes by itself."""
    woken: dict[ModelKey, float] = {}
    over = asyncio.Event()

    def wake(key: ModelKey, seconds: float) -> None:
        woken[key] = seconds
        if list(woken.values()) == [0.0] * len(keys):
            over.set()

    keys = [ModelKey("shop", f"m{number}") for number in range(1000)]
    lag = Lag(wake)
    assert all(lag.wait(key) for key in keys)
    assert woken[keys[-1]] > 60
    async with asyncio.timeout(30):
        await over.wait()
    assert not any(lag.wait(key) for key in keys)


async def test_a_status_that_was_written_waits_anew() -> None:
    lag = Lag(lambda key, seconds: None)
    key = ModelKey("shop", "burger")
    assert lag.wait(key)
    lag.end(key)
    assert lag.wait(key)
