"""How far a start is: written by the thread that loads, read by the one that answers."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from kohort.contract import Stage, Start

# Before this much is known of the pace, it says nothing about the rest.
SHORTEST_PACE = 3.0  # seconds
SMALLEST_SHARE = 0.05


class Step(msgspec.Struct, frozen=True):
    """Where a stage is, as it was at one moment."""

    stage: Stage
    since: float  # when the stage began
    share: float  # of it that is done, in [0, 1]
    detail: str


class Progress:
    """Takes what is being done and tells it; its one value is replaced whole."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step: Step | None = None

    def at(self, stage: Stage, share: float = 0.0, detail: str = "") -> None:
        """This share of a stage is done; within a stage it never falls."""
        known = self._step
        if known is None or known.stage != stage:
            self._step = Step(stage, self._clock(), share, detail)
        else:
            self._step = Step(stage, known.since, max(known.share, share), detail)

    def received(self, size: int, announced: int | None) -> None:
        """So many bytes of the model have come, of how many if that is known."""
        detail = f"{size >> 20:,} MiB" + (f" of {announced >> 20:,}" if announced else "")
        known = self._step
        if known is not None and known.stage == Stage.DOWNLOADING:
            spent = self._clock() - known.since
            # What was there before the stage began is no part of the pace, but most start with nothing.
            if spent >= SHORTEST_PACE:
                detail += f", {size / spent / 1e6:,.0f} MB/s"
        self.at(Stage.DOWNLOADING, size / announced if announced else 0.0, detail)

    def done(self) -> None:
        """Nothing that takes long is left."""
        self._step = None

    def told(self) -> Start:
        """What a person may be told now."""
        step = self._step
        if step is None:
            return Start()
        share = min(step.share, 0.99)  # what is not over is not told as if it were
        spent = self._clock() - step.since
        paced = spent >= SHORTEST_PACE and share >= SMALLEST_SHARE
        return Start(
            stage=step.stage,
            detail=step.detail,
            percent=int(share * 100),
            seconds_left=spent * (1 - share) / share if paced else None,
        )
