"""Clients on real connections: some that break off, stall or send nonsense, and some that are good.

The good ones call without pause while the others do what they do; each answer must be their own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from kohort_server.front import frames
from tests.fuzz import http1, http2
from tests.fuzz.answers import messages_of, raw_outputs, read_http1, read_http2, tensors_of
from tests.fuzz.tensors import Tensor, make_pool

MODEL = "one"
PATIENCE = 30.0  # seconds that a good client waits
QUIET = 0.02  # seconds without a byte after which a bad client leaves
AT_ONCE = 64  # bad clients
ABORT = struct.pack("ii", 1, 0)  # of SO_LINGER: leave with a reset


@dataclass
class Told:
    """What happened."""

    good: int = 0
    bad: int = 0  # connections of those that are not
    ways: dict[str, int] = field(default_factory=dict)


async def storm(port: int, seed: int, connections: int) -> Told:
    """So many bad connections beside good clients; raises `AssertionError` for a wrong answer."""
    pool = make_pool(MODEL)
    told = Told()
    numbers = iter(range(connections))
    over = asyncio.Event()
    good = [
        asyncio.ensure_future(keep_calling(kind(port, Random(seed)), pool, told, over))
        for kind in (HttpCaller, HttpCaller, GrpcCaller, GrpcCaller)
    ]

    async def misbehave() -> None:
        for number in numbers:
            await one_bad(port, pool, Random(f"{seed}/{number}"), told)

    try:
        await asyncio.gather(*(misbehave() for _ in range(AT_ONCE)))
    finally:
        over.set()
        await asyncio.gather(*good)
    return told


async def one_bad(port: int, pool: list[list[Tensor]], random: Random, told: Told) -> None:
    """One connection that does not end as it should."""
    way = random.choice(("nonsense", "nonsense", "cut", "cut", "half-closed", "slow", "silent"))
    told.bad += 1
    told.ways[way] = told.ways.get(way, 0) + 1
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if way != "silent":
            await send(writer, way, wire(pool, random, way), random)
        if way == "half-closed":
            writer.write_eof()
            await closed(reader)
        elif way == "nonsense":
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET):
                    while await reader.read(65_536):
                        pass
        if random.random() < 0.5:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    except OSError:
        pass  # the server has closed already
    finally:
        writer.close()


async def closed(reader: asyncio.StreamReader) -> None:
    """Return when the server has closed too."""
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.read()
    except TimeoutError as error:
        raise AssertionError("a connection is kept whose client has ended it") from error


def wire(pool: list[list[Tensor]], random: Random, way: str) -> bytes:
    """What the connection would carry in full."""
    inputs = random.choice(pool)
    if random.random() < 0.5:
        if way == "nonsense":
            return b"".join(http2.bad(MODEL, pool, random).pieces)
        return http2.GOOD_GREETING + http2.good(1, MODEL, inputs, "7")
    if way == "nonsense":
        return http1.bad(MODEL, inputs, random)
    return http1.good(MODEL, inputs, random, "7")


async def send(writer: asyncio.StreamWriter, way: str, data: bytes, random: Random) -> None:
    """All of it, or the beginning, or that byte by byte."""
    if way != "nonsense":
        data = data[: random.randrange(len(data) + 1)]
    if way != "slow":
        writer.write(data)
        await writer.drain()
        return
    for byte in data[-30:]:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.001)


class HttpCaller:
    """A good client: it calls over HTTP/1.1 and looks at each answer."""

    def __init__(self, port: int, random: Random) -> None:
        self.port = port
        self.random = random
        self.asked_to_go = False  # the server wants its connections to end

    async def connect(self) -> None:
        """Call on a new connection from now on."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.asked_to_go = False

    async def call(self, inputs: list[Tensor]) -> None:
        """Call; raises `AssertionError` unless the answer is these inputs."""
        self.writer.write(http1.good(MODEL, inputs, self.random, "7"))
        head = await self.reader.readuntil(b"\r\n\r\n")
        size = int(head.rpartition(b"\r\nContent-Length: ")[2])
        (answer,) = read_http1(head + await self.reader.readexactly(size))
        assert answer.status == 200, answer.body
        assert tensors_of(answer) == {f"{one.name}_out": one.raw for one in inputs}
        self.asked_to_go = answer.headers.get(b"connection") == b"close"


class GrpcCaller(HttpCaller):
    """The same over gRPC."""

    async def connect(self) -> None:
        await super().connect()
        self.writer.write(http2.GOOD_GREETING)
        self.numbers = itertools.count(1, 2)

    async def call(self, inputs: list[Tensor]) -> None:
        number = next(self.numbers)
        self.writer.write(http2.good(number, MODEL, inputs, str(number)))
        received = b""
        ended = False
        while not ended:
            head = await self.reader.readexactly(frames.HEADER_SIZE)
            high, low, kind, flags, stream = frames.HEADER.unpack(head)
            received += head + await self.reader.readexactly(high << 8 | low)
            self.asked_to_go |= kind == frames.GOAWAY
            ended = stream == number and kind == frames.HEADERS and bool(flags & frames.END_STREAM)
        answer = read_http2(received)[number]
        assert answer.trailers == {b"grpc-status": b"0"}, answer
        (message,) = messages_of(answer)
        assert raw_outputs(message) == (str(number), [one.raw for one in inputs])


async def keep_calling(
    caller: HttpCaller, pool: list[list[Tensor]], told: Told, over: asyncio.Event
) -> None:
    """Call on one connection until it is over."""
    await caller.connect()
    while not over.is_set():
        async with asyncio.timeout(PATIENCE):
            await caller.call(caller.random.choice(pool))
        told.good += 1
    caller.writer.close()


def open_files(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 (names alone)


def resident_bytes(pid: int | str = "self") -> int:
    """Memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
