"""Keeps the process small: nothing stays because it was needed once."""

from __future__ import annotations

import ctypes
import gc

# mallopt(3)
_M_ARENA_MAX = -8


def share_one_heap() -> None:
    """Has all threads share a heap, where the C library can: call it before there is a thread.

    Each heap would keep what its thread needed at its peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def set_modules_apart() -> None:
    """Takes all that is there out of garbage collection: call it once everything is imported.

    Python only looks for old garbage when there is a quarter more of old objects than before, of
    which modules are by far the most.
    """
    gc.collect()
    gc.freeze()


def give_back_memory() -> None:
    """Returns free memory to the system, where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
