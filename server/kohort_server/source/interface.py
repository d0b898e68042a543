"""What a source of models is, and the ways in which it may fail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure

CHUNK = 1 << 20  # bytes that are read at once
MAX_FILES = 10_000  # of one model
MAX_DOCUMENT = 16 << 20  # bytes of a manifest, a listing, an answer of an API


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a source, as it was when it was listed.

    `name`: where it lies in the model's directory, with / between parts; of a model that is one file, empty.
    `size`: bytes, where they are announced. `version`: what tells one content of it from another (an ETag,
    the id of a version, a digest); empty where the source has no such thing. `digest`: what the source itself
    says of its content, as `md5:…` or `sha256:…`, which is verified. `place`: where the source finds it.
    """

    name: str
    size: int | None
    version: str = ""
    digest: str = ""
    place: str = ""
    ranges: bool = True  # whether parts of it can be asked for


@dataclass(frozen=True, slots=True)
class Listing:
    """What a URI stands for at one moment.

    `pinned`: a URI that will stand for it tomorrow too; empty where the source has no such thing.
    """

    files: tuple[RemoteFile, ...]
    pinned: str = ""


class Source(Protocol):
    """Where files come from. Raises `StartFailure`, or `TransientError` where another try may help."""

    def resolve(self) -> Listing:
        """The files, and what the URI's mutable parts (alias, branch, tag, latest) stand for now."""

    def open(
        self, file: RemoteFile, start: int, end: int | None
    ) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes from `start` up to `end`, or to the file's end, in pieces of about `CHUNK` at most.

        Raises `ChangedError` where the file is no longer what was listed.
        """


class TransientError(Exception):
    """A request that may succeed when it is made again."""


class ChangedError(TransientError):
    """The file is another one than it was when it was listed."""


def not_found(text: str) -> StartFailure:
    """There is no such model."""
    return StartFailure(FailureReason.MODEL_NOT_FOUND, text)


def failed(text: str) -> StartFailure:
    """The model cannot be had, and trying again will not help."""
    return StartFailure(FailureReason.DOWNLOAD_FAILED, text)


def denied(text: str) -> StartFailure:
    """The source does not let us read the model."""
    return StartFailure(FailureReason.ACCESS_DENIED, text)


def safe_name(where: str, name: str) -> str:
    """The name of a file in a directory; raises for one that would lie outside of it, or is odd."""
    path = PurePosixPath(name)
    if (
        not name
        or path.is_absolute()
        or str(path) != name
        or ".." in path.parts
        or "\\" in name
        or any(ord(character) < 32 for character in name)
        or len(name.encode()) > 1024
        or any(len(part.encode()) > 255 for part in path.parts)
    ):
        raise failed(
            f"{where} lists the file {name[:200]!r}, which is not a plain path inside the model's "
            "directory; publish the model again without it"
        )
    return name


def safe_files(where: str, files: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    """The files of a directory, sorted; raises for names that are unsafe, double, or within one another."""
    found: dict[str, RemoteFile] = {}
    for file in files:
        if safe_name(where, file.name) in found:
            raise failed(f"{where} lists {file.name!r} twice; publish the model again")
        found[file.name] = file
        if len(found) > MAX_FILES:
            raise failed(
                f"{where} has more than {MAX_FILES:,} files; name the model's own directory"
            )
    for name in found:
        for parent in PurePosixPath(name).parents:
            if str(parent) in found:
                raise failed(
                    f"{where} lists {str(parent)!r} as a file and as a directory; publish the model again"
                )
    if not found:
        raise not_found(f"{where} has no files; check model.uri")
    return tuple(found[name] for name in sorted(found))


DIGESTS = {"sha256": 64, "md5": 32}


def checked_digest(where: str, text: object) -> str:
    """A digest as `sha256:…` or `md5:…`; raises for anything else."""
    name, _, value = text.partition(":") if isinstance(text, str) else ("", "", "")
    if name not in DIGESTS or not re.fullmatch(rf"[0-9a-f]{{{DIGESTS[name]}}}", value):
        raise failed(
            f"{where} tells the digest {str(text)[:100]!r}, which is none that is known here"
        )
    return f"{name}:{value}"
