"""Whether requests are answered by the revision that their client belongs to: an alarm for faults of
routes, not of models.

Which slots are the canary's is no matter of chance, so that a request of a slot that the other revision
answers is one too many. A few are forgiven: those that were on their way while routes changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

TOLERATED, SUSPECTED = 0.01, 0.2
"""The share astray that is forgiven, and the one that is bet on against it."""

ALARM = 1e-6
"""The chance of a false alarm, however long it is watched."""


@dataclass(frozen=True)
class Routed:
    """Requests of slots that are wholly one arm's, and those of them that the other arm answered."""

    requests: int = 0
    astray: int = 0

    @property
    def alarming(self) -> bool:
        """Whether more are astray than can be forgiven: a likelihood ratio, which is a fair bet."""
        well = self.requests - self.astray
        capital = self.astray * math.log(SUSPECTED / TOLERATED)
        capital += well * math.log((1 - SUSPECTED) / (1 - TOLERATED))
        return capital >= math.log(1 / ALARM)

    def told(self) -> str:
        """What is wrong, for people."""
        return (
            f"{self.astray:,} of {self.requests:,} requests were answered by the other revision than the "
            "one that their client belongs to: see whether the canary's pods are ready, and whether "
            "every gateway serves the newest routes"
        )
