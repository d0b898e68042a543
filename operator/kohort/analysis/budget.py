"""How the chance of a false rollback is shared out: it is that of the whole rollout, its retries included."""

from __future__ import annotations

FIRST_ATTEMPT = 0.75
"""The first attempt's share: most revisions need no other, and evidence is costly where little is left."""


def attempt_share(attempt: int) -> float:
    """The share of the ``attempt``-th try (from 1) to roll out the same revision; all add up to 1."""
    if attempt <= 1:
        return FIRST_ATTEMPT
    return (1 - FIRST_ATTEMPT) / (attempt * (attempt - 1))


def check_share(checks: int, attempt: int) -> float:
    """What one of so many checks, of all cohorts and metrics, may spend in one attempt."""
    return attempt_share(attempt) / checks
