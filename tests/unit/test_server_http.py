"""The HTTP transport as a function of bytes: how they are cut must not matter, nor what they are."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kohort_server.front.exchange import Exchange
from kohort_server.front.http import HttpConnection
from kohort_server.front.limits import HttpLimits
from kohort_server.front.port import Front
from tests.memory_transport import MemoryTransport

LIMITS = HttpLimits(head=16 << 10, body=50_000, bodies=1 << 20)


def converse(pieces: list[bytes], late: bool = False) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """What is written for these pieces, and the (path, body) of each request that was seen.

    Each request is answered with its body: at once, or (`late`) all in reverse order at the end.
    """
    seen: list[tuple[bytes, bytes]] = []
    exchanges: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        seen.append((exchange.path, bytes(exchange.body)))
        if late:
            exchanges.append(exchange)
        else:
            exchange.respond(200, bytes(exchange.body))

    async def world() -> bytes:
        front = Front(handle, LIMITS)
        connection = HttpConnection(front)
        front.connections.add(connection)
        transport = MemoryTransport().connect(connection)
        for piece in pieces:
            transport.feed(piece)
        for exchange in reversed(exchanges):
            exchange.respond(200, bytes(exchange.body))
        transport.lose()
        assert front.body_bytes == front.unanswered == 0
        assert not front.busy()
        assert not front.connections
        return bytes(transport.written)

    return asyncio.run(world()), seen


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    ordered = sorted({place % (len(data) + 1) for place in places})
    return [
        data[start:end]
        for start, end in zip([0, *ordered], [*ordered, len(data)], strict=True)
        if start < end
    ]


def with_length(path: str, body: bytes) -> bytes:
    """A request with an announced length."""
    return b"POST /%b HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


def chunked(path: str, body: bytes) -> bytes:
    """The same in chunks."""
    chunks = [body[at : at + 700] for at in range(0, len(body), 700)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST /%b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (
        path.encode(),
        sent,
    )


def bare(path: str, body: bytes) -> bytes:
    """A request without a body."""
    return b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode()


bodies = st.binary(max_size=60) | st.integers(0, 40_000).map(lambda size: b"x" * size)
requests = st.lists(
    st.tuples(
        st.sampled_from([with_length, chunked, bare]),
        st.text("abc", min_size=1, max_size=5),
        bodies,
    ),
    max_size=5,
)
places = st.lists(st.integers(0, 200_000), max_size=12)


@given(requests, places, st.booleans())
def test_every_request_is_seen_whole_and_answered_in_order_however_it_is_cut(
    sent: list[tuple[Any, str, bytes]], where: list[int], late: bool
) -> None:
    data = b"".join(make(path, body) for make, path, body in sent)
    written, seen = converse(cut(data, where), late)
    wanted = [(f"/{path}".encode(), b"" if make is bare else body) for make, path, body in sent]
    assert seen == wanted
    assert written == b"".join(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
        for _, body in wanted
    )


@given(requests, st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=4))), places)
def test_damaged_requests_are_answered_or_refused_and_nothing_is_held_afterwards(
    sent: list[tuple[Any, str, bytes]], damage: list[tuple[int, bytes]], where: list[int]
) -> None:
    data = bytearray(b"".join(make(path, body) for make, path, body in sent))
    for place, replacement in damage:
        at = place % (len(data) + 1)
        data[at : at + len(replacement)] = replacement
    written, seen = converse(cut(bytes(data), where))
    assert written.count(b"HTTP/1.1 ") >= len(seen)


@given(st.lists(st.binary(max_size=300)), st.booleans())
def test_any_bytes_at_all_are_survived(pieces: list[bytes], late: bool) -> None:
    converse(pieces, late)


def test_many_requests_to_connect_in_one_piece_are_each_answered() -> None:
    written, seen = converse([b"CONNECT a:1 HTTP/1.1\r\n\r\n" * 600])
    assert len(seen) == 600
    assert written.count(b"HTTP/1.1 200 ") == 600


def test_a_length_of_thousands_of_digits_is_no_length() -> None:
    head = b"POST /x HTTP/1.1\r\nInference-Header-Content-Length: %b\r\nContent-Length: 9\r\n\r\n"
    written, seen = converse([head % (b"1" * 6000), b"123456789"])
    assert seen == [(b"/x", b"123456789")]
    assert written.startswith(b"HTTP/1.1 200 ")
