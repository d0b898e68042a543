"""CloudEvents are what docs/notifications.md shows."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kohort.act.cloudevents import decision_event
from kohort.act.manifests import Owner
from kohort.api.status import (
    CohortStatus,
    Decision,
    Evidence,
    RevisionStatus,
    Status,
    Tally,
    Verdict,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "notifications.md"
AT = "2026-01-31T12:00:00.000Z"
SEEN = "20 of 41 requests failed, of stable's 0 of 160"
DECISION = Decision(action="RolledBack", revision="burger-2", at=AT, message=SEEN)
OWNER = Owner("shop", "burger", "6f0c")


def status(canary: str = "") -> Status:
    """A cohort that has gone back, and maybe tries something else since."""
    seen = Evidence(
        verdict=Verdict.FAIL,
        message=SEEN,
        canary=Tally(requests=41, failed=20),
        stable=Tally(requests=160),
    )
    revision = RevisionStatus(
        name="burger-2", number=2, uri="file:///models/burger-2.onnx", created_at=AT
    )
    cohort = CohortStatus(name="batchers", canary=canary, evidence=(seen,), decisions=(DECISION,))
    return Status(cohorts=(cohort,), revisions=(revision,))


def test_a_decision_is_sent_as_the_document_shows() -> None:
    _, _, rest = DOCUMENT.read_text().partition("```json\n")
    shown = msgspec.json.decode(rest.partition("```")[0])
    known = status()
    made = decision_event(OWNER, known, known.cohorts[0], DECISION)
    assert msgspec.json.decode(msgspec.json.encode(made)) == shown


def test_evidence_of_the_next_rollout_is_not_told_with_an_older_decision() -> None:
    known = status(canary="burger-3")
    assert not decision_event(OWNER, known, known.cohorts[0], DECISION).data.evidence
