"""HTTP/2 and gRPC as functions of bytes: how they are cut must not matter, nor what they are."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort_server.front import frames
from kohort_server.front.exchange import Exchange
from kohort_server.front.grpc import GrpcStream, Method
from kohort_server.front.hpack import HeaderDecoder, HpackError, decode_huffman, encode_fields
from kohort_server.front.http2 import Http2Connection
from kohort_server.front.limits import HttpLimits
from kohort_server.front.port import Front
from kohort_server.rpc.protobuf import Message
from tests.memory_transport import MemoryTransport
from tests.unit.test_server_http import cut

LIMITS = HttpLimits(head=16 << 10, body=50_000, bodies=1 << 20)
WIDE = frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW})
GREETING = frames.PREFACE + WIDE + frames.window_update(0, 1 << 29)


def echo(stream: GrpcStream, message: Message) -> None:
    """Answers with the message."""
    stream.reply([bytes(message)])


def echo_each(stream: GrpcStream, message: Message) -> None:
    """Answers with each message."""
    stream.push([bytes(message)])
    stream.answered()


def echo_body(exchange: Exchange) -> None:
    """Answers with the body."""
    exchange.respond(200, bytes(exchange.body))


def converse(pieces: list[bytes]) -> bytes:
    """What is written for these pieces; nothing may be held afterwards."""

    async def world() -> bytes:
        methods = {b"/echo": Method(echo), b"/each": Method(echo_each, client_streams=True)}
        front = Front(echo_body, LIMITS, methods)
        connection = Http2Connection(front)
        front.connections.add(connection)
        transport = MemoryTransport().connect(connection)
        for piece in pieces:
            transport.feed(piece)
        transport.lose()
        assert front.body_bytes == 0
        assert front.unanswered == 0
        assert not front.busy()
        assert not front.connections
        return bytes(transport.written)

    return asyncio.run(world())


def answers(written: bytes) -> dict[int, tuple[bytes, bytes]]:
    """(DATA, last block of headers) of every stream."""
    told: dict[int, tuple[bytes, bytes]] = {}
    at = 0
    while at < len(written):
        high, low, kind, _, number = frames.HEADER.unpack_from(written, at)
        stop = at + frames.HEADER_SIZE + (high << 8 | low)
        payload = written[at + frames.HEADER_SIZE : stop]
        data, block = told.get(number, (b"", b""))
        if kind == frames.DATA:
            told[number] = (data + payload, block)
        elif kind == frames.HEADERS:
            told[number] = (data, payload)
        at = stop
    return told


def prefixed(message: bytes) -> bytes:
    """A message of gRPC."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def request(number: int, path: bytes, body: bytes, size: int, padding: int, grpc: bool) -> bytes:
    """A request in DATA frames of at most `size` bytes, each padded."""
    fields = {b":method": b"POST", b":path": path, b":scheme": b"http"}
    fields[b"content-type"] = b"application/grpc" if grpc else b"text/plain"
    sent = [frames.frame(frames.HEADERS, frames.END_HEADERS, number, encode_fields(fields))]
    for at in range(0, max(len(body), 1), size):
        part = body[at : at + size]
        flags = frames.END_STREAM if at + size >= len(body) else 0
        if padding:
            part = bytes([padding]) + part + b"\0" * padding
            flags |= frames.PADDED
        sent.append(frames.frame(frames.DATA, flags, number, part))
    return b"".join(sent)


bodies = st.binary(max_size=60) | st.integers(0, 40_000).map(lambda size: b"x" * size)
requests = st.lists(
    st.tuples(
        st.sampled_from([b"/echo", b"/each", b"/plain"]),
        bodies,
        st.sampled_from([7, 1000, 16_384]),
        st.sampled_from([0, 0, 3, 255]),
    ),
    max_size=4,
)
places = st.lists(st.integers(0, 200_000), max_size=12)


def wire(sent: list[tuple[bytes, bytes, int, int]]) -> bytes:
    """All requests on one connection."""
    pieces = [GREETING]
    for index, (path, body, size, padding) in enumerate(sent):
        grpc = path != b"/plain"
        data = prefixed(body) if grpc else body
        size = max(size, len(data) // 50)
        pieces.append(request(2 * index + 1, path, data, size, padding, grpc))
    return b"".join(pieces)


@given(requests, places)
def test_every_request_is_answered_on_its_stream_however_it_is_cut(
    sent: list[tuple[bytes, bytes, int, int]], where: list[int]
) -> None:
    got = answers(converse(cut(wire(sent), where)))
    for index, (path, body, _, _) in enumerate(sent):
        data, block = got[2 * index + 1]
        if path == b"/plain":
            assert data == body
        else:
            assert data == prefixed(body)
            assert HeaderDecoder().decode(block)[b"grpc-status"] == b"0"


@given(requests, st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=4))), places)
def test_damaged_connections_are_survived_and_nothing_is_held_afterwards(
    sent: list[tuple[bytes, bytes, int, int]], damage: list[tuple[int, bytes]], where: list[int]
) -> None:
    data = bytearray(wire(sent))
    for place, replacement in damage:
        at = place % (len(data) + 1)
        data[at : at + len(replacement)] = replacement
    converse(cut(bytes(data), where))


@given(
    st.lists(
        st.builds(
            lambda kind, flags, number, payload: frames.frame(kind, flags, number, payload),
            st.integers(0, 12),
            st.integers(0, 255),
            st.integers(0, 9),
            st.binary(max_size=40),
        ),
        max_size=30,
    ),
    places,
)
def test_any_frames_at_all_are_survived(sent: list[bytes], where: list[int]) -> None:
    converse(cut(GREETING + b"".join(sent), where))


def test_an_answer_waits_for_the_clients_windows_and_then_comes_whole() -> None:
    narrow = frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 10})
    body = b"y" * 100
    asked = request(1, b"/echo", prefixed(body), 1000, 0, True)
    allowed = [frames.window_update(1, 20) for _ in range(5)]
    assert answers(converse([narrow + asked]))[1][0] == prefixed(body)[:10]
    data, block = answers(converse([narrow + asked, *allowed]))[1]
    assert data == prefixed(body)
    assert HeaderDecoder().decode(block)[b"grpc-status"] == b"0"


def test_one_narrow_stream_does_not_hold_up_another() -> None:
    narrow = frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 10})
    first = request(1, b"/echo", prefixed(b"y" * 100), 1000, 0, True)
    second = request(3, b"/echo", prefixed(b"z"), 1000, 0, True)
    assert answers(converse([narrow + first + second]))[3][0] == prefixed(b"z")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (prefixed(b"x" * 60_000), b"8"),
        (b"", b"13"),
        (b"\0\0\0", b"13"),
        (prefixed(b"a") + prefixed(b"b"), b"13"),
        (b"\1" + prefixed(b"a")[1:], b"12"),
    ],
    ids=["too large", "none", "cut off", "two", "compressed"],
)
def test_a_message_that_cannot_be_taken_ends_the_call_with_a_status(
    body: bytes, status: bytes
) -> None:
    asked = request(1, b"/echo", body, 16_384, 0, True)
    block = answers(converse([GREETING + asked]))[1][1]
    assert HeaderDecoder().decode(block)[b"grpc-status"] == status


@pytest.mark.parametrize("path", [b"/echo", b"/each"])
@pytest.mark.parametrize("rest", [b"\0\0", prefixed(b"abc")[:-1]], ids=["prefix", "message"])
def test_a_call_that_ends_within_a_message_fails(path: bytes, rest: bytes) -> None:
    asked = request(1, path, prefixed(b"a") + rest, 16_384, 0, True)
    block = answers(converse([GREETING + asked]))[1][1]
    assert HeaderDecoder().decode(block)[b"grpc-status"] == b"13"


def test_a_flood_of_pings_ends_the_connection() -> None:
    ping = frames.frame(frames.PING, 0, 0, b"12345678")
    written = converse([GREETING + ping * 20_000])
    assert frames.frame(frames.GOAWAY, 0, 0)[3:4] in written
    assert b"too many frames" in written


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=200)), max_size=20))
def test_headers_arrive_as_they_were_sent(fields: list[tuple[bytes, bytes]]) -> None:
    assert HeaderDecoder().decode(encode_fields(dict(fields))) == dict(fields)


@pytest.mark.parametrize(
    ("coded", "plain"),  # examples of RFC 7541, appendix C
    [
        ("f1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),
        ("a8eb10649cbf", b"no-cache"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    ],
)
def test_huffman_strings_are_read_as_the_specification_writes_them(
    coded: str, plain: bytes
) -> None:
    assert decode_huffman(bytes.fromhex(coded)) == plain


def test_the_dynamic_table_is_kept_as_the_specification_says() -> None:
    decoder = HeaderDecoder()  # C.4: three requests of one connection
    common = {b":method": b"GET", b":scheme": b"http", b":path": b"/"}
    first = decoder.decode(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff"))
    assert first == {**common, b":authority": b"www.example.com"}
    second = decoder.decode(bytes.fromhex("828684be5886a8eb10649cbf"))
    assert second == {**first, b"cache-control": b"no-cache"}


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_block_is_decoded_or_refused(blocks: list[bytes]) -> None:
    decoder = HeaderDecoder()
    for block in blocks:
        try:
            decoder.decode(block)
        except HpackError:
            return


def test_a_bomb_of_indexed_fields_is_refused() -> None:
    with pytest.raises(HpackError, match="too many"):
        HeaderDecoder().decode(b"\x82" * 10_000)


def plain_headers(number: int, ends: bool, **more: bytes) -> bytes:
    """The headers of a plain request."""
    fields = {b":method": b"POST", b":path": b"/plain", b":scheme": b"http"}
    fields |= {name.replace("_", "-").encode(): value for name, value in more.items()}
    flags = frames.END_HEADERS | (frames.END_STREAM if ends else 0)
    return frames.frame(frames.HEADERS, flags, number, encode_fields(fields))


def test_a_request_that_is_refused_is_refused_once_also_when_its_body_follows() -> None:
    closed = frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 0})
    asked = plain_headers(1, False, content_length=b"60000")
    body = frames.frame(frames.DATA, frames.END_STREAM, 1, b"x" * 100)
    written = converse([closed + asked + body, frames.window_update(1, 10_000)])
    assert written.count(b"exceeds 50000 bytes") == 1
    assert blocks_of_headers(written, 1) == 1


def test_a_request_that_ends_twice_is_answered_once() -> None:
    closed = frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 0})
    body = frames.frame(frames.DATA, 0, 1, b"x" * 100)
    twice = plain_headers(1, True) * 2
    assert blocks_of_headers(converse([closed + plain_headers(1, False) + body + twice]), 1) == 1


def blocks_of_headers(written: bytes, number: int) -> int:
    """How many times headers were sent on a stream."""
    at = count = 0
    while at < len(written):
        high, low, kind, _, stream = frames.HEADER.unpack_from(written, at)
        count += (kind, stream) == (frames.HEADERS, number)
        at += frames.HEADER_SIZE + (high << 8 | low)
    return count


def test_a_length_of_thousands_of_digits_is_no_length() -> None:
    told = b"1" * 6000
    asked = plain_headers(1, False, content_length=b"3", inference_header_content_length=told)
    body = frames.frame(frames.DATA, frames.END_STREAM, 1, b"xyz")
    assert answers(converse([GREETING + asked + body]))[1][0] == b"xyz"


def test_a_long_reason_fits_a_frame_that_every_client_takes() -> None:
    asked = request(1, b"/" + b"\xff" * 6000, b"", 1000, 0, True)
    written = converse([GREETING + asked])
    at = 0
    while at < len(written):
        high, low, *_ = frames.HEADER.unpack_from(written, at)
        assert (high << 8 | low) <= frames.DEFAULT_FRAME_SIZE
        at += frames.HEADER_SIZE + (high << 8 | low)


def test_an_answer_that_comes_after_the_end_of_its_stream_counts_no_request_twice() -> None:
    async def world() -> None:
        waiting: list[GrpcStream] = []
        method = Method(lambda stream, _: waiting.append(stream), client_streams=True)
        front = Front(echo_body, LIMITS, {b"/each": method})
        transport = MemoryTransport().connect(Http2Connection(front))
        transport.feed(GREETING + request(1, b"/each", prefixed(b"a"), 1000, 0, True))
        assert front.unanswered == 1
        transport.feed(frames.reset(1, frames.CANCEL))
        assert front.unanswered == 0
        waiting[0].push([b"late"])
        waiting[0].answered()
        assert front.unanswered == 0

    asyncio.run(world())


def test_countless_answers_that_wait_for_a_window_come_in_the_end() -> None:
    closed = frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 0})
    count = 30_000  # if each looked at all before it, this would take many minutes
    asked = request(1, b"/each", prefixed(b"") * count, 16_384, 0, True)
    opened = frames.window_update(0, 1 << 20) + frames.window_update(1, 1 << 20)
    data, block = answers(converse([closed + asked, opened]))[1]
    assert data == prefixed(b"") * count
    assert HeaderDecoder().decode(block)[b"grpc-status"] == b"0"
