"""Plain HTTP over HTTP/2: a stream becomes the same exchange that HTTP/1.1 makes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from kohort_server.front import frames
from kohort_server.front.exchange import HEADER_LENGTH, JSON, Exchange, read_length
from kohort_server.front.hpack import Headers, encode_fields
from kohort_server.front.outbox import INFINITE

if TYPE_CHECKING:
    from kohort_server.front.http2 import Http2Connection
    from kohort_server.front.port import Front


class HttpStream:
    """A request that is being received, and the connection of its exchange."""

    def __init__(self, connection: Http2Connection, number: int, headers: Headers) -> None:
        self.number = number
        self.window = connection.initial_window
        self.consumed = 0
        self.front: Front = connection.front
        limits = self.front.limits
        self.deadline = asyncio.get_running_loop().time() + limits.request
        self._connection = connection
        self._exchange = StreamExchange(self)
        self._exchange.method = headers.get(b":method", b"")
        self._exchange.path = headers.get(b":path", b"")
        self._exchange.headers = headers
        self._pieces = bytearray()
        self._body: memoryview | None = None
        self._filled = 0
        self._held = 0
        self._over = False  # answered, though perhaps before all of it has come

    def begin(self) -> None:
        """Make room for an announced body."""
        headers = self._exchange.headers
        size = read_length(headers.get(b"content-length", b""))
        if size is not None and self._admit(size):
            tensors = read_length(headers.get(HEADER_LENGTH, b"")) or 0
            self._body = self.front.buffers.take(size, min(tensors, size))

    def _admit(self, size: int) -> bool:
        front = self.front
        if self._held + size > front.limits.body:
            self._refuse(413, f"the body exceeds {front.limits.body} bytes")
        elif front.body_bytes + size > front.limits.bodies:
            self._refuse(503, "too many large requests at once; retry later", 1)
        else:
            front.body_bytes += size
            self._held += size
            self.deadline += size / front.limits.rate
            return True
        return False

    def receive(self, data: bytes | memoryview) -> None:
        """See `Stream`."""
        if self._over:
            return
        if self._body is None:
            if self._admit(len(data)):
                self._pieces += data
        elif self._filled + len(data) <= len(self._body):
            self._body[self._filled : self._filled + len(data)] = data
            self._filled += len(data)
        else:
            self._refuse(400, "the body is longer than announced")

    def buffer(self) -> memoryview | None:
        """See `Stream`."""
        return None if self._body is None else self._body[self._filled :] or None

    def filled(self, size: int) -> None:
        """See `Stream`."""
        self._filled += size

    def end(self) -> None:
        """See `Stream`."""
        self.deadline = INFINITE
        if self._over:
            return
        if self._body is not None and self._filled < len(self._body):
            self._refuse(400, "the body is shorter than announced")
            return
        exchange = self._exchange
        exchange.body = bytes(self._pieces) if self._body is None else self._body
        exchange.received = time.perf_counter()
        self._pieces = bytearray()
        self._body = None
        self.front.unanswered += 1
        exchange.complete = True
        self.front.handle(exchange)

    def _refuse(self, status: int, message: str, retry_after: int | None = None) -> None:
        self._exchange.respond_error(status, message, retry_after)

    def answered(self, exchange: Exchange) -> None:
        """Nothing: the exchange has sent its answer."""

    def send(self, status: int, body: bytes, fields: Headers) -> None:
        """Answer the client, once."""
        if self._over:
            return
        self._over = True
        self._release()
        block = encode_fields({b":status": b"%d" % status, **fields})
        flags = frames.END_HEADERS | (0 if body else frames.END_STREAM)
        head = frames.frame(frames.HEADERS, flags, self.number, block)
        after = frames.frame(frames.DATA, frames.END_STREAM, self.number) if body else b""
        self._connection.send(self, [head], [body] if body else [], after, last=True)

    def _release(self) -> None:
        exchange = self._exchange
        self.front.body_bytes -= self._held
        self._held = 0
        if exchange.complete:
            self.front.unanswered -= 1
            exchange.complete = False
        exchange.body = b""
        exchange.on_abandoned = None
        self._body = None

    def abandon(self) -> None:
        """See `Stream`."""
        if self._exchange.on_abandoned is not None:
            self._exchange.on_abandoned()
        self._release()

    def expire(self) -> None:
        """See `Stream`."""
        self._refuse(408, "the request did not arrive in time; check the client's network")


class StreamExchange(Exchange):
    """An exchange whose answer goes out in HTTP/2's form."""

    __slots__ = ("complete", "stream")

    def __init__(self, stream: HttpStream) -> None:
        super().__init__(stream)
        self.stream = stream
        self.complete = False

    def respond(
        self, status: int, body: bytes, content_type: bytes = JSON, extra: bytes = b""
    ) -> None:
        """See `Exchange`."""
        fields = {b"content-type": content_type, b"content-length": b"%d" % len(body)}
        for line in extra.splitlines():
            name, _, value = line.partition(b": ")
            fields[name.lower()] = value
        self.stream.send(status, b"" if self.method == b"HEAD" else body, fields)
