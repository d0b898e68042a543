"""Where downloads lie until they are whole."""

from __future__ import annotations

import fcntl
import hashlib
import time
from pathlib import Path

from kohort_server.digest import DIGEST
from kohort_server.model.engine_cache import remove, unless_locked
from kohort_server.source.interface import RemoteFile

KEPT_SECONDS = 24 * 3600.0  # for a download that broke off


class Directory:
    """Where a download's parts lie until it is whole: of one process at a time, and kept for the next try."""

    def __init__(self, root: Path, uri: str) -> None:
        self.path = root / hashlib.sha256(uri.encode()).hexdigest()[:40]

    def __enter__(self) -> Directory:
        root = self.path.parent
        root.mkdir(parents=True, exist_ok=True)
        self._lock = self.path.with_suffix(".lock").open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        for other in root.glob("*.lock"):
            if time.time() - other.stat().st_mtime > KEPT_SECONDS:
                with unless_locked(other) as free:
                    if free:
                        remove(other.with_suffix(""))
        self.path.mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def record(self, digest: str) -> None:
        """Remember what a URI stands for that will never stand for anything else."""
        self.path.with_suffix(".digest").write_text(digest)

    def recorded(self) -> str | None:
        """What is remembered of it."""
        path = self.path.with_suffix(".digest")
        told = path.read_text() if path.exists() else ""
        return told if DIGEST.fullmatch(told) else None

    def part(self, file: RemoteFile) -> Path:
        """Where a file's content lies."""
        return self.path / part_name(file)

    def done(self) -> None:
        """Nothing of it is needed any more."""
        remove(self.path)


def part_name(file: RemoteFile) -> str:
    """One name for each content: what broke off is only gone on with where it is the same."""
    told = "\0".join((file.name, str(file.size), file.version, file.digest))
    return hashlib.sha256(told.encode()).hexdigest()[:40]


def held(directory: Path) -> int:
    """Bytes in a download's directory."""
    return sum(size_of(part) for part in directory.iterdir())


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
