"""Whether both revisions fare worse than stable did before: then something else is wrong, and nobody is
blamed.

Bets on the canary compare it with stable at the same time, so that trouble that both have accuses nobody.
But it hides what the canary does, and a step must not end on what is seen in such a time.
"""

from __future__ import annotations

import math

from msgspec import Struct

from kohort.analysis.betting import HARM_BETS, Batch, log_mean, raised
from kohort.analysis.reading import Count

MEMORY = 0.9
"""What of the recent past is kept at every reading: about the last ten count."""

RATIO = 2.0
"""How many times as often as before each revision must fail."""

SURE = math.log(1000)
"""Log capital of a bet that both together fail more often than before."""

KNOWN = 200
"""Requests before the canary that say what is usual."""


class Recent(Struct, frozen=True, array_like=True):
    """Requests and failures of the last readings, faded by age; of before the canary, all of them."""

    canary: tuple[float, float] = (0.0, 0.0)
    stable: tuple[float, float] = (0.0, 0.0)
    before: tuple[int, int] = (0, 0)

    def after(self, batch: Batch) -> Recent:
        """With what another reading brought."""
        return Recent(
            _faded(self.canary, batch.canary), _faded(self.stable, batch.stable), self.before
        )

    @property
    def disturbed(self) -> bool:
        """Whether both revisions fail much more than stable did before the canary."""
        sent, failed = self.before
        if sent < KNOWN:
            return False
        usual = (failed + 0.5) / (sent + 1)
        if any(bad < RATIO * usual * n or not bad for n, bad in (self.canary, self.stable)):
            return False
        requests, bad = (
            math.floor(sum(both)) for both in zip(self.canary, self.stable, strict=True)
        )
        batch = Batch(Count(requests, bad), Count(sent, failed))
        return log_mean(raised((0.0,) * len(HARM_BETS), HARM_BETS, batch)) >= SURE

    def told(self) -> str:
        """What is seen, for people."""
        canary, stable, before = (
            bad / sent if sent else 0.0 for sent, bad in (self.canary, self.stable, self.before)
        )
        return (
            f"both revisions fail more than stable did before: {canary:.2g} and {stable:.2g} of their "
            f"requests of late, {before:.2g} then; held until that is over, and nobody is blamed"
        )


def _faded(known: tuple[float, float], new: Count) -> tuple[float, float]:
    return round(known[0] * MEMORY + new.requests, 1), round(known[1] * MEMORY + new.failed, 2)
