"""The server's own parts in this process, without sockets, and rounds of clients that harm it.

A round is a few connections whose bytes arrive in pieces and in any order; one of them is good and
must get its own tensors back. Everything random in it comes from the seed and the round's number.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from random import Random
from typing import Any

from kohort_server.batch.batcher import Batcher
from kohort_server.batch.calibration import Curve
from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine
from kohort_server.front.codec import Codec
from kohort_server.front.grpc_codec import GrpcCodec
from kohort_server.front.limits import HttpLimits
from kohort_server.front.port import Front
from kohort_server.front.routes import Routes
from kohort_server.front.served import ServedModel, Serving
from kohort_server.front.services import Services
from tests.fuzz import http1, http2
from tests.fuzz.answers import (
    messages_of,
    raw_outputs,
    read_http1,
    read_http2,
    tensors_of,
)
from tests.fuzz.tensors import MODELS, Tensor, damage, make_pool, save_model
from tests.memory_transport import MemoryTransport

# Of one model low enough to be met, of the others high enough for bodies that take long to read.
LOW, HIGH = (HttpLimits(body=size, bodies=16 * size) for size in (60_000, 8 << 20))
CURVE = Curve({1: 20e-6, 8: 40e-6}, 8, inline=True)
PATIENCE = 30.0  # seconds in which everything that came must be answered


class Complaints(logging.Handler):
    """What was logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


class World:
    """One server for each model. Made within a running loop."""

    def __init__(self, directory: Path) -> None:
        self.fronts: dict[str, Front] = {}
        self.pools: dict[str, list[list[Tensor]]] = {}
        for name in MODELS:
            save_model(directory / f"{name}.onnx", name)
            self.fronts[name] = make_front(directory / f"{name}.onnx", name)
            self.pools[name] = make_pool(name)
        self.complaints = Complaints()
        self.longest = (0.0, 0)  # CPU seconds of the longest step of the server, and its round

    async def __aenter__(self) -> World:
        logging.getLogger().addHandler(self.complaints)
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        return self

    async def __aexit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self.complaints)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.told.append(f"unhandled: {context}")

    async def round(self, seed: int, number: int) -> int:
        """Play a round: how many requests it sent. Raises `AssertionError` with what went wrong."""
        random = Random(f"{seed}/{number}")
        model = random.choice(("one", "one", "many", "free"))
        front, pool = self.fronts[model], self.pools[model]
        clients = [GoodHttp1(model, pool, random), GoodHttp2(model, pool, random)]
        clients += [make_bad(model, pool, random) for _ in range(random.choice((2, 4, 8)))]
        try:
            step = await play(front, clients, random)
            self.longest = max(self.longest, (step, number))
            assert not self.complaints.told, self.complaints.told
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, round {number} (model {model}): {type(error).__name__}: {error}"
            ) from error
        return sum(client.requests for client in clients)


def make_front(path: Path, name: str) -> Front:
    """All of a server but its sockets."""
    engine = OnnxRuntimeEngine(path, 1)
    model = ServedModel(name, "r")
    codec = Codec(name, "r", engine.signature, engine.batch)
    model.start(
        Serving(engine, codec, GrpcCodec(name, model.versions, codec), Batcher(engine, CURVE))
    )
    limits = LOW if name == "one" else HIGH
    return Front(Routes(model), limits, Services(model).methods())


class Client:
    """A connection: what is sent, and a look at what comes back."""

    def __init__(self, pieces: list[bytes], requests: int) -> None:
        self.pieces = pieces
        self.requests = requests
        self.transport = MemoryTransport()

    def check(self) -> None:
        """Raise `AssertionError` where what came is wrong."""
        written = bytes(self.transport.written)
        if written.startswith(b"HTTP/1.1 "):
            read_http1(written)
        else:
            read_http2(written)


class GoodHttp1(Client):
    """Sends good requests over HTTP/1.1, some of them pipelined."""

    def __init__(self, model: str, pool: list[list[Tensor]], random: Random) -> None:
        self.sent = [random.choice(pool) for _ in range(random.choice((1, 3, 6)))]
        wire = b"".join(
            http1.good(model, inputs, random, str(number))
            for number, inputs in enumerate(self.sent)
        )
        super().__init__(cut(wire, random), len(self.sent))

    def check(self) -> None:
        """Each answer is that to its own request."""
        answers = read_http1(bytes(self.transport.written))
        assert len(answers) == len(self.sent), f"{len(answers)} of {len(self.sent)} are answered"
        for answer, inputs in zip(answers, self.sent, strict=True):
            assert answer.status == 200, answer.body
            wanted = {f"{given.name}_out": given.raw for given in inputs}
            assert tensors_of(answer) == wanted, "another answer"


class GoodHttp2(Client):
    """Sends good calls of gRPC, several at once."""

    def __init__(self, model: str, pool: list[list[Tensor]], random: Random) -> None:
        self.sent = [random.choice(pool) for _ in range(random.choice((1, 3, 6)))]
        calls = [
            http2.good(2 * number + 1, model, inputs, str(number))
            for number, inputs in enumerate(self.sent)
        ]
        super().__init__(cut(http2.GOOD_GREETING + b"".join(calls), random), len(self.sent))

    def check(self) -> None:
        """Each answer is that to its own request."""
        streams = read_http2(bytes(self.transport.written))
        for number, inputs in enumerate(self.sent):
            stream = streams[2 * number + 1]
            assert stream.trailers == {b"grpc-status": b"0"}, stream.trailers or stream.headers
            (message,) = messages_of(stream)
            assert raw_outputs(message) == (str(number), [given.raw for given in inputs])


def make_bad(model: str, pool: list[list[Tensor]], random: Random) -> Client:
    """A client that does something wrong, mostly."""
    if random.random() < 0.5:
        made = http2.bad(model, pool, random)
        return Client(cut(b"".join(made.pieces), random), made.requests)
    count = random.choice((1, 2, 5))
    requests = [
        http1.bad(model, random.choice(pool), random)
        if random.random() < 0.8
        else http1.good(model, random.choice(pool), random, "0")
        for _ in range(count)
    ]
    wire = b"".join(requests)
    if random.random() < 0.05:
        wire = damage(wire, random)
    return Client(cut(wire, random), count)


def cut(data: bytes, random: Random) -> list[bytes]:
    """The bytes in pieces, as they may arrive."""
    if random.random() < 0.3:
        return [data]
    places = sorted(random.randrange(len(data) + 1) for _ in range(random.choice((1, 3, 10))))
    return [
        data[start:end]
        for start, end in zip([0, *places], [*places, len(data)], strict=True)
        if start < end
    ]


async def play(front: Front, clients: list[Client], random: Random) -> float:
    """Let all clients send, and look at what they got and what is left behind.

    Returns the CPU seconds of the longest step: others wait for so long.
    """
    longest = 0.0
    for client in clients:
        client.transport.connect(front.connection())
    good = clients[:2]
    sending = [client for client in clients if client.pieces]
    while sending:
        client = random.choice(sending)
        before = time.thread_time()
        client.transport.feed(client.pieces.pop(0))
        longest = max(longest, time.thread_time() - before)
        what = random.random()
        if what < 0.3:
            await asyncio.sleep(0)
        elif what < 0.34 and client not in good:
            disturb(client, random)
        sending = [left for left in sending if left.pieces]
    end = time.monotonic() + PATIENCE
    while front.unanswered and time.monotonic() < end:  # noqa: ASYNC110 (no event for it)
        await asyncio.sleep(0)
    assert front.unanswered == 0, f"{front.unanswered} requests are not answered"
    for client in clients:
        client.check()
        client.transport.lose()
    await asyncio.sleep(0)
    assert not front.connections, "connections are left"
    assert front.body_bytes == 0, f"{front.body_bytes} bytes are held"
    assert front.unanswered == 0, "requests are left"
    return longest


def disturb(client: Client, random: Random) -> None:
    """What an event loop or a client may do at any time."""
    protocol = client.transport.protocol
    match random.randrange(4):
        case 0:
            client.pieces.clear()
            client.transport.lose()
        case 1 if not client.transport.closed:
            protocol.expire()
        case 2 if hasattr(protocol, "pause_writing"):
            protocol.pause_writing()
            protocol.resume_writing()
        case _:
            client.pieces.clear()  # it sends nothing more, and waits
