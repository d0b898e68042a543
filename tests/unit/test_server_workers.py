"""How many processes serve a model, and what several have counted together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort_server.batch.calibration import Curve
from kohort_server.batch.statistics import Statistics
from kohort_server.engine.cpu import affordable_processes
from kohort_server.front.metrics import Counts, ServerMetrics, together
from kohort_server.workers import useful_workers


def curve(milliseconds: float) -> Curve:
    """Of a model that gains nothing from batches."""
    seconds = milliseconds / 1000
    return Curve({1: seconds}, max_rows=1, inline=seconds < 0.001)


@pytest.mark.parametrize(
    ("cpus", "threads", "alone", "processes"),
    [
        (1, 0.02, 0.02, 1),
        (4, 0.02, 0.02, 4),  # as good as free: receiving is what takes time
        (4, 0.2, 0.25, 4),  # threads gain little
        (4, 0.2, 0.8, 1),  # threads gain as much as processes would
        (4, 0.5, 1.8, 1),  # alone it would hold up the loop
    ],
)
def test_processes_are_for_models_that_threads_do_not_make_faster(
    cpus: int, threads: float, alone: float, processes: int
) -> None:
    assert useful_workers(cpus, curve(threads), curve(alone)) == processes


@pytest.mark.parametrize(("limit", "affordable"), [("1", 1), ("max", 1000), (str(1 << 50), 1000)])
def test_memory_bounds_the_processes(tmp_path: Path, limit: str, affordable: int) -> None:
    (tmp_path / "memory.max").write_text(limit)
    assert min(affordable_processes(tmp_path), 1000) == affordable


answers = st.lists(
    st.tuples(st.sampled_from([b"", b"a", b"b"]), st.sampled_from([200, 503]), st.integers(1, 9))
)


def counted(told: list[tuple[bytes, int, int]]) -> Counts:
    """What a process counts that gives these answers, each from a batch of so many rows."""
    metrics = ServerMetrics()
    statistics = Statistics()
    for cohort, code, rows in told:
        metrics.observe(cohort, code, 0.0)
        statistics.ran(rows, 1, 0.5, 0.25)
    counts = metrics.counts()
    counts.statistics = statistics
    return counts


@given(st.lists(answers, min_size=1, max_size=4))
def test_processes_together_have_counted_what_one_would_have(
    parts: list[list[tuple[bytes, int, int]]],
) -> None:
    both = together([counted(part) for part in parts])
    alone = counted([answer for part in parts for answer in part])
    assert both.statistics == alone.statistics
    for seen in (both, alone):
        assert all(sum(one.native.values()) == sum(one.buckets) for one in seen.series)
    assert {(one.cohort, one.code): one.buckets for one in both.series} == {
        (one.cohort, one.code): one.buckets for one in alone.series
    }
