"""Memory that lists needed and that the C library would keep for ever."""

from __future__ import annotations

import ctypes

# mallopt(3)
_M_ARENA_MAX = -8


def share_one_heap() -> None:
    """Has all threads share a heap, where the C library can: call it before there is a thread.

    Each heap would keep what its thread needed at its peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Returns free memory to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
