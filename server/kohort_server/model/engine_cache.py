"""Things that take long to build, kept by what they were built from: found again, or built by exactly one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from kohort.contract import FailureReason
from kohort_server.digest import digest_of
from kohort_server.errors import StartFailure

FORMAT = 1
MANIFEST = "engine.json"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# Files that say which entries this process uses: each is locked for as long as it lives.
_IN_USE: dict[Path, IO[bytes]] = {}

Build = Callable[[Path], Sequence[str] | Mapping[str, str]]
"""Writes into an empty directory; says the names of its files, or with each its digest where it is known."""


class Key(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """All that decides what is built: equal keys, equal things."""

    model: str  # digest
    engine: str
    version: str  # of the engine's package
    precision: str
    machine: str
    recipe: str = ""  # whatever else was asked for

    def name(self) -> str:
        """The name of the entry."""
        content = msgspec.json.encode([FORMAT, self], order="sorted")
        return hashlib.sha256(content).hexdigest()[:40]


class Manifest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What an entry says of itself; it is complete where this file is."""

    format: int
    key: Key
    files: dict[str, str]  # name, digest; the first is the one to load


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was built, verified when it was found."""

    path: Path
    manifest: Manifest
    fresh: bool = False  # built just now

    @property
    def main(self) -> Path:
        """The file to load."""
        return self.path / next(iter(self.manifest.files))

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum((self.path / name).stat().st_size for name in self.manifest.files)


class Cache:
    """A directory of entries that several processes may share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: Key) -> Entry | None:
        """The entry of this key, every byte of it verified; None where there is none that is right."""
        path = self.root / key.name()
        manifest = verified(path)
        return Entry(path, manifest) if manifest is not None and manifest.key == key else None

    def obtain(self, key: Key, build: Build) -> Entry:
        """The entry of this key, built where it is not there: by one process, for which others wait.

        An entry that is broken, or not what it is called, is built again; on a full disk, once all that
        nobody uses has been removed. It stays as long as this process lives. Raises `StartFailure` with
        CacheUnusable for a disk that is full or cannot be written, and whatever `build` raises.
        """
        self._use(key)
        if entry := self.find(key):
            return entry
        try:
            with self._only_one(key):
                if entry := self.find(key):
                    return entry  # somebody else was first
                try:
                    return self._build(key, build)
                except OSError as error:
                    if error.errno not in FULL or not self.trim(0):
                        raise
                    return self._build(key, build)
        except OSError as error:
            raise StartFailure(
                FailureReason.CACHE_UNUSABLE,
                f"cannot write to {self.root}: {error.strerror or error}; give --cache-dir a writable "
                "directory with room for three times the model",
            ) from error

    def _build(self, key: Key, build: Build) -> Entry:
        entry = self.root / key.name()
        partial = entry.with_suffix(".partial")
        # Of a builder that died, or of an entry that is not right.
        for leftover in (partial, entry):
            remove(leftover)
        partial.mkdir()
        try:
            names = build(partial)
            if isinstance(names, Mapping):
                files = dict(names)
            else:
                files = {name: digest_of(partial / name) for name in names}
            manifest = Manifest(FORMAT, key, files)
            (partial / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
            for name in (*files, MANIFEST):
                flush(partial / name)
            partial.rename(entry)
            flush(self.root)
        except BaseException:
            remove(partial)
            raise
        return Entry(entry, manifest, fresh=True)

    def trim(self, room: int) -> int:
        """Remove what nobody uses, least recently used first, until all entries fit into so many bytes.

        Returns how many were removed. What a builder left that died goes in any case.
        """
        if not self.root.is_dir():
            return 0
        self._sweep()
        sizes = {path: disk_size(path) for path in self._entries()}
        excess, removed = sum(sizes.values()) - room, 0
        for path in sorted(sizes, key=last_used):
            if excess <= 0:
                break
            with unless_locked(path.with_suffix(".used")) as free:
                if free:
                    shutil.rmtree(path, ignore_errors=True)
                    excess -= sizes[path]
                    removed += 1
        return removed

    def _entries(self) -> list[Path]:
        return [path for path in self.root.iterdir() if path.is_dir() and not path.suffix]

    def _sweep(self) -> None:
        for partial in self.root.glob("*.partial"):
            with unless_locked(partial.with_suffix(".lock")) as free:
                if free:
                    shutil.rmtree(partial, ignore_errors=True)

    def _use(self, key: Key) -> None:
        """Keep others from removing an entry, before it is looked for.

        Where nothing can be written or locked, nothing is removed either.
        """
        path = self.root / f"{key.name()}.used"
        with suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)
            if path not in _IN_USE:
                used = path.open("ab")
                fcntl.flock(used, fcntl.LOCK_SH)
                _IN_USE[path] = used
            os.utime(path)

    @contextmanager
    def _only_one(self, key: Key) -> Iterator[None]:
        # The lock is the kernel's: it goes with the process that holds it, however that ends.
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{key.name()}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextmanager
def unless_locked(path: Path) -> Iterator[bool]:
    """Lock a file meanwhile; whether that is done, and nobody else has a lock on it."""
    with ExitStack() as held:
        try:
            lock = held.enter_context(path.open("ab"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:  # locked, or not to be locked
            free = False
        yield free


def last_used(entry: Path) -> tuple[float, str]:
    """When an entry was last used, as far as that is known; the earlier, the smaller."""
    for told in (entry.with_suffix(".used"), entry):
        with suppress(OSError):
            return told.stat().st_mtime, entry.name
    return 0.0, entry.name


def disk_size(entry: Path) -> int:
    """Bytes that would be free without an entry: files that have another name stay."""
    stats = [file.lstat() for file in entry.rglob("*") if not file.is_dir()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)


def verified(entry: Path) -> Manifest | None:
    """The entry's manifest, if all that it names is there and unchanged."""
    try:
        manifest = msgspec.json.decode((entry / MANIFEST).read_bytes(), type=Manifest)
        if manifest.format != FORMAT or not manifest.files:
            return None
        for name, digest in manifest.files.items():
            file = entry / name
            if not file.resolve().is_relative_to(entry.resolve()) or digest_of(file) != digest:
                return None
    except (OSError, ValueError):  # msgspec's errors are ValueErrors
        return None
    return manifest


def remove(path: Path) -> None:
    """Remove a directory or file, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """See to it that a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
