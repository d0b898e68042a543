"""A connection without a network: bytes in by `feed`, bytes out in `written`."""

from __future__ import annotations

import asyncio
from typing import Any


class MemoryTransport(asyncio.Transport):
    """A transport that remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.written = bytearray()
        self.ended = False
        self.closed = False
        self._lost = False

    def connect(self, protocol: asyncio.BaseProtocol) -> MemoryTransport:
        """Begin a connection that this protocol serves."""
        self.protocol = protocol
        self.protocol.connection_made(self)
        return self

    def feed(self, data: bytes) -> None:
        """Give bytes to the protocol as an event loop does: none after it has closed."""
        while data and not self.closed:
            buffer = self.protocol.get_buffer(-1)
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            self.protocol.buffer_updated(count)
            data = data[count:]

    def lose(self) -> None:
        """The connection is no more."""
        self.closed = True
        if not self._lost:
            self._lost = True
            self.protocol.connection_lost(None)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        assert not self.ended, "an answer was written after the last one"
        if not self.closed:
            self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True
        asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass
