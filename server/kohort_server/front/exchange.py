"""One HTTP request and its answer, and the bytes of answers."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from kohort_server.front.port import Front

JSON = b"application/json"
BINARY = b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
MOST_DIGITS = 15  # of a length

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
REASONS = {status.value: status.phrase for status in HTTPStatus}


class Answering(Protocol):
    """The connection that a request came from."""

    front: Front

    def answered(self, exchange: Exchange) -> None:
        """The exchange has its answer."""


class Exchange:
    """A request as it was received; `respond` answers it, once."""

    __slots__ = (
        "answer",
        "body",
        "connection",
        "headers",
        "keep_alive",
        "method",
        "on_abandoned",
        "path",
        "received",
    )

    def __init__(self, connection: Answering) -> None:
        self.connection = connection
        self.method = b""
        self.path = b""
        self.headers: dict[bytes, bytes] = {}  # names in lower case
        self.body: bytes | memoryview = b""
        self.keep_alive = True
        self.received = 0.0  # time.perf_counter when the request was complete
        self.answer: bytes | None = None
        self.on_abandoned: Callable[[], None] | None = None

    def respond(
        self, status: int, body: bytes, content_type: bytes = JSON, extra: bytes = b""
    ) -> None:
        """Answer; `extra` is whole header lines. A client that has gone is ignored."""
        if not self.keep_alive or self.connection.front.draining:
            self.keep_alive = False
            extra += b"Connection: close\r\n"
        length = len(body)
        if self.method == b"HEAD":
            body = b""
        self.answer = b"%b%b\r\n%bContent-Length: %d\r\n\r\n%b" % (
            status_line(status),
            content_type,
            extra,
            length,
            body,
        )
        self.connection.answered(self)

    def respond_error(self, status: int, message: str, retry_after: int | None = None) -> None:
        """Answer with the protocol's one shape of an error."""
        extra = b"" if retry_after is None else b"Retry-After: %d\r\n" % retry_after
        self.respond(status, msgspec.json.encode({"error": message}), extra=extra)


def read_length(told: bytes) -> int | None:
    """A length in bytes from a header's value; None where that is none."""
    return int(told) if told.isdigit() and len(told) <= MOST_DIGITS else None


def make_status_line(status: int) -> bytes:
    """The status line and the beginning of the first header."""
    return f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: ".encode()


STATUS_LINES = {status: make_status_line(status) for status in REASONS}
status_line = STATUS_LINES.__getitem__
