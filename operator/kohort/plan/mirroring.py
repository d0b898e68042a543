"""Which share of a cohort's requests both of its revisions answer once more, to be compared."""

from __future__ import annotations

from kohort.api.cohorts import Cohort
from kohort.api.status import CohortStatus


def mirrored_percent(spec: Cohort, cohort: CohortStatus) -> int:
    """Percentage of the cohort's requests that are mirrored in the step that it is on."""
    if not cohort.canary or cohort.weight or cohort.step >= len(spec.stages):
        return 0
    mirror = spec.stages[cohort.step].mirror
    return mirror.percent if mirror else 0
