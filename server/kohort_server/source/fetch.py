"""Getting a model's files: found in the cache by their digest, or fetched into it, verified, whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kohort.contract import FailureReason
from kohort_server.digest import DIGEST, digest_of, digest_of_tree
from kohort_server.errors import StartFailure
from kohort_server.model.engine_cache import MANIFEST, Cache, Entry, Key, remove
from kohort_server.source.credentials import Credentials
from kohort_server.source.downloads import Directory, held, part_name, size_of
from kohort_server.source.http import HttpSource
from kohort_server.source.interface import (
    CHUNK,
    ChangedError,
    Listing,
    Source,
    TransientError,
    failed,
    not_found,
    safe_files,
)
from kohort_server.source.transfer import USUAL, Bounds, check_room, transfer
from kohort_server.source.web import shown

Received = Callable[[int, int | None], None]
"""Hears of bytes that are there, and of how many there will be where that is announced."""

FILES = "files"  # in an entry of the cache
ALONE = "model.onnx"  # what a file is called there that has no name of its own
ROOM = 20 << 30  # bytes that models may take in the cache, beside those that are in use


def unheard(received: int, announced: int | None) -> None:
    """Hears nothing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model, or samples: where they are, what they must be, and who asks."""

    uri: str
    digest: str | None = None
    credentials: Credentials = field(default_factory=Credentials)
    endpoint: str = ""  # of the service, where the URI does not tell it
    region: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is there now. `path`: the file to load; others lie beside it. `size`: bytes of all."""

    path: Path
    digest: str
    size: int
    pinned: str  # a URI that stands for the same content for ever, as far as the source has such a thing


def http(wanted: Wanted) -> Source:
    """A file over HTTP."""
    return HttpSource(wanted.uri, wanted.credentials)


def s3(wanted: Wanted) -> Source:
    """Objects of S3."""
    # What few need is loaded when it is needed.
    from kohort_server.source.s3 import S3Source

    return S3Source(wanted.uri, wanted.credentials, wanted.endpoint, wanted.region)


def oci(wanted: Wanted) -> Source:
    """Files of an artefact in a registry."""
    from kohort_server.source.oci import OciSource

    return OciSource(wanted.uri, wanted.credentials, wanted.endpoint)


def mlflow(wanted: Wanted) -> Source:
    """Files that were logged for a model of a registry."""
    from kohort_server.source.mlflow import MlflowSource

    return MlflowSource(wanted.uri, wanted.credentials, wanted.endpoint, wanted.region)


SOURCES: Mapping[str, Callable[[Wanted], Source]] = {
    "http": http,
    "https": http,
    "s3": s3,
    "oci": oci,
    "mlflow": mlflow,
}


def fetch(
    wanted: Wanted,
    cache: Path,
    room: int = ROOM,
    received: Received = unheard,
    bounds: Bounds = USUAL,
) -> Fetched:
    """The verified files; what is downloaded goes to `cache`, and local files are used in place.

    Raises `StartFailure` with ModelNotFound, AccessDenied, DownloadFailed, DigestMismatch, ModelInvalid or
    CacheUnusable.
    """
    if wanted.digest is not None and not DIGEST.fullmatch(wanted.digest):
        raise StartFailure(
            FailureReason.DIGEST_MISMATCH,
            f"the digest {wanted.digest!r} is not of the form sha256: and 64 hexadecimal digits",
        )
    scheme = urlsplit(wanted.uri).scheme
    if scheme == "file":
        return local(wanted)
    if scheme not in SOURCES:
        raise not_found(
            f"the model URI {wanted.uri!r} has the scheme {scheme!r}; use one of file, "
            f"{', '.join(SOURCES)}"
        )
    return Download(wanted, SOURCES[scheme](wanted), cache, received, bounds).fetched(room)


def local(wanted: Wanted, told: bool = False) -> Fetched:
    """The existing file that a file:// URI names, or the model in the directory that it names.

    Its digest is told where one is wanted, or where it shall be `told`: that takes as long as reading it.
    """
    uri = wanted.uri
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise not_found(f"{uri} names the host {parts.netloc!r}; write file:// with three slashes")
    path = Path(unquote(parts.path))
    if path.is_dir():
        files = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
        path /= main_file(uri, list(files))
    elif path.is_file():
        files = {"": path}
    else:
        raise not_found(f"there is no file {path}; check the uri and that its volume is mounted")
    digest = ""
    if wanted.digest or told:
        digest = digest_of_tree({name: digest_of(file) for name, file in files.items()})
        verify(uri, wanted.digest, digest)
    return Fetched(path, digest, sum(file.stat().st_size for file in files.values()), uri)


def verify(uri: str, wanted: str | None, got: str) -> None:
    """Raise DigestMismatch when a digest is wanted and the content has another."""
    if wanted is not None and wanted != got:
        raise StartFailure(
            FailureReason.DIGEST_MISMATCH,
            f"{uri}: wanted {wanted}, got {got}; the file has changed: set model.digest to the "
            "new content if that is meant, or restore the file",
        )


def main_file(where: str, names: list[str]) -> str:
    """The file of a directory that is the model; raises where that is not clear."""
    for usual in (MANIFEST, "model.onnx"):
        if usual in names:
            return usual
    models = [name for name in names if name.endswith((".onnx", ".pt2"))]
    if len(models) == 1:
        return models[0]
    told = ", ".join(sorted(models)[:5]) if models else "none that ends with .onnx or .pt2"
    raise StartFailure(
        FailureReason.MODEL_INVALID,
        f"{where} is a directory of {len(names):,} files, and which of them is the model is not clear "
        f"({told}); call it model.onnx, or name the file itself",
    )


@dataclass
class Download:
    """One fetch of something that is not on this machine."""

    wanted: Wanted
    source: Source
    cache: Path
    received: Received
    bounds: Bounds

    def fetched(self, room: int) -> Fetched:
        """The files in the cache, fetched where they are not there."""
        store = Cache(self.cache / "models")
        # What a URI that pins its content stood for needs no source where it is here already.
        directory = Directory(self.cache / "downloads", self.wanted.uri)
        digest = self.wanted.digest or directory.recorded()
        pinned = self.wanted.uri
        if digest is not None:
            # Whoever wants the same waits for the first; nobody is asked for what is here.
            entry = store.obtain(
                content_key(digest), partial(self._download, store=store, digest=digest)
            )
        else:
            try:
                digest, pinned, entry = self._unknown(store)
            except OSError as error:
                raise StartFailure(
                    FailureReason.CACHE_UNUSABLE,
                    f"cannot write to {self.cache}: {error.strerror or error}; give --cache-dir a writable "
                    "directory with room for the model",
                ) from error
        if entry.fresh:
            store.trim(room)
        return Fetched(entry.main, digest, entry.size, pinned)

    def _unknown(self, store: Cache) -> tuple[str, str, Entry]:
        """What nobody has told the digest of: its digest, a URI that pins it, and where it is kept."""
        with Directory(self.cache / "downloads", self.wanted.uri) as directory:
            listing, digests = self._transfer(directory.path, store)
            digest = digest_of_tree(digests)
            entry = store.obtain(
                content_key(digest),
                lambda target: self._placed(target, directory, listing, digests),
            )
            directory.done()
            if listing.pinned == self.wanted.uri:
                directory.record(digest)
        return digest, listing.pinned or self.wanted.uri, entry

    def _download(self, target: Path, store: Cache, digest: str) -> Mapping[str, str]:
        with Directory(self.cache / "downloads", self.wanted.uri) as directory:
            resumed = any(directory.path.iterdir())
            while True:
                listing, digests = self._transfer(directory.path, store)
                try:
                    verify(self.wanted.uri, digest, digest_of_tree(digests))
                    break
                except StartFailure:
                    directory.done()
                    if not resumed:
                        raise
                    resumed = False  # what was there may be to blame: once more, from the beginning
                    directory.path.mkdir()
            placed = self._placed(target, directory, listing, digests)
            directory.done()
            return placed

    def _placed(
        self, target: Path, directory: Directory, listing: Listing, digests: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Move the files into an entry; their names in it and their digests, the one to load first."""
        placed: dict[str, str] = {}
        for file in listing.files:
            name = f"{FILES}/{file.name or ALONE}"
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            directory.part(file).rename(target / name)
            placed[name] = digests[file.name]
        names = [file.name for file in listing.files]
        main = ALONE if names == [""] else main_file(self.wanted.uri, names)
        first = f"{FILES}/{main}"
        return {first: placed[first], **placed}

    def _transfer(self, directory: Path, store: Cache) -> tuple[Listing, Mapping[str, str]]:
        """Every file in the directory of the download; what the source is asked, and tried again."""
        fruitless = 0
        while True:
            before = held(directory)
            try:
                return self._attempt(directory, store)
            except TransientError as error:
                changed = isinstance(error, ChangedError)
                progress = not changed and held(directory) >= before + CHUNK
                fruitless = 0 if progress else fruitless + 1
                if fruitless >= self.bounds.attempts:
                    again = f"({fruitless} attempts); check that the source answers from here"
                    if changed:
                        again = f"({fruitless} times); wait until it is published, or pin a version of it"
                    raise failed(f"{shown(self.wanted.uri)}: {error} {again}") from error
                time.sleep(self.bounds.pause * max(1, fruitless))

    def _attempt(self, directory: Path, store: Cache) -> tuple[Listing, Mapping[str, str]]:
        listing = self.source.resolve()
        uri = shown(self.wanted.uri)
        files = listing.files
        if [file.name for file in files] != [""]:
            files = safe_files(uri, files)
        names = {part_name(file) for file in files}
        for part in directory.iterdir():
            if part.name not in names:
                remove(part)  # of what it was before it was changed
        sizes = [file.size for file in files]
        announced = None if None in sizes else sum(size for size in sizes if size is not None)
        there = sum(size_of(directory / part_name(file)) for file in files)
        needed = max(0, (announced or 0) - there)
        if (announced or 0) > self.bounds.size:
            raise failed(
                f"{uri}: {announced} bytes are larger than the limit of {self.bounds.size} bytes"
            )
        try:
            check_room(directory, self.bounds.spare, needed)
        except StartFailure:
            store.trim(0)
            check_room(directory, self.bounds.spare, needed)
        total = 0

        def heard(size: int) -> None:
            nonlocal total
            total += size
            if total > self.bounds.size:
                raise failed(f"{uri}: larger than the limit of {self.bounds.size} bytes")
            self.received(total, announced)

        digests = {}
        for file in files:
            try:
                digests[file.name] = transfer(
                    self.source, file, directory / part_name(file), self.bounds, heard
                )
            except StartFailure as error:
                if error.failure.message.startswith(uri):
                    raise
                raise StartFailure(
                    error.failure.reason, f"{uri}: {error.failure.message}"
                ) from error
        return Listing(files, listing.pinned), digests


def content_key(digest: str) -> Key:
    """What files are kept by in the cache: their content alone."""
    return Key(digest, "files", "1", "", "")
