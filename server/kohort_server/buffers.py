"""Memory for large bodies, used again: fresh pages cost more than receiving into them.

A slot is free when nobody holds a view of it any more; the reference count tells. So a slot is never
given away while an engine still reads it, even when its client has long gone.
"""

from __future__ import annotations

from sys import getrefcount
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes
SMALLEST_SLOT = 1 << 16
KEPT = 128 << 20  # bytes of slots that are kept for later, of all sizes together


class Slot:
    """A piece of memory."""

    __slots__ = ("_address", "_idle_references", "memory", "used")

    def __init__(self, capacity: int) -> None:
        self.memory: Any = np.empty(capacity, np.uint8)
        self.used = True  # since the last look
        self._address = self.memory.ctypes.data
        self._idle_references = getrefcount(self.memory)

    def free(self) -> bool:
        """Whether nobody has a view of it."""
        return getrefcount(self.memory) == self._idle_references

    def view(self, size: int, aligned: int) -> memoryview:
        """`size` bytes of it, of which byte number `aligned` is aligned in memory."""
        self.used = True
        skip = -(self._address + aligned) % ALIGNMENT
        return memoryview(self.memory)[skip : skip + size]


class Buffers:
    """Slots in size classes of powers of two."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._slots: dict[int, list[Slot]] = {}
        self.held = 0  # bytes of all slots

    def take(self, size: int, aligned: int = 0) -> memoryview:
        """An uninitialised buffer whose byte number `aligned` is aligned; free when it is dropped."""
        capacity = max(SMALLEST_SLOT, 1 << (size + ALIGNMENT - 1).bit_length())
        slots = self._slots.setdefault(capacity, [])
        for slot in slots:
            if slot.free():
                return slot.view(size, aligned)
        slot = Slot(capacity)
        if self.held + capacity <= self._kept:
            self.held += capacity
            slots.append(slot)
        return slot.view(size, aligned)

    def trim(self) -> None:
        """Give back the slots that nobody has used since the last call."""
        for capacity, slots in self._slots.items():
            staying = [slot for slot in slots if slot.used or not slot.free()]
            self.held -= capacity * (len(slots) - len(staying))
            self._slots[capacity] = staying
            for slot in staying:
                slot.used = False
