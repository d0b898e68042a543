"""Memory that lists needed and that the C library would keep for ever."""

from __future__ import annotations

import ctypes


def give_back_memory() -> None:
    """Returns free memory to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
