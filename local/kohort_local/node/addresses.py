"""Pod addresses: loopback ones, each given to one pod at a time."""

from __future__ import annotations


class Addresses:
    """The addresses PREFIX.1 to PREFIX.254, the one longest unused given first."""

    def __init__(self, prefix: str) -> None:
        # A client that still knows the address of a pod that is gone must not meet another pod.
        self._free = [f"{prefix}.{last}" for last in range(1, 255)]

    def take(self, wanted: str | None = None) -> str:
        """An address for a new pod: `wanted` if it is free.

        Raises:
            RuntimeError: all are taken.
        """
        if not self._free:
            raise RuntimeError("no pod address is free on this node; delete some pods")
        return self._free.pop(self._free.index(wanted) if wanted in self._free else 0)

    def release(self, address: str) -> None:
        """The pod with this address is gone."""
        self._free.append(address)
