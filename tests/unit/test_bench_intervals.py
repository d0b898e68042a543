"""Intervals and records of simulated runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.bench.intervals import exact_interval
from tests.bench.record import CHUNK, Record


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (0, 100, 0.0, 0.0362),
        (5, 100, 0.0164, 0.1128),
        (100, 100, 0.9638, 1.0),
        (1, 2, 0.0126, 0.9874),
    ],
)
def test_an_interval_is_that_of_clopper_and_pearson(
    hits: int, count: int, low: float, high: float
) -> None:
    assert exact_interval(hits, count) == pytest.approx((low, high), abs=1e-4)


def test_a_simulation_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    simulated: list[int] = []

    def measure(numbers: range) -> Iterable[tuple[float, ...]]:
        simulated.extend(numbers)
        return [(float(number), -1.0) for number in numbers]

    first = Record(tmp_path).rows("table", "a cell, 10 %", measure, 1)
    assert len(first) == CHUNK
    rows = Record(tmp_path).rows("table", "a cell, 10 %", measure, CHUNK + 1)
    assert simulated == list(range(2 * CHUNK))
    assert rows[:, 0].tolist() == simulated
