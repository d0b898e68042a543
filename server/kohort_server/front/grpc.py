"""gRPC on a stream of HTTP/2: messages in and out, statuses, deadlines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from kohort_server.errors import RequestError, shorten
from kohort_server.front import frames
from kohort_server.front.compression import decompress
from kohort_server.front.hpack import Headers, encode_fields
from kohort_server.front.outbox import INFINITE, LASTING
from kohort_server.rpc.protobuf import Message

if TYPE_CHECKING:
    from kohort_server.front.http2 import Http2Connection
    from kohort_server.front.port import Front

PREFIX = Struct(">BI")  # before every message: whether it is compressed, its length
OK = 0
CANCELLED = 1
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
# What an HTTP status of an error is in gRPC, and unknown ones.
STATUSES = {
    400: INVALID_ARGUMENT,
    404: NOT_FOUND,
    413: RESOURCE_EXHAUSTED,
    415: UNIMPLEMENTED,
    500: INTERNAL,
    501: UNIMPLEMENTED,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
UNKNOWN = 2

TIMEOUT_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
SMALL_MESSAGE = 4096  # bytes; smaller ones that come in pieces need no slot

# The first five bytes of a frame whose stream follows, and its payload.
CONTENT_TYPE = {b"content-type": b"application/grpc"}
HEAD_BLOCK = b"\x88" + encode_fields(CONTENT_TYPE)
HEAD = frames.frame(frames.HEADERS, frames.END_HEADERS, 0, HEAD_BLOCK)[:5]
DONE_BLOCK = encode_fields({b"grpc-status": b"0"})
DONE = frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0, DONE_BLOCK)[:5]


class Method(msgspec.Struct, frozen=True):
    """What is done with each message of a method.

    `handle` answers with `reply` (unary), or `push` (streams). A method whose client streams is
    over when the client has ended and every message is `answered`. One that is `lasting` goes on
    until the client leaves; nobody waits for it.
    """

    handle: Callable[[GrpcStream, Message], None]
    client_streams: bool = False
    lasting: bool = False


class GrpcStream:
    """One call."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_filled",
        "_held",
        "_message",
        "_method",
        "_opened",
        "_prefix",
        "calls",
        "consumed",
        "context",
        "deadline",
        "ended",
        "expires",
        "front",
        "headers",
        "number",
        "on_abandoned",
        "over",
        "received",
        "window",
    )

    def __init__(self, connection: Http2Connection, number: int, headers: Headers) -> None:
        self.number = number
        self.window = connection.initial_window
        self.consumed = 0
        self.front: Front = connection.front
        self.headers = headers
        self.received = time.perf_counter()
        self.expires = INFINITE  # time.perf_counter when the client stops waiting
        self.deadline = 0.0
        self.calls = 0  # messages that are not answered yet
        self.ended = False  # the client sends no more
        self.over = False
        self.on_abandoned: Callable[[], None] | None = None
        self.context: Any = None  # what the method's handler keeps between messages
        self._connection = connection
        self._method: Method | None = None
        self._message: Message | None = None  # of a unary call, until the client ends
        self._prefix = b""
        self._buffer: memoryview | None = None
        self._filled = 0
        self._held = 0  # bytes that count in the front's body_bytes
        self._opened = False

    def begin(self) -> None:
        """Look at the headers."""
        headers = self.headers
        self.deadline = asyncio.get_running_loop().time() + self.front.limits.request
        if b"grpc-timeout" in headers:
            timeout = read_timeout(headers[b"grpc-timeout"])
            if timeout is None:
                self.finish(INVALID_ARGUMENT, "grpc-timeout is not a number and a unit")
                return
            self.expires = self.received + timeout
        self._method = self.front.methods.get(headers.get(b":path", b""))
        if self._method is None:
            path = headers.get(b":path", b"").decode("latin-1")
            self.finish(UNIMPLEMENTED, f"{path} is not a method of this server")
        elif self._method.client_streams:
            self.deadline = LASTING

    # Messages in.

    def receive(self, data: bytes | memoryview) -> None:
        """See `Stream`."""
        if self._buffer is None and not self._prefix and len(data) >= PREFIX.size:
            compressed, size = PREFIX.unpack_from(data)
            if size == len(data) - PREFIX.size and self._admit(size):
                self._complete(compressed, data[PREFIX.size :])
                return
        self._reassemble(data)

    def _reassemble(self, data: bytes | memoryview) -> None:
        """Messages do not keep to frames."""
        at = 0
        while at < len(data) and not self.over:
            if self._buffer is None:
                start = bytes(data[at : at + PREFIX.size - len(self._prefix)])
                self._prefix += start
                at += len(start)
                if len(self._prefix) == PREFIX.size:
                    self._begin_message(PREFIX.unpack(self._prefix)[1])
            else:
                piece = data[at : at + len(self._buffer) - self._filled]
                self._buffer[self._filled : self._filled + len(piece)] = piece
                at += len(piece)
                self.filled(len(piece))

    def _begin_message(self, size: int) -> None:
        if not self._admit(size):
            return
        # The last tensor ends where the message does: so that one is aligned.
        small = size < SMALL_MESSAGE
        self._buffer = memoryview(bytearray(size)) if small else self.front.buffers.take(size, size)
        self._filled = 0
        self.filled(0)

    def _admit(self, size: int) -> bool:
        """Hold `size` bytes more, or refuse them."""
        front = self.front
        if size > front.limits.body:
            self.finish(RESOURCE_EXHAUSTED, f"the message exceeds {front.limits.body} bytes")
        elif front.body_bytes + size > front.limits.bodies:
            self.finish(UNAVAILABLE, "too many large requests at once; retry later", 1)
        else:
            front.body_bytes += size
            self._held += size
            if self.deadline != LASTING:
                self.deadline += size / front.limits.rate
            return True
        return False

    def buffer(self) -> memoryview | None:
        """See `Stream`."""
        if self._buffer is None or len(self._buffer) < SMALL_MESSAGE:
            return None
        return self._buffer[self._filled :]

    def filled(self, size: int) -> None:
        """See `Stream`."""
        self._filled += size
        buffer = self._buffer
        if buffer is not None and self._filled == len(buffer):
            compressed = self._prefix[0]
            self._prefix = b""
            self._buffer = None
            self._complete(compressed, buffer)

    def _complete(self, compressed: int, message: Message) -> None:
        """A whole message is here."""
        if compressed:
            encoding = self.headers.get(b"grpc-encoding", b"identity")
            try:
                message = decompress(encoding, message, self.front.limits.body)
            except RequestError as error:
                self.finish(STATUSES.get(error.status, UNKNOWN), error.message)
                return
        method = self._method
        if method is not None and method.client_streams:
            self._handle(method, message)
        elif self._message is not None:
            self.finish(INTERNAL, "more than one message for a method that takes one")
        else:
            self._message = message

    def end(self) -> None:
        """See `Stream`."""
        self.deadline = INFINITE
        self.ended = True
        method, message = self._method, self._message
        if method is None or self.over:
            return
        if self._prefix or (message is None and not method.client_streams):
            self.finish(INTERNAL, "the call has no message, or not all of it")
        elif message is None:
            self._finish_when_done()
        else:
            self._message = None
            self._handle(method, message)

    def _handle(self, method: Method, message: Message) -> None:
        self.received = time.perf_counter()
        if not method.lasting:
            self.calls += 1
            self.front.unanswered += 1
        method.handle(self, message)

    # Messages out.

    def reply(self, pieces: list[bytes]) -> None:
        """Answer a unary call with a message."""
        if self.over:
            return
        self._close()
        size = 0
        for piece in pieces:
            size += len(piece)
        number = self.number.to_bytes(4, "big")
        self._connection.send(
            self,
            [HEAD, number, HEAD_BLOCK],
            [PREFIX.pack(0, size), *pieces],
            b"".join((DONE, number, DONE_BLOCK)),
            True,
        )

    def push(self, pieces: list[bytes]) -> None:
        """Send a message on a stream that goes on."""
        if self.over:
            return
        size = sum(map(len, pieces))
        self._connection.send(self, [self._head()], [PREFIX.pack(0, size), *pieces], b"", False)

    def answered(self) -> None:
        """One of the client's messages has its answer: on a stream it may have been the last."""
        if self.over:
            return
        self.calls -= 1
        self.front.unanswered -= 1
        if not self.calls:
            self.front.body_bytes -= self._held
            self._held = 0
        self._finish_when_done()

    def _finish_when_done(self) -> None:
        if self.ended and not self.calls:
            self.finish(OK)

    def _head(self) -> bytes:
        if self._opened:
            return b""
        self._opened = True
        return frames.frame(frames.HEADERS, frames.END_HEADERS, self.number, HEAD_BLOCK)

    def finish(self, status: int, message: str = "", retry_after: int | None = None) -> None:
        """End the call with a status; `retry_after` is in seconds."""
        if self.over:
            return
        self._close()
        trailers = {} if self._opened or status == OK else dict(CONTENT_TYPE)
        trailers[b"grpc-status"] = b"%d" % status
        if message:
            told = quote(shorten(message), safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}")
            trailers[b"grpc-message"] = told.encode()
        if retry_after is not None:
            trailers[b"grpc-retry-pushback-ms"] = b"%d" % (retry_after * 1000)
        block = encode_fields(trailers)
        if not self._opened and status != OK:
            block = b"\x88" + block
        flags = frames.END_HEADERS | frames.END_STREAM
        trailing = frames.frame(frames.HEADERS, flags, self.number, block)
        before = [self._head()] if status == OK else []
        self._connection.send(self, before, [], trailing, True)

    def _close(self) -> None:
        """Let go of what is held: nothing more is received or answered."""
        self.over = True
        self.front.unanswered -= self.calls
        self.calls = 0
        self.front.body_bytes -= self._held
        self._held = 0
        self._message = self._buffer = None
        self.on_abandoned = None

    def abandon(self) -> None:
        """See `Stream`."""
        if self.over:
            return
        if self.on_abandoned is not None:
            self.on_abandoned()
        self._close()

    def expire(self) -> None:
        """See `Stream`."""
        self.finish(DEADLINE_EXCEEDED, "the request did not arrive in time")


def read_timeout(value: bytes) -> float | None:
    """Seconds from a grpc-timeout header, None for a malformed one."""
    unit = TIMEOUT_UNITS.get(value[-1:])
    if unit is None or not value[:-1].isdigit() or len(value) > 9:
        return None
    return int(value[:-1]) * unit
