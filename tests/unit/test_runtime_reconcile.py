"""What is said of a spec that cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from kohort.api.status import CohortStatus, Condition, Phase, Status
from kohort.runtime.models import convert_model
from kohort.runtime.reconcile import invalid_status


def status(**cohort: object) -> Status:
    return Status(
        desired="burger-2",
        cohorts=(
            msgspec.convert({"name": "everyone", "stable": "burger-1", **cohort}, CohortStatus),
        ),
    )


def test_a_spec_that_cannot_be_read_is_told_and_nothing_else_is_forgotten() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    kept = Condition(
        type="Available",
        status="True",
        reason="Serving",
        last_transition_time="2026-01-01T00:00:00Z",
        observed_generation=1,
    )
    known = msgspec.structs.replace(status(), conditions=(kept,))
    content = {
        "metadata": {"namespace": "shop", "name": "burger", "uid": "u", "generation": 2},
        "spec": {"model": {"uri": "file:///m.onnx"}, "newer": True},
        "status": msgspec.to_builtins(known),
    }
    told = invalid_status(convert_model(content), now)
    assert told.phase == Phase.DEGRADED
    assert told.cohorts == known.cohorts
    assert {c.type: c.status for c in told.conditions} == {
        "Ready": "False",
        "Stalled": "True",
        "Available": "True",
    }
    again = convert_model({**content, "status": msgspec.to_builtins(told)})
    assert invalid_status(again, datetime(2026, 1, 3, tzinfo=UTC)) == told
