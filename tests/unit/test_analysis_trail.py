"""A trail stays short, and ends with what was seen last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.trail import BORDER, LONGEST, Trail


@given(st.lists(st.floats(-50, 50), max_size=400))
def test_a_trail_stays_short_and_within_its_borders(logs: list[float]) -> None:
    trail = Trail()
    for log in logs:
        trail = trail.after(log, 5.0)
    assert len(trail.points) <= LONGEST
    assert all(0 <= point <= BORDER for point in trail.points)
    if logs:
        assert trail.stride * len(trail.points) + trail.waited >= min(len(logs), LONGEST) / 2


@given(st.integers(1, 2000))
def test_points_stand_at_even_distances_and_none_is_older_than_it_says(readings: int) -> None:
    trail = Trail()
    for reading in range(1, readings + 1):
        trail = trail.after(float(reading), float(readings))
    last = readings - trail.waited
    expected = [
        int(BORDER * (last - k * trail.stride) / readings) for k in range(len(trail.points))
    ]
    assert list(trail.points) == expected[::-1]
