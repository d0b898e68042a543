"""What comes in on an HTTP/2 connection: its DATA frames, whole or in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kohort_server.front import frames
from kohort_server.front.frames import Http2Error
from kohort_server.front.outbox import INFINITE, Stream

if TYPE_CHECKING:
    from kohort_server.front.http2 import Http2Connection

WINDOW = 1 << 30  # bytes that a client may send ahead, on a connection or a stream


class Intake:
    """The receiving side of one connection."""

    def __init__(self, connection: Http2Connection) -> None:
        self._connection = connection
        self.unfinished = False  # a DATA frame has begun
        self.direct: memoryview | None = None  # where the kernel is to write its next bytes
        # Of that frame: bytes left, padding after them, its stream.
        self._left = 0
        self._padding = 0
        self._stream: Stream | None = None
        self._ends = False
        self._consumed = 0  # bytes received since the client was last told

    def stream_of(self, number: int, length: int) -> Stream | None:
        """The stream of a DATA frame, None where it is over; what is received is allowed again."""
        connection = self._connection
        stream = connection.streams.get(number)
        if stream is None:
            if number > connection.newest or not number & 1:
                raise Http2Error(frames.PROTOCOL_ERROR, "DATA on a stream that is not open")
        elif stream.deadline == INFINITE:
            raise Http2Error(frames.STREAM_CLOSED, "DATA after the end of a stream")
        else:
            stream.consumed += length
            if stream.consumed > WINDOW // 2:
                connection.write(frames.window_update(number, stream.consumed))
                stream.consumed = 0
        self._consumed += length
        if self._consumed > WINDOW // 2:
            connection.write(frames.window_update(0, self._consumed))
            self._consumed = 0
        return stream

    def begin(self, data: bytes, start: int, length: int, flags: int, number: int) -> int:
        """Begin a DATA frame that is not whole, or padded; where its data begins."""
        self._padding = 0
        self._stream = self.stream_of(number, length)
        self._ends = bool(flags & frames.END_STREAM)
        if flags & frames.PADDED:
            self._padding = data[start]
            length -= 1
            start += 1
        self._left = length - self._padding
        if self._left < 0:
            raise Http2Error(frames.PROTOCOL_ERROR, "more padding than frame")
        self.unfinished = True
        if not self._left and not self._padding:
            self._frame_received()
        return start

    def go_on(self, data: bytes, at: int) -> int:
        """Go on with that DATA frame; where what is left of `data` begins."""
        taken = memoryview(data)[at : at + self._left]
        at += len(taken)
        self._left -= len(taken)
        if taken and self._stream is not None:
            self._stream.receive(taken)
        if not self._left:
            skipped = min(self._padding, len(data) - at)
            self._padding -= skipped
            at += skipped
            if not self._padding:
                self._frame_received()
        elif self._stream is not None:
            self._receive_directly(self._stream)
        return at

    def _receive_directly(self, stream: Stream) -> None:
        """Let the kernel write the rest of the frame where it is wanted, if that is worth it."""
        buffer = stream.buffer()
        self.direct = None if buffer is None else buffer[: self._left]

    def received_directly(self, size: int) -> None:
        """The kernel has written so many bytes there."""
        stream = self._stream
        self._left -= size
        self.direct = None
        if stream is None:
            return
        stream.filled(size)
        if self._left:
            self._receive_directly(stream)
        elif not self._padding:
            self._frame_received()

    def _frame_received(self) -> None:
        stream, self._stream = self._stream, None
        self.unfinished = False
        if stream is not None and self._ends:
            stream.end()

    def forget(self, stream: Stream) -> None:
        """Nothing is received on this stream any more."""
        if self._stream is stream:
            self._stream = self.direct = None
