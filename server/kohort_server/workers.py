"""Several processes that serve one port: each a core, for models that are cheaper than their requests.

The first process loads the model, starts the others with its own command line and its place among them,
and is ready when they have loaded it too. Only then do they listen: no client meets one that is not ready.
They end when they are told to, or when the first process has gone. One that dies takes all with it, as
a server of one process would go; whoever started it starts it anew, and nothing counted is mixed up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from kohort.contract import FailureReason
from kohort_server.batch.calibration import Curve
from kohort_server.errors import StartFailure
from kohort_server.front.metrics import Counts

RUN = "from kohort_server.main import main; main()"
# What receiving, decoding and answering a small request takes in Python on one core (docs/benchmarks.md).
FRONT_SECONDS = 20e-6
USEFUL_GAIN = 1.5  # times the requests of one process
ASKING_SECONDS = 2.0  # for what the others have counted
GO = b"go\n"
LOADED = b"loaded\n"

log = logging.getLogger(__name__)
decode_counts = msgspec.msgpack.Decoder(Counts).decode


@dataclass(frozen=True, slots=True)
class Place:
    """One process among those of a server; the first has the index 0."""

    group: str
    index: int
    size: int

    def address(self, index: int) -> str:
        """Where a process tells what it has counted: a name in Linux's abstract namespace."""
        return f"\0kohort-server/{self.group}/{index}"

    def text(self) -> str:
        """For a command line."""
        return f"{self.group}/{self.index}/{self.size}"


def parse_place(text: str) -> Place:
    """A place from a command line."""
    group, index, size = text.split("/")
    return Place(group, int(index), int(size))


def useful_workers(cpus: int, together: Curve, alone: Curve) -> int:
    """How many processes of one thread serve more than one whose engine has a thread per CPU.

    `together` is what batches cost with all those threads, `alone` with one. Only a model so small that
    it runs on the loop gets several: of any other, threads make the answers come sooner.
    """
    if cpus < 2 or not alone.inline:
        return 1
    one = 1 / (together.seconds_per_row + FRONT_SECONDS)
    several = cpus / (alone.seconds_per_row + FRONT_SECONDS)
    return cpus if several > USEFUL_GAIN * one else 1


class Workers:
    """The other processes of a server, as its first one sees them."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._processes: list[asyncio.subprocess.Process] = []
        self._watching: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Start them, and wait until each has loaded the model. Raises `StartFailure`."""
        for index in range(1, self._place.size):
            place = Place(self._place.group, index, self._place.size)
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", RUN, *sys.argv[1:], "--place", place.text()),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            )
        for process in self._processes:
            if process.stdout is None or await process.stdout.readline() != LOADED:
                raise StartFailure(
                    FailureReason.ENGINE_UNAVAILABLE,
                    f"one of {self._place.size} processes did not start; see above why, or serve "
                    "with --workers 1",
                )

    def go(self, lost: Callable[[], None]) -> None:
        """Let them listen; `lost` is called when one ends that was not asked to."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.write(GO)
            self._watching.append(asyncio.ensure_future(self._watch(process, lost)))

    async def _watch(self, process: asyncio.subprocess.Process, lost: Callable[[], None]) -> None:
        status = await process.wait()
        if not self._stopping:
            log.error("process %d ended with status %d; all end with it", process.pid, status)
            lost()

    def stop(self) -> None:
        """Ask them to drain."""
        self._stopping = True
        for process in self._processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)

    async def ended(self, seconds: float) -> None:
        """Wait until they have ended; those that have not in so many seconds are killed."""
        waits = [asyncio.ensure_future(process.wait()) for process in self._processes]
        if waits:
            await asyncio.wait(waits, timeout=seconds)
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


class FirstProcess:
    """The first process, as the others see it: at the other ends of stdin and stdout."""

    def __init__(self) -> None:
        self._told = asyncio.StreamReader()

    async def lets_go(self) -> bool:
        """Tell it that the model is loaded; whether it lets this process listen."""
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._told), sys.stdin)
        sys.stdout.buffer.write(LOADED)
        sys.stdout.buffer.flush()
        return await self._told.readline() == GO

    async def gone(self) -> None:
        """Return when there is nobody any more who could stop this process."""
        await self._told.read()


class SharedCounts:
    """Tells the other processes what this one has counted, and asks them."""

    def __init__(self, place: Place, counts: Callable[[], Counts]) -> None:
        self._place = place
        self._counts = counts
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Answer the others' questions from now on."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self._place.address(self._place.index))
        self._server = await asyncio.start_unix_server(self._answer, sock=listener)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(msgspec.msgpack.encode(self._counts()))
        writer.close()

    async def others(self) -> list[Counts]:
        """What all others have counted; raises `OSError` where one does not answer (in time)."""
        async with asyncio.timeout(ASKING_SECONDS):
            others = (index for index in range(self._place.size) if index != self._place.index)
            return list(await asyncio.gather(*map(self._ask, others)))

    async def _ask(self, index: int) -> Counts:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._place.address(index))  # done, or refused, at once
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        try:
            return decode_counts(await reader.read(-1))
        finally:
            writer.close()


def group_name() -> str:
    """Tells the processes of this server from those of others on this machine."""
    return f"{os.getpid()}-{os.urandom(4).hex()}"
