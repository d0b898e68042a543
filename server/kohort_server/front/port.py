"""The one port: what all connections share, and finding out which protocol a client speaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from kohort_server.buffers import Buffers
from kohort_server.front import frames
from kohort_server.front.exchange import Exchange
from kohort_server.front.grpc import GrpcStream, Method
from kohort_server.front.hpack import Headers
from kohort_server.front.http import HttpConnection
from kohort_server.front.http2 import Http2Connection
from kohort_server.front.http2_exchange import HttpStream
from kohort_server.front.limits import HttpLimits
from kohort_server.front.outbox import Stream

SCRATCH = 16 << 10  # bytes that are read at a time; a head is at most this much more than its limit
WIDE_SCRATCH = 64 << 10  # the same for HTTP/2, whose frames come in crowds
SWEEP = 1.0  # seconds between looks for connections that are too slow
TELLING = len(b"PRI ")  # bytes that no HTTP/1 request begins with


class Connection(Protocol):
    """A client's connection, whatever it speaks."""

    deadline: float
    opened_while_draining: bool

    @property
    def receiving(self) -> bool:
        """Whether a request has begun and is not complete."""

    def expire(self) -> None:
        """The deadline has passed."""

    def leave(self) -> None:
        """Ask the client to go elsewhere with its next requests."""

    def close(self) -> None:
        """Close after what has been written."""


@dataclass(slots=True)
class Front:
    """What all connections share."""

    handle: Callable[[Exchange], None]
    limits: HttpLimits = field(default_factory=HttpLimits)
    methods: dict[bytes, Method] = field(default_factory=dict)  # of gRPC, by path
    draining: bool = False
    connections: set[Connection] = field(default_factory=set)
    body_bytes: int = 0  # held by requests that are received or unanswered
    unanswered: int = 0
    buffers: Buffers = field(default_factory=Buffers)
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(SCRATCH)))
    wide_scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(WIDE_SCRATCH)))

    def connection(self) -> Entrance:
        """A protocol for a new connection."""
        return Entrance(self)

    def open_stream(
        self, connection: Http2Connection, number: int, headers: Headers
    ) -> Stream | None:
        """A stream for a request whose headers have come; None when it is answered already."""
        stream: GrpcStream | HttpStream
        if headers.get(b"content-type", b"").startswith(b"application/grpc"):
            stream = GrpcStream(connection, number, headers)
        else:
            stream = HttpStream(connection, number, headers)
        connection.streams[number] = stream
        stream.begin()
        return connection.streams.get(number)

    def busy(self) -> bool:
        """Whether a request is being received or waits for its answer."""
        return self.unanswered > 0 or any(c.receiving for c in self.connections)

    def expecting(self) -> bool:
        """Whether a client connected so late that its request may still be on its way."""
        return any(c.opened_while_draining for c in self.connections)

    async def sweep(self) -> None:
        """Close connections that are idle or slow for too long, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP)
            now = loop.time()
            for connection in [c for c in self.connections if c.deadline < now]:
                connection.expire()
            self.buffers.trim()

    def drain(self) -> None:
        """Ask all clients to go elsewhere, and go on answering."""
        self.draining = True
        for connection in list(self.connections):
            connection.leave()

    def close(self) -> None:
        """Close every connection after what has been written to it."""
        for connection in list(self.connections):
            connection.close()


class Entrance(asyncio.BufferedProtocol):
    """A connection until its first bytes say whether it is HTTP/1.1 or HTTP/2."""

    receiving = False

    def __init__(self, front: Front) -> None:
        self._front = front
        self._transport: asyncio.Transport | None = None
        self._begun = b""
        self.deadline = 0.0
        self.opened_while_draining = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        limits = self._front.limits
        if len(self._front.connections) >= limits.connections:
            transport.close()
            return
        self.opened_while_draining = self._front.draining
        self._front.connections.add(self)
        self.deadline = asyncio.get_running_loop().time() + limits.idle

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.connections.discard(self)

    def eof_received(self) -> bool:
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._front.scratch

    def buffer_updated(self, nbytes: int) -> None:
        self._begun += self._front.scratch[:nbytes]
        preface = frames.PREFACE.startswith(self._begun[: len(frames.PREFACE)])
        if preface and len(self._begun) < TELLING:
            return
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        connection: Http2Connection | HttpConnection
        connection = Http2Connection(self._front) if preface else HttpConnection(self._front)
        connection.opened_while_draining = self.opened_while_draining
        self._front.connections.discard(self)
        self._front.connections.add(connection)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.feed(self._begun)

    def expire(self) -> None:
        """Nothing was ever asked."""
        self.close()

    def leave(self) -> None:
        """Its first answer will ask it to go."""

    def close(self) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.close()
