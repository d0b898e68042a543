"""HTTP/2 on asyncio, without TLS and with prior knowledge: frames, flow control, streams.

What a stream is for (gRPC or plain HTTP) decides who reads it; here it is only a sequence of bytes
with headers before it and an answer after it. As with HTTP/1.1, a large body is received by the
kernel into its own buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from kohort_server.front import frames
from kohort_server.front.frames import Http2Error
from kohort_server.front.hpack import HeaderDecoder, HpackError
from kohort_server.front.intake import WINDOW, Intake
from kohort_server.front.outbox import INFINITE, LASTING, Outbox, Stream

if TYPE_CHECKING:
    from kohort_server.front.port import Front

MAX_STREAMS = 1024  # of one connection at a time
MAX_PIECES = 64  # frames of one block of headers
MAX_CONTROL = 10_000  # of one connection per second: frames that carry no request, by their cost
RESET_COST = 4
SETTINGS = frames.settings(
    {
        frames.HEADER_TABLE_SIZE: 0,
        frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        frames.INITIAL_WINDOW_SIZE: WINDOW,
        frames.MAX_FRAME_SIZE: frames.LARGEST_FRAME_SIZE,
        frames.MAX_HEADER_LIST_SIZE: 16 << 10,
    }
)
GREETING = SETTINGS + frames.window_update(0, WINDOW - frames.DEFAULT_WINDOW)


class Http2Connection(asyncio.BufferedProtocol):
    """One client's connection."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.deadline = 0.0  # looked at in every sweep
        self.opened_while_draining = False
        self.streams: dict[int, Stream] = {}
        self._loop = asyncio.get_running_loop()
        self._scratch = front.wide_scratch
        self._transport: asyncio.Transport | None = None
        self._decoder = HeaderDecoder()
        self._rest = b""  # of a frame that is not whole yet
        self._greeted = False
        self.newest = 0  # stream
        self._idle_since = self._loop.time()
        self._rest_since = self._idle_since
        self._intake = Intake(self)
        # A block of headers that goes on in CONTINUATION frames: stream, flags, pieces.
        self._block: tuple[int, int, list[bytes]] | None = None
        self.initial_window = frames.DEFAULT_WINDOW
        self.outbox = Outbox()
        self._control = 0
        self._leaving = False  # the client goes
        self._told_to_leave = False
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            frames.HEADERS: self._on_headers,
            frames.CONTINUATION: self._on_continuation,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PING: self._on_ping,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.GOAWAY: self._on_go_away,
            frames.PUSH_PROMISE: self._on_push_promise,
        }

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet; the client may already have sent its first requests."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(GREETING)

    def connection_lost(self, exc: Exception | None) -> None:
        self.front.connections.discard(self)
        self._transport = None
        self.outbox = Outbox()
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.abandon()
        self._intake = Intake(self)

    def eof_received(self) -> bool:
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        direct = self._intake.direct
        return self._scratch if direct is None else direct

    def buffer_updated(self, nbytes: int) -> None:
        if self._intake.direct is not None:
            self._intake.received_directly(nbytes)
            return
        self.feed(bytes(self._scratch[:nbytes]))

    def feed(self, data: bytes) -> None:
        """Take what has been received."""
        if self._rest:
            data = self._rest + data
        try:
            at = self._frames(data)
        except Http2Error as error:
            self._fail(error.code, str(error))
            return
        except HpackError as error:
            self._fail(frames.COMPRESSION_ERROR, str(error))
            return
        if not self._rest and at < len(data):
            self._rest_since = self._loop.time()
        self._rest = data[at:]

    def _frames(self, data: bytes) -> int:
        """Take all whole frames, and what there is of a DATA frame; where the rest begins."""
        at = 0
        end = len(data)
        if not self._greeted:
            if not data.startswith(frames.PREFACE[:end]):
                raise Http2Error(frames.PROTOCOL_ERROR, "the connection preface is wrong")
            if end < len(frames.PREFACE):
                return at
            self._greeted = True
            at = len(frames.PREFACE)
        unpack = frames.HEADER.unpack_from
        intake = self._intake
        while self._transport is not None:
            if intake.unfinished:
                at = intake.go_on(data, at)
                if at == end:
                    return at
            if end - at < frames.HEADER_SIZE:
                return at
            high, low, kind, flags, number = unpack(data, at)
            length = high << 8 | low
            start = at + frames.HEADER_SIZE
            stop = start + length
            if self._block is not None and kind != frames.CONTINUATION:
                raise Http2Error(frames.PROTOCOL_ERROR, "a block of headers is interrupted")
            if kind == frames.DATA:
                if stop > end or flags & frames.PADDED:
                    if flags & frames.PADDED and start >= end:
                        return at  # the next byte says how much is padding
                    at = intake.begin(data, start, length, flags, number)
                    continue
                stream = intake.stream_of(number, length)
                at = stop
                if stream is not None:
                    if length:
                        stream.receive(data[start:stop])
                    if flags & frames.END_STREAM:
                        stream.end()
                continue
            if stop > end:
                if length > self.front.limits.head:
                    raise Http2Error(frames.FRAME_SIZE_ERROR, "a frame is too large")
                return at
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(flags, number & 0x7FFFFFFF, data[start:stop])
            at = stop
        return end

    # Frames other than DATA.

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        start = 0
        stop = len(payload)
        if flags & frames.PADDED:
            start, stop = 1, stop - (payload[0] if payload else stop + 1)
        if flags & frames.HAS_PRIORITY:
            start += 5
        if start > stop or not number & 1:
            raise Http2Error(frames.PROTOCOL_ERROR, "HEADERS are malformed")
        block = payload[start:stop]
        if flags & frames.END_HEADERS:
            self._headers_complete(number, flags, block)
        else:
            self._block = (number, flags, [block])

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise Http2Error(frames.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        _, first_flags, pieces = self._block
        pieces.append(payload)
        if len(pieces) > MAX_PIECES or sum(map(len, pieces)) > self.front.limits.head:
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "the headers are too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._headers_complete(number, first_flags, b"".join(pieces))

    def _headers_complete(self, number: int, flags: int, block: bytes) -> None:
        headers = self._decoder.decode(block)
        stream = self.streams.get(number)
        if stream is None:
            if number <= self.newest:
                return  # trailers of a stream that was answered early
            self.newest = number
            if len(self.streams) >= MAX_STREAMS:
                self.write(frames.reset(number, frames.REFUSED_STREAM))
                return
            stream = self.front.open_stream(self, number, headers)
            if stream is None:
                return
        elif stream.deadline == INFINITE:
            raise Http2Error(frames.STREAM_CLOSED, "HEADERS after the end of a stream")
        elif not flags & frames.END_STREAM:
            raise Http2Error(frames.PROTOCOL_ERROR, "trailers do not end their stream")
        if flags & frames.END_STREAM:
            stream.end()

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        frames.word(payload)
        self._account_control(RESET_COST)
        stream = self.streams.pop(number, None)
        if stream is not None:
            self._forget(stream)
            stream.abandon()

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        self._account_control()
        if flags & frames.ACK:
            self._decoder.allowed = 0
            return
        for setting, value in frames.read_settings(payload):
            if setting == frames.INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW:
                    raise Http2Error(frames.FLOW_CONTROL_ERROR, "a window is too large")
                for stream in self.streams.values():
                    stream.window += value - self.initial_window
                self.initial_window = value
            elif setting == frames.MAX_FRAME_SIZE:
                if not frames.DEFAULT_FRAME_SIZE <= value <= frames.LARGEST_FRAME_SIZE:
                    raise Http2Error(frames.PROTOCOL_ERROR, "a frame size is not allowed")
                self.outbox.frame_size = value
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._pump()

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise Http2Error(frames.FRAME_SIZE_ERROR, "a PING has a wrong size")
        if not flags & frames.ACK:
            self._account_control()
            self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        more = frames.word(payload) & 0x7FFFFFFF
        if not number:
            self.outbox.window += more
            if not more or self.outbox.window > frames.LARGEST_WINDOW:
                raise Http2Error(frames.FLOW_CONTROL_ERROR, "a window is not allowed")
        elif (stream := self.streams.get(number)) is not None:
            stream.window += more
            if not more or stream.window > frames.LARGEST_WINDOW:
                raise Http2Error(frames.FLOW_CONTROL_ERROR, "a stream's window is not allowed")
        if self.outbox.waiting:
            self._pump()

    def _on_go_away(self, flags: int, number: int, payload: bytes) -> None:
        self._leaving = True
        self._close_when_done()

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise Http2Error(frames.PROTOCOL_ERROR, "a client pushes")

    def _account_control(self, cost: int = 1) -> None:
        self._control += cost
        if self._control > MAX_CONTROL:
            raise Http2Error(frames.ENHANCE_YOUR_CALM, "too many frames that carry no request")

    # Answers.

    def send(
        self, stream: Stream, before: list[bytes], data: list[bytes], after: bytes, last: bool
    ) -> None:
        """Send whole frames, DATA as windows allow, and whole frames; `last` ends the stream."""
        if self._transport is None or stream.number not in self.streams:
            return
        if self.outbox.send(self._transport, stream, before, data, after, last) and last:
            self._finished(stream)

    def _pump(self) -> None:
        if self._transport is not None:
            for stream in self.outbox.pump(self._transport):
                self._finished(stream)

    def _finished(self, stream: Stream) -> None:
        del self.streams[stream.number]
        if stream.deadline != INFINITE:  # answered before it had all come
            self.write(frames.reset(stream.number, frames.NO_ERROR))
            self._forget(stream)
        if self.front.draining and not self._told_to_leave:
            self.leave()  # one that came while the server drains is served once, as with HTTP/1.1
        if self._leaving:
            self._close_when_done()

    def _forget(self, stream: Stream) -> None:
        """Nothing is received or sent on this stream any more."""
        self._intake.forget(stream)
        self.outbox.forget(stream)

    def write(self, data: bytes) -> None:
        """Send frames that need no window."""
        if self._transport is not None:
            self._transport.write(data)

    def pause_writing(self) -> None:
        """The client does not read: neither is it read."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    # The end.

    @property
    def receiving(self) -> bool:
        """Whether a request has begun and is not complete."""
        return any(stream.deadline < LASTING for stream in self.streams.values())

    def expire(self) -> None:
        """Give up what is too slow; called every second."""
        self._control = 0
        now = self._loop.time()
        limits = self.front.limits
        for stream in [s for s in self.streams.values() if s.deadline < now]:
            stream.expire()
        if self._rest and now - self._rest_since > limits.request:
            self._fail(frames.ENHANCE_YOUR_CALM, "a frame did not arrive in time")
        elif self.outbox.stuck(limits.unread, limits.bodies):
            self._fail(frames.ENHANCE_YOUR_CALM, "the answers are not read")
        elif self.streams:
            self._idle_since = now
        elif now - self._idle_since > limits.idle:
            self.close()

    def leave(self) -> None:
        """Ask the client to go elsewhere with its next requests."""
        self._told_to_leave = True
        self.write(frames.go_away(frames.LARGEST_STREAM, frames.NO_ERROR, "draining"))

    def close(self) -> None:
        """Close after what has been written."""
        self._fail(frames.NO_ERROR, "closing")

    def _fail(self, code: int, message: str) -> None:
        transport = self._transport
        if transport is None:
            return
        transport.write(frames.go_away(self.newest, code, message))
        transport.close()
        self.connection_lost(None)

    def _close_when_done(self) -> None:
        if not self.streams and self._transport is not None:
            self._transport.close()
            self.connection_lost(None)
