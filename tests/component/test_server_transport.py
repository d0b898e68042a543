"""HTTP/1.1 on raw sockets: what well-behaved, slow, greedy and broken clients get."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from kohort_server.front.exchange import Exchange
from kohort_server.front.limits import HttpLimits
from kohort_server.front.port import Front
from tests.component.server_process import ServerProcess, linear_model, serving

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    model = linear_model(tmp_path_factory.mktemp("model") / "model.onnx", "batch")
    with serving(model, "--max-body", "1Mi") as running:
        yield running


def infer_body(rows: int, identity: str) -> bytes:
    """A request for the linear model."""
    tensor = {"name": "x", "shape": [rows, 64], "datatype": "FP32", "data": [0.0] * 64 * rows}
    return json.dumps({"id": identity, "inputs": [tensor]}).encode()


def infer_head(length: int, *lines: str) -> bytes:
    """The head of an inference with a body of known length."""
    more = "".join(f"{line}\r\n" for line in lines)
    return (
        f"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{more}\r\n"
    ).encode()


def read_answer(stream: socket.SocketIO) -> tuple[int, bytes]:
    """The next answer's status and body; status 0 at the end of the connection."""
    status = stream.readline()
    if not status:
        return 0, b""
    length = 0
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, told = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(told)
    return int(status.split()[1]), stream.read(length)


def talk(server: ServerProcess, *pieces: bytes) -> list[tuple[int, bytes]]:
    """Send pieces, then read all answers until the server closes or `Connection: close` was sent."""
    answers = []
    with server.socket() as connection, connection.makefile("rb") as stream:
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        while (answer := read_answer(stream))[0]:  # type: ignore[arg-type]
            answers.append(answer)
    return answers


def closing(request: bytes) -> bytes:
    """A request after which the server closes."""
    return request.replace(b"Host: h\r\n", b"Host: h\r\nConnection: close\r\n", 1)


def test_pipelined_requests_are_answered_in_their_order(server: ServerProcess) -> None:
    sent = b""
    for number in range(150):
        body = infer_body(1 + number % 3, str(number))
        sent += infer_head(len(body)) + body
    answers = talk(server, sent + closing(LIVE))
    assert [status for status, _ in answers] == [200] * 151
    assert [json.loads(body)["id"] for _, body in answers[:-1]] == [str(n) for n in range(150)]
    assert answers[-1][1] == b'{"live":true}'


def test_a_request_that_arrives_byte_by_byte_is_answered(server: ServerProcess) -> None:
    body = infer_body(1, "slow")
    sent = closing(infer_head(len(body))) + body
    [(status, answer)] = talk(server, *(bytes([byte]) for byte in sent))
    assert (status, json.loads(answer)["id"]) == (200, "slow")


def test_large_bodies_and_small_requests_share_a_connection(server: ServerProcess) -> None:
    large, small = infer_body(1500, "large"), infer_body(1, "small")
    pair = infer_head(len(large)) + large + infer_head(len(small)) + small
    answers = talk(server, pair * 3 + closing(LIVE))
    told = [json.loads(body).get("id") for _, body in answers]
    assert told == ["large", "small"] * 3 + [None]


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_a_chunked_body_is_put_together(server: ServerProcess, size: int) -> None:
    body = infer_body(20, "chunked")
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    answers = talk(server, head + sent + closing(LIVE))
    assert [status for status, _ in answers] == [200, 200]
    assert json.loads(answers[0][1])["id"] == "chunked"


def test_a_client_that_expects_100_continue_is_told_to(server: ServerProcess) -> None:
    body = infer_body(1, "polite")
    with server.socket() as connection, connection.makefile("rb") as stream:
        connection.sendall(infer_head(len(body), "Expect: 100-continue"))
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert stream.readline() == b"\r\n"
        connection.sendall(body)
        assert read_answer(stream)[0] == 200  # type: ignore[arg-type]


def test_a_head_request_has_the_length_but_no_body(server: ServerProcess) -> None:
    answer = server.call("HEAD", "/v2/health/live")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "13", b"")


def test_an_http_1_0_client_is_answered_and_the_connection_closed(server: ServerProcess) -> None:
    assert talk(server, b"GET /v2/health/live HTTP/1.0\r\n\r\n") == [(200, b'{"live":true}')]


@pytest.mark.parametrize("rows", [1, 100])
def test_an_offered_upgrade_is_ignored_and_the_request_answered(
    server: ServerProcess, rows: int
) -> None:
    body = infer_body(rows, "java")
    offer = infer_head(len(body), "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c") + body
    answers = talk(server, offer + LIVE + closing(LIVE))
    assert [status for status, _ in answers] == [200] * 3
    assert json.loads(answers[0][1])["id"] == "java"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nBad Name: 1\r\n\r\n", 400),
        (
            b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            501,
        ),
        (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", 431),
        (infer_head(2 << 20), 413),
        (infer_head(2 << 20) + b"x" * (2 << 20), 413),
    ],
)
def test_what_is_no_valid_request_gets_an_error_and_harms_nobody(
    server: ServerProcess, request_bytes: bytes, status: int
) -> None:
    answers = talk(server, LIVE + request_bytes)
    assert [told for told, _ in answers] == [200, status]
    assert list(json.loads(answers[1][1])) == ["error"]
    assert server.call("GET", "/v2/health/live").status == 200


def test_endless_chunks_are_refused_at_the_limit(server: ServerProcess) -> None:
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    assert [status for status, _ in talk(server, head, *[chunk] * 40)] == [413]


def test_endless_trailers_are_refused(server: ServerProcess) -> None:
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless = b"1\r\nx\r\n0\r\n" + b"a: " + b"b" * 200_000
    assert [status for status, _ in talk(server, head + endless)] == [431]


def test_clients_that_hang_up_in_the_middle_leave_nothing_behind(server: ServerProcess) -> None:
    body = infer_body(100, "gone")
    whole = infer_head(len(body)) + body
    for cut in range(0, len(whole), len(whole) // 50):
        with server.socket() as connection:
            connection.sendall(whole[:cut])
    assert server.infer_ok()
    metrics = server.call("GET", "/metrics").body.decode()
    assert 'kohort_server_queue_rows{model="m",revision="r1"} 0.0' in metrics


# The front alone, with limits that a test can reach.


@asynccontextmanager
async def listening(front: Front) -> AsyncIterator[int]:
    """The front on a port of its own."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(front.connection, "127.0.0.1", 0)
    sweeper = loop.create_task(front.sweep())
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        sweeper.cancel()
        listener.close()
        front.close()


def echo(exchange: Exchange) -> None:
    """Answers with the body."""
    exchange.respond(200, bytes(exchange.body))


async def converse(port: int, *pieces: bytes) -> bytes:
    """Everything that the server sends until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "beginning", [b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nxx"]
)
async def test_a_sender_that_is_too_slow_is_told_so_and_let_go(beginning: bytes) -> None:
    front = Front(echo, HttpLimits(request=0.1, rate=1000))
    async with listening(front) as port:
        assert (await converse(port, beginning)).startswith(b"HTTP/1.1 408 ")
        assert not front.busy()
        assert front.body_bytes == 0


async def test_an_idle_connection_is_closed_in_the_end() -> None:
    async with listening(Front(echo, HttpLimits(idle=0.1))) as port:
        assert await converse(port) == b""


async def test_large_bodies_beyond_the_common_limit_are_refused_for_now() -> None:
    front = Front(echo, HttpLimits(bodies=1000))
    held = b"POST / HTTP/1.1\r\nContent-Length: 600\r\n\r\n"
    async with listening(front) as port:
        _, waiting = await asyncio.open_connection("127.0.0.1", port)
        waiting.write(held)
        while front.body_bytes != 600:  # noqa: ASYNC110 (the front has no event for it)
            await asyncio.sleep(0)
        refused = await converse(port, held)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in refused
        waiting.close()
        while front.body_bytes:  # noqa: ASYNC110 (the front has no event for it)
            await asyncio.sleep(0)


async def test_a_client_that_never_reads_is_not_read_either() -> None:
    asked = 0

    def large(exchange: Exchange) -> None:
        nonlocal asked
        asked += 1
        exchange.respond(200, b"x" * 1_000_000)

    front = Front(large)
    async with listening(front) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 5000)
        while not asked:  # noqa: ASYNC110 (counted by the handler)
            await asyncio.sleep(0)
        live = await converse(port, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert live.startswith(b"HTTP/1.1 200 ")
        assert asked < 2000
        writer.transport.abort()
