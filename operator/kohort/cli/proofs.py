"""How much traffic a proof takes at the least: known before, for it depends on the spec alone."""

from __future__ import annotations

import math

from kohort.analysis.betting import PROOF_BETS, Batch, log_factor, log_mean
from kohort.analysis.reading import Count
from kohort.analysis.timestamps import from_time
from kohort.api.analysis import Analysis, MetricName
from kohort.api.quantity import share
from kohort.api.status import CohortStatus

MOST = 10**12


def least_requests(weight: int, analysis: Analysis) -> int:
    """Requests of both arms before which non-inferiority in failures cannot be proven, if none fails.

    Client slots have to bear it out, which may take more.

    ``weight``: the canary's percentage, from 1 to 99. ``MOST`` stands for that many and more.
    """
    margins = [m.allowed for m in analysis.metrics if m.name == MetricName.ERRORS]
    goal = math.log(1 / share(analysis.false_promotion))

    def proven(requests: int) -> bool:
        canary = requests * weight // 100
        batch = Batch(Count(canary, 0), Count(requests - canary, 0))
        return all(
            log_mean(tuple(log_factor(batch, bet, margin) for bet in PROOF_BETS)) >= goal
            for margin in margins
        )

    enough = 1
    while not proven(enough) and enough < MOST:
        enough *= 2
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        enough, too_few = (middle, too_few) if proven(middle) else (enough, middle)
    return enough


def traffic(cohort: CohortStatus) -> float:
    """Requests a second that a cohort's newest analysis saw; 0 when there was none."""
    for evidence in cohort.evidence:
        # Not what is mirrored, and not what somebody else counts.
        of_gateways = evidence.metric in (MetricName.ERRORS, MetricName.LATENCY)
        if of_gateways and evidence.since and evidence.updated:
            elapsed = (from_time(evidence.updated) - from_time(evidence.since)).total_seconds()
            if elapsed > 0:
                return (evidence.canary.requests + evidence.stable.requests) / elapsed
    return 0.0
