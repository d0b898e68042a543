"""What goes out on an HTTP/2 connection: as much at a time as the client's windows allow."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

from kohort_server.front import frames

LASTING = 1e18  # the deadline of streams that take as long as their clients like
INFINITE = float("inf")  # that of requests which are complete


class Stream(Protocol):
    """One request and its answer, as the connection sees them."""

    number: int
    deadline: float  # by which it must have arrived; infinite once it has
    window: int  # bytes that may still be sent on it
    consumed: int  # bytes received since the client was last told

    def receive(self, data: bytes | memoryview) -> None:
        """Take a part of the body."""

    def buffer(self) -> memoryview | None:
        """Where the next part of the body can be written instead, if it is large."""

    def filled(self, size: int) -> None:
        """So many bytes were written there."""

    def end(self) -> None:
        """The request is complete."""

    def abandon(self) -> None:
        """The client has given up, or gone."""

    def expire(self) -> None:
        """The request has not arrived in time."""


class Outgoing:
    """Data that waits for the client's permission, and the frames that follow it."""

    __slots__ = ("after", "data", "last", "stream")

    def __init__(self, stream: Stream, data: memoryview, after: bytes, last: bool) -> None:
        self.stream = stream
        self.data = data
        self.after = after
        self.last = last


class Outbox:
    """The sending side of one connection."""

    def __init__(self) -> None:
        self.window = frames.DEFAULT_WINDOW  # bytes that may be sent on the connection
        self.frame_size = frames.DEFAULT_FRAME_SIZE
        self.waiting: deque[Outgoing] = deque()
        self._blocked: set[int] = set()  # the streams of what waits
        self._progress = 0.0  # time.monotonic when something that waited was last sent

    def send(
        self,
        transport: asyncio.Transport,
        stream: Stream,
        before: list[bytes],
        data: list[bytes],
        after: bytes,
        last: bool,
    ) -> bool:
        """Send frames, DATA, and frames; whether all of it has gone. What has not will be pumped."""
        size = 0
        for piece in data:
            size += len(piece)
        if (
            size <= self.frame_size
            and size <= self.window
            and size <= stream.window
            and not self.waiting
        ):
            if size:
                self.window -= size
                stream.window -= size
                before.append(
                    frames.HEADER.pack(size >> 8, size & 0xFF, frames.DATA, 0, stream.number)
                )
                before += data
            before.append(after)
            transport.write(b"".join(before))
            return True
        transport.write(b"".join(before))
        out = Outgoing(stream, memoryview(b"".join(data)), after, last)
        if stream.number not in self._blocked:
            if not self.waiting:
                self._progress = time.monotonic()
            self._advance(transport, out)
            if not out.data:
                transport.write(after)
                return True
            self._blocked.add(stream.number)
        self.waiting.append(out)
        return False

    def pump(self, transport: asyncio.Transport) -> list[Stream]:
        """Send of what waits as much as is allowed, streams not waiting for each other.

        Returns the streams that came to their end.
        """
        ended: list[Stream] = []
        blocked: set[int] = set()
        waiting, self.waiting = self.waiting, deque()
        for out in waiting:
            stream = out.stream
            if stream.number not in blocked:
                self._advance(transport, out)
            if out.data or stream.number in blocked:
                blocked.add(stream.number)
                self.waiting.append(out)
                continue
            transport.write(out.after)
            if out.last:
                ended.append(stream)
        self._blocked = blocked
        return ended

    def _advance(self, transport: asyncio.Transport, out: Outgoing) -> None:
        stream = out.stream
        while out.data:
            size = min(len(out.data), self.frame_size, self.window, stream.window)
            if size <= 0:
                return
            transport.write(frames.frame(frames.DATA, 0, stream.number, bytes(out.data[:size])))
            out.data = out.data[size:]
            self.window -= size
            stream.window -= size
            self._progress = time.monotonic()

    def forget(self, stream: Stream) -> None:
        """Nothing is sent on this stream any more."""
        if self.waiting:
            self.waiting = deque(out for out in self.waiting if out.stream is not stream)
            self._blocked.discard(stream.number)

    def stuck(self, seconds: float, size: int) -> bool:
        """Whether the client has taken nothing for so long, or lets more than `size` bytes wait."""
        if not self.waiting:
            return False
        waits = sum(len(out.data) for out in self.waiting)
        return time.monotonic() - self._progress > seconds or waits > size
