"""How long a container that keeps exiting waits before it starts again."""

from __future__ import annotations

from dataclasses import dataclass

_FIRST_SECONDS = 1.0
_STEADY_SECONDS = 60.0


@dataclass(frozen=True)
class BackOff:
    """Doubles with every exit up to `cap`; a container that ran for a minute starts afresh."""

    cap: float  # seconds
    exits: int = 0

    @property
    def seconds(self) -> float:
        """The pause after the latest exit."""
        if self.exits == 0:
            return 0.0
        # 2**30 s is beyond any cap, and the power must not overflow.
        return min(self.cap, _FIRST_SECONDS * 2.0 ** min(self.exits - 1, 30))

    def after_exit(self, ran: float) -> BackOff:
        """After another exit of a container that ran for `ran` seconds."""
        return BackOff(self.cap, 1 if ran >= _STEADY_SECONDS else self.exits + 1)
