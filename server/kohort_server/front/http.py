"""HTTP/1.1 on asyncio: llhttp parses, large bodies are received straight into their own buffer.

A connection reads into one scratch buffer that all connections share (it is consumed before the
next read). A body that does not arrive with its head is received by the kernel directly into a
buffer of its size, which costs a tenth of collecting pieces.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from kohort_server.front.exchange import CONTINUE, HEADER_LENGTH, Exchange, read_length

if TYPE_CHECKING:
    from kohort_server.front.port import Front

CHUNK_OVERHEAD = 8  # bytes on the wire per byte of a chunked body, beyond which it is refused
MAX_PIPELINED = 64  # unanswered requests of one connection, beyond which it is not read
LINGER = 2.0  # seconds in which what a refused client still sends is discarded


class Refusal(Exception):
    """Stops the parser inside a callback."""


class HttpConnection(asyncio.BufferedProtocol):
    """One client's connection: requests in, answers out in the same order."""

    __slots__ = (
        "_body",
        "_body_size",
        "_choked",
        "_chunked",
        "_exchange",
        "_filled",
        "_headers",
        "_held",
        "_limits",
        "_lingering",
        "_loop",
        "_parser",
        "_paused",
        "_pending",
        "_piece",
        "_refusal",
        "_scratch",
        "_transport",
        "_url",
        "_wire_size",
        "deadline",
        "front",
        "on_header",
        "opened_while_draining",
        "receiving",
    )

    def __init__(self, front: Front) -> None:
        self.front = front
        self._scratch = front.scratch
        self._limits = front.limits
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        # The parser adds a header by calling this: a method in C, several times per request.
        self._headers: dict[bytes, bytes] = {}
        self.on_header = self._headers.__setitem__
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[Exchange] = deque()
        self._lingering = False
        self._refusal: tuple[int, str, int | None] | None = None
        self.receiving = False
        self.opened_while_draining = False
        self.deadline = 0.0
        self._exchange = Exchange(self)
        self._url = b""
        self._wire_size = 0  # bytes of this request that went through the parser
        self._body: memoryview | None = None  # where a large body goes
        self._filled = 0
        self._body_size: int | None = None  # announced; None without or with a chunked body
        self._piece = b""  # of an announced body: what came with the head
        self._chunked = bytearray()
        self._held = 0  # bytes of this request that count in the front's body_bytes
        self._paused = False  # not reading: too much is unanswered, or unread by the client
        self._choked = False  # the client does not read its answers

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.deadline = self._loop.time() + self._limits.idle

    def connection_lost(self, exc: Exception | None) -> None:
        self.front.connections.discard(self)
        self._abandon()
        self._transport = None

    def eof_received(self) -> bool:
        # Like most servers: a client that ends the connection does not wait for answers. What has
        # been written still reaches one that only ended its sending side.
        return False

    def _abandon(self) -> None:
        for exchange in self._pending:
            if exchange.on_abandoned is not None:
                exchange.on_abandoned()
            self._release(exchange)
        self._pending.clear()
        self._stop_receiving()

    def _stop_receiving(self) -> None:
        self.front.body_bytes -= self._held
        self._held = 0
        self._body = None
        self._piece = b""
        self._chunked = bytearray()
        self.receiving = False

    def _release(self, exchange: Exchange) -> None:
        self.front.body_bytes -= len(exchange.body)
        self.front.unanswered -= 1
        exchange.body = b""
        exchange.on_abandoned = None

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._body is not None:
            return self._body[self._filled :]
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        if self._lingering:
            return
        if self._body is not None:
            self._filled += nbytes
            if self._filled == len(self._body):
                self._large_body_complete(self._body)
            return
        self.feed(self._scratch[:nbytes])

    def feed(self, data: bytes | memoryview) -> None:
        """Take what has been received."""
        self._wire_size += len(data)
        self._parse(data)

    def _parse(self, data: bytes | memoryview) -> None:
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                self._parser = httptools.HttpRequestParser(self)
                data = self._ignore_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError as error:
                if self._refusal is not None:
                    self._refuse(*self._refusal)
                else:
                    self._refuse(400, f"the request is not valid HTTP/1.1: {error}")
                return
        if self.receiving:
            self._expect_more()

    def _ignore_upgrade(self, rest: bytes | memoryview) -> bytes | memoryview:
        """Speak HTTP/1.1 on, as the protocol allows; the parser has left out an announced body.

        What follows this request is returned.
        """
        if not self.receiving:
            return rest
        size = self._body_size or 0
        self._piece = bytes(rest[:size])
        if len(self._piece) == size:
            self._complete(self._piece)
        return rest[size:]

    def _expect_more(self) -> None:
        """Part of a request has arrived: prepare for the rest of it."""
        size = self._body_size
        limits = self._limits
        if size is not None:
            tensors = read_length(self._exchange.headers.get(HEADER_LENGTH, b"")) or 0
            self._body = self.front.buffers.take(size, min(tensors, size))
            self._filled = len(self._piece)
            self._body[: self._filled] = self._piece
            self.deadline += size / limits.rate
        elif self._wire_size > limits.head + CHUNK_OVERHEAD * len(self._chunked):
            self._refuse(431, f"the head exceeds {limits.head} bytes, or chunks are too small")

    def _large_body_complete(self, body: memoryview) -> None:
        self._body = None
        # The old parser still waits for this body.
        self._parser = httptools.HttpRequestParser(self)
        self._complete(body)

    # The parser's side.

    def on_message_begin(self) -> None:
        if self._lingering:
            raise Refusal
        self.receiving = True
        self._exchange = Exchange(self)
        self._url = b""
        self._headers.clear()
        self._body_size = None
        self.deadline = self._loop.time() + self._limits.request

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        exchange.method = self._parser.get_method()
        exchange.path = self._url
        exchange.keep_alive = self._parser.should_keep_alive()
        if self._wire_size >= self._limits.head + len(self._scratch):
            self._refusal = (431, f"the head exceeds {self._limits.head} bytes", None)
            raise Refusal
        headers = exchange.headers = {name.lower(): told for name, told in self._headers.items()}
        if b"transfer-encoding" in headers and self._parser.should_upgrade():
            self._refusal = (501, "a chunked request cannot offer an upgrade", None)
            raise Refusal
        length = headers.get(b"content-length")
        if length is not None:
            size = int(length)
            self._admit(size, size)
            self._body_size = size
        if (
            b"expect" in headers
            and headers[b"expect"].lower() == b"100-continue"
            and not self._pending
            and self._transport is not None
        ):
            self._transport.write(CONTINUE)

    def _admit(self, more: int, size: int) -> None:
        """Hold `more` bytes of a body that is `size` bytes by now, or refuse it."""
        limits = self._limits
        if size > limits.body:
            self._refusal = (413, f"the body exceeds {limits.body} bytes", None)
            raise Refusal
        if self.front.body_bytes + more > limits.bodies:
            self._refusal = (503, "too many large requests at once; retry later", 1)
            raise Refusal
        self.front.body_bytes += more
        self._held += more

    def on_body(self, data: bytes) -> None:
        if self._body_size is not None:
            self._piece = data
            return
        self._admit(len(data), len(self._chunked) + len(data))
        self._chunked += data
        self.deadline += len(data) / self._limits.rate

    def on_message_complete(self) -> None:
        if self._body_size is None and self._chunked:
            body = bytes(self._chunked)
            self._chunked = bytearray()
            self._complete(body)
        elif self._body_size == len(self._piece) or not self._body_size:
            self._complete(self._piece)

    # Answers.

    def _complete(self, body: bytes | memoryview) -> None:
        """A whole request is here."""
        exchange = self._exchange
        exchange.body = body
        exchange.received = time.perf_counter()
        self.receiving = False
        self._held = 0  # the exchange holds them now
        self._piece = b""
        self._wire_size = 0
        self.deadline = self._loop.time() + self._limits.idle
        self.front.unanswered += 1
        self._pending.append(exchange)
        if len(self._pending) >= MAX_PIPELINED:
            self._pace()
        self.front.handle(exchange)

    def answered(self, exchange: Exchange) -> None:
        """Write every answer whose turn it is."""
        pending = self._pending
        if not pending or pending[0] is not exchange:
            return  # an earlier one is not answered yet, or the client has gone
        pending.popleft()
        self._release(exchange)
        data = cast(bytes, exchange.answer)
        keep_alive = exchange.keep_alive
        while keep_alive and pending and pending[0].answer is not None:
            following = pending.popleft()
            self._release(following)
            data += cast(bytes, following.answer)
            keep_alive = following.keep_alive
        if self._transport is None:
            return
        self._transport.write(data)
        if not keep_alive:
            self._linger()
        elif self._paused:
            self._pace()

    def _pace(self) -> None:
        """Read from a client only as fast as it is answered and reads."""
        pause = self._choked or len(self._pending) >= MAX_PIPELINED
        if self._transport is None or pause == self._paused:
            return
        self._paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        self._choked = True
        self._pace()

    def resume_writing(self) -> None:
        self._choked = False
        self._pace()

    def _refuse(self, status: int, message: str, retry_after: int | None = None) -> None:
        """Answer what cannot be read on with an error, after the answers before it, and close."""
        if self._lingering:
            return
        self._stop_receiving()
        self._lingering = True
        self.deadline = self._loop.time() + self._limits.idle
        exchange = Exchange(self)
        exchange.keep_alive = False
        self.front.unanswered += 1
        self._pending.append(exchange)
        exchange.respond_error(status, message, retry_after)

    def _linger(self) -> None:
        """End sending, and discard what still comes: closing at once could destroy the answer."""
        self._lingering = True
        self._abandon()
        self.deadline = self._loop.time() + LINGER
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def expire(self) -> None:
        """The deadline has passed: tell a slow sender so, and close."""
        if self.receiving:
            self._refuse(408, "the request did not arrive in time; check the client's network")
        elif self._pending and not self._lingering:
            self.deadline = self._loop.time() + self._limits.idle
        elif self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """Its next answer will ask it to go."""

    def close(self) -> None:
        """Close after what has been written."""
        if self._transport is not None:
            self._transport.close()
