"""One file, streamed: several parts at once where the source has them, hashed in order, resumed."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.source.interface import (
    CHUNK,
    RemoteFile,
    Source,
    TransientError,
    failed,
)

Heard = Callable[[int], None]
"""Hears how many bytes more of a file are there."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a download may take. Sizes in bytes, times in seconds."""

    size: int = 32 << 30  # of all files together
    part: int = 2 << 20  # of a file that is asked for at once
    parts: int = 4  # on their way at the same time; as many again wait for their turn to be hashed
    least_speed: int = 10_000  # bytes per second, over
    slow_seconds: float = 30.0
    attempts: int = 3  # in a row that got nothing
    pause: float = 1.0  # after the first of them; longer after each
    spare: int = 64 << 20  # that stay free on the disk


USUAL = Bounds()


class Pace:
    """Notices a sender that is too slow to be waited for."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds = bounds
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._received = 0

    def add(self, size: int) -> None:
        """So many bytes have come."""
        with self._lock:
            self._received += size

    def check(self) -> None:
        """Raise `TransientError` where too little has come for too long."""
        with self._lock:
            spent = self._clock() - self._since
            if spent < self._bounds.slow_seconds:
                return
            if self._received < self._bounds.least_speed * spent:
                raise TransientError(
                    f"only {self._received:,} bytes came in {spent:.0f} s, less than "
                    f"{self._bounds.least_speed:,} a second"
                )
            self._since, self._received = self._clock(), 0


class Hashes:
    """The digests of what goes through, in a thread of its own: hashing takes as long as writing."""

    def __init__(self, *names: str) -> None:
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hashing")
        self._last: Future[None] | None = None

    def __enter__(self) -> Hashes:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def update(self, piece: bytes | bytearray) -> None:
        """The next piece, which nobody may change; at most one other is still being hashed after this."""
        self._wait()
        self._last = self._thread.submit(self._take, piece)

    def _take(self, piece: bytes | bytearray) -> None:
        for one in self._hashes.values():
            one.update(piece)

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()

    def digest(self, name: str) -> str:
        """A digest as `NAME:…`."""
        self._wait()
        return f"{name}:{self._hashes[name].hexdigest()}"


def transfer(source: Source, file: RemoteFile, target: Path, bounds: Bounds, heard: Heard) -> str:
    """The file's content in `target`; returns its digest as `sha256:…`.

    What `target` holds already is taken for the beginning of the same content. Raises as `Source` does,
    and `StartFailure` with DigestMismatch where the content has not the digest that the source tells.
    """
    try:
        return transferred(source, file, target, bounds, heard)
    except BaseException:
        if not resumable(file):
            target.unlink(missing_ok=True)
        raise


def transferred(
    source: Source, file: RemoteFile, target: Path, bounds: Bounds, heard: Heard
) -> str:
    """See `transfer`, which this is a part of."""
    algorithm = file.digest.partition(":")[0] or "sha256"
    with Hashes(*{"sha256", algorithm}) as hashes, target.open("a+b") as written:
        begun = resumed(written, file, hashes)
        heard(begun)
        pace = Pace(bounds)
        got = begun
        with_parts = file.ranges and file.size is not None and file.size - begun > bounds.part
        receive = in_parts if with_parts else in_one
        if begun != file.size:
            for piece in receive(source, file, begun, bounds, pace):
                got += len(piece)
                if got > (bounds.size if file.size is None else file.size):
                    raise too_large(file, bounds)
                if file.size is None:
                    check_room(target, bounds.spare)
                hashes.update(piece)
                written.write(piece)
                heard(len(piece))
        if file.size is not None and got < file.size:
            raise TransientError(f"the connection ended after {got} of {file.size} bytes")
        told = hashes.digest(algorithm)
        if file.digest and told != file.digest:
            written.truncate(0)
            raise StartFailure(
                FailureReason.DIGEST_MISMATCH,
                f"{file.name or 'the file'} should be {file.digest} and is {told}: what the source holds is "
                "not what was published there; publish the model again",
            )
        return hashes.digest("sha256")


def too_large(file: RemoteFile, bounds: Bounds) -> StartFailure:
    """More came than may."""
    if file.size is not None:
        return failed(f"more came than the {file.size} bytes that were announced; publish it again")
    return failed(f"it is larger than the limit of {bounds.size} bytes")


def resumable(file: RemoteFile) -> bool:
    """Whether a download that broke off can go on.

    Without a version or a digest nobody knows whether it is the same content; without parts it comes
    whole again.
    """
    return bool(file.version or file.digest) and file.ranges and file.size is not None


def resumed(written: BinaryIO, file: RemoteFile, hashes: Hashes) -> int:
    """How much is there already and goes on from there; it is hashed."""
    size = written.seek(0, os.SEEK_END)
    if not resumable(file) or size > (file.size or 0):
        written.truncate(0)
        return 0
    written.seek(0)
    while piece := written.read(CHUNK):
        hashes.update(piece)
    return size


def in_one(
    source: Source, file: RemoteFile, start: int, bounds: Bounds, pace: Pace
) -> Iterator[bytes]:
    """The rest of the file in one stream."""
    with source.open(file, start, file.size if file.ranges else None) as stream:
        for piece in stream:
            pace.add(len(piece))
            pace.check()
            yield piece


def in_parts(
    source: Source, file: RemoteFile, start: int, bounds: Bounds, pace: Pace
) -> Iterator[bytearray]:
    """The rest of the file in order, several parts at once; memory: twice `parts` of them at most."""
    size = file.size or 0
    stop = threading.Event()

    def received(begin: int) -> bytearray:
        end = min(begin + bounds.part, size)
        content = bytearray(end - begin)
        filled = 0
        with source.open(file, begin, end) as stream:
            for piece in stream:
                if stop.is_set():
                    raise TransientError("another part failed")
                if filled + len(piece) > len(content):
                    raise failed(f"more came than the {len(content)} bytes that were asked for")
                content[filled : filled + len(piece)] = piece
                filled += len(piece)
                pace.add(len(piece))
        if filled < len(content):
            raise TransientError(f"the connection ended after {begin + filled} of {size} bytes")
        return content

    pool = ThreadPoolExecutor(bounds.parts, thread_name_prefix="download")
    waiting: deque[Future[bytearray]] = deque()
    begins = iter(range(start, size, bounds.part))
    try:
        while True:
            while len(waiting) < 2 * bounds.parts - 1 and (begin := next(begins, None)) is not None:
                waiting.append(pool.submit(received, begin))
            if not waiting:
                return
            yield awaited(waiting.popleft(), pace)
    finally:
        stop.set()
        # A part that hears nothing ends by its own time-out.
        pool.shutdown(wait=False, cancel_futures=True)


def awaited(part: Future[bytearray], pace: Pace) -> bytearray:
    """The part, unless it takes too long."""
    while True:
        try:
            return part.result(timeout=1.0)
        except NotYet:
            if part.done():
                raise TransientError("it took too long") from None  # the part's own time-out
            pace.check()


def check_room(target: Path, spare: int, needed: int = 0) -> None:
    """Raise `StartFailure` with CacheUnusable where the disk has no room for so many bytes more."""
    free = shutil.disk_usage(target.parent).free
    if free < needed + spare:
        raise StartFailure(
            FailureReason.CACHE_UNUSABLE,
            f"{needed >> 20:,} MiB more do not fit: {target.parent} has {free >> 20:,} MiB free, of which "
            f"{spare >> 20} stay free; give --cache-dir a volume with room for the model",
        )
