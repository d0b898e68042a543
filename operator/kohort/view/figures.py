"""What a metric has counted, on one line."""

from __future__ import annotations

from typing import NamedTuple

from kohort.api.analysis import MetricName
from kohort.api.status import Evidence
from kohort.view.words import share


class Counted(NamedTuple):
    """``11/402``, ``9/3,611 failed`` and ``2.7% vs 0.25%``; empty while nothing was counted."""

    canary: str = ""
    stable: str = ""
    shares: str = ""


def counted(evidence: Evidence) -> Counted:
    """What both arms have counted."""
    canary, stable = evidence.canary, evidence.stable
    if not canary.requests and not stable.requests:
        return Counted()
    kind = "failed" if evidence.metric in set(MetricName) else "bad"
    kind = kind if evidence.slow_from is None else f"from {evidence.slow_from:,} ms"
    both = canary.requests > 0 and stable.requests > 0
    shares = " vs ".join(share(arm.failed, arm.requests) for arm in (canary, stable))
    return Counted(
        f"{canary.failed:,}/{canary.requests:,}",
        f"{stable.failed:,}/{stable.requests:,} {kind}",
        shares if both else "",
    )
