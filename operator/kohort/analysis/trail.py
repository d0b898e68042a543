"""How evidence has grown: a short line that stays short, for people to look at."""

from __future__ import annotations

from msgspec import Struct

LONGEST = 40
"""Points that are kept; then every second one goes, and from then on half as many come."""

BORDER = 100
"""The point at which a bet has won."""


class Trail(Struct, frozen=True, array_like=True):
    """Log capital in percent of its border, oldest first; ``stride``: readings from point to point."""

    stride: int = 1
    waited: int = 0
    points: tuple[int, ...] = ()

    def after(self, log_capital: float, border: float) -> Trail:
        """With another reading; ``border``: the log capital that is enough."""
        if self.waited + 1 < self.stride:
            return Trail(self.stride, self.waited + 1, self.points)
        point = min(BORDER, max(0, int(BORDER * log_capital / border)))
        points = (*self.points, point)
        if len(points) <= LONGEST:
            return Trail(self.stride, 0, points)
        # The newest is not among them: the next one comes half a stride after it.
        return Trail(2 * self.stride, self.stride, points[1::2])
