"""What a server that is not ready tells of how far it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kohort.contract import Stage, Start
from kohort_server.building import Work
from kohort_server.progress import Progress


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_told_of_a_start_that_takes_no_time() -> None:
    progress = Progress()
    assert progress.told() == Start()
    progress.at(Stage.COMPILING, 0.5, "building")
    progress.done()
    assert progress.told() == Start()


def test_the_time_that_is_left_follows_from_the_pace_so_far() -> None:
    progress = Progress(clock := Clock())
    progress.at(Stage.COMPILING, 0.0, "building A")
    progress.at(Stage.COMPILING, 0.25, "building B")
    clock.now += 2
    assert progress.told().seconds_left is None  # too early to know a pace
    clock.now += 8
    told = progress.told()
    assert (told.stage, told.percent, told.detail) == ("Compiling", 25, "building B")
    assert told.seconds_left == 30.0


def test_a_download_is_told_in_bytes_also_where_nobody_says_how_many() -> None:
    progress = Progress(clock := Clock())
    progress.received(3 << 20, 12 << 20)
    told = progress.told()
    assert (told.stage, told.percent, told.detail) == ("Downloading", 25, "3 MiB of 12")
    clock.now += 3
    progress.received(6 << 20, 12 << 20)
    assert progress.told().detail == "6 MiB of 12, 2 MB/s"
    assert progress.told().seconds_left == 3
    progress.done()
    progress.received(3 << 20, None)
    assert (progress.told().percent, progress.told().detail) == (0, "3 MiB")


@given(shares=st.lists(st.floats(0, 1), min_size=1), waits=st.lists(st.floats(0, 1e4), min_size=1))
def test_progress_never_falls_within_a_stage_and_is_never_whole_before_the_end(
    shares: list[float], waits: list[float]
) -> None:
    progress = Progress(clock := Clock())
    before = 0
    for share, wait in zip(shares, waits, strict=False):
        progress.at(Stage.COMPILING, share)
        clock.now += wait
        told = progress.told()
        assert before <= told.percent < 100
        assert told.seconds_left is None or told.seconds_left >= 0
        before = told.percent


@given(steps=st.integers(1, 30), begun=st.integers(1, 40), within=st.floats(0, 1))
def test_steps_of_equal_size_make_up_a_stage(steps: int, begun: int, within: float) -> None:
    progress = Progress()
    work = Work(progress, steps)
    for number in range(begun):
        work.begins(f"step {number}")
    assert progress.told().percent == int(100 * (min(begun, steps) - 1) / steps)
    work.within(within, "still")
    assert progress.told().percent <= 99
