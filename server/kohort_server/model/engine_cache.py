"""Things that take long to build, kept by what they were built from: found again, or built by exactly one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.model.source import digest_of

FORMAT = 1
MANIFEST = "engine.json"


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

    def obtain(self, key: Key, build: Callable[[Path], Sequence[str]]) -> Entry:
        """The entry of this key, built where it is not there: by one process, for which others wait.

        `build` writes into an empty directory and says the names of its files. An entry that is broken, or
        not what it is called, is built again. Raises `StartFailure` with CacheUnusable for a disk that is
        full or cannot be written, and whatever `build` raises.
        """
        if entry := self.find(key):
            return entry
        try:
            with self._only_one(key):
                if entry := self.find(key):
                    return entry  # somebody else was first
                return self._build(key, build)
        except OSError as error:
            raise StartFailure(
                FailureReason.CACHE_UNUSABLE,
                f"cannot write to {self.root}: {error.strerror or error}; give --cache-dir a writable "
                "directory with room for three times the model",
            ) from error

    def _build(self, key: Key, build: Callable[[Path], Sequence[str]]) -> Entry:
        entry = self.root / key.name()
        partial = entry.with_suffix(".partial")
        # Of a builder that died, or of an entry that is not right.
        for leftover in (partial, entry):
            remove(leftover)
        partial.mkdir()
        try:
            names = build(partial)
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

    @contextmanager
    def _only_one(self, key: Key) -> Iterator[None]:
        # The lock is the kernel's: it goes with the process that holds it, however that ends.
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{key.name()}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


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
