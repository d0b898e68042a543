"""Memory that is used again: never while somebody still looks at it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kohort_server.buffers import ALIGNMENT, SMALLEST_SLOT, Buffers


def address(view: memoryview) -> int:
    """Where it lies."""
    return int(np.frombuffer(view, np.uint8).ctypes.data)


@given(st.integers(1, 300_000), st.data())
def test_a_buffer_has_its_size_and_is_aligned_where_it_is_wanted(
    size: int, data: st.DataObject
) -> None:
    aligned = data.draw(st.integers(0, size - 1))
    view = Buffers().take(size, aligned)
    assert len(view) == size
    assert (address(view) + aligned) % ALIGNMENT == 0


def test_a_slot_is_used_again_only_when_the_last_view_of_it_is_gone() -> None:
    buffers = Buffers()
    first = buffers.take(100_000)
    place = address(first)
    looking = np.frombuffer(first[10:], np.uint8)
    del first
    assert address(buffers.take(100_000)) != place
    del looking
    assert address(buffers.take(100_000)) == place


def test_no_more_than_the_limit_is_kept_and_what_is_unused_is_given_back() -> None:
    buffers = Buffers(kept=2 * SMALLEST_SLOT)
    views = [buffers.take(1000) for _ in range(10)]
    assert buffers.held == 2 * SMALLEST_SLOT
    buffers.trim()
    buffers.trim()
    assert buffers.held == 2 * SMALLEST_SLOT  # still looked at
    views.clear()
    buffers.trim()
    buffers.trim()
    assert buffers.held == 0
