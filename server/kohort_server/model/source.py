"""Getting a model's file onto this machine: where from, how large, and whether it is the right one."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, BinaryIO
from urllib.parse import unquote, urlsplit

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure

CHUNK = 1 << 20  # bytes
MAX_MODEL_BYTES = 32 << 30
MAX_REDIRECTS = 5
SOCKET_TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Received = Callable[[int, int | None], None]
"""Hears of bytes that have come, and of how many there will be where that is announced."""


def unheard(received: int, announced: int | None) -> None:
    """Hears nothing."""


def fetch(
    uri: str,
    digest: str | None,
    cache: Path,
    max_bytes: int = MAX_MODEL_BYTES,
    received: Received = unheard,
) -> Path:
    """The path of the model's verified file; downloads go to `cache`, files are used in place.

    Raises `StartFailure` with ModelNotFound, DownloadFailed, DigestMismatch or ModelInvalid.
    """
    if digest is not None and not DIGEST.fullmatch(digest):
        raise StartFailure(
            FailureReason.DIGEST_MISMATCH,
            f"the digest {digest!r} is not of the form sha256: and 64 hexadecimal digits",
        )
    scheme = urlsplit(uri).scheme
    if scheme == "file":
        path = local_file(uri)
        verify_digest(uri, digest, digest_of(path) if digest else None)
        return path
    if scheme in ("http", "https"):
        return download(uri, digest, cache, max_bytes, received)
    raise StartFailure(
        FailureReason.MODEL_NOT_FOUND,
        f"the model URI {uri!r} has the scheme {scheme!r}; use file://, http:// or https://",
    )


def local_file(uri: str) -> Path:
    """The existing file that a file:// URI names."""
    parts = urlsplit(uri)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost"):
        raise StartFailure(
            FailureReason.MODEL_NOT_FOUND,
            f"{uri} names the host {parts.netloc!r}; write file:// with three slashes",
        )
    if not path.is_file():
        raise StartFailure(
            FailureReason.MODEL_NOT_FOUND,
            f"there is no file {path}; check the uri and that its volume is mounted",
        )
    return path


def digest_of(path: Path) -> str:
    """The digest of a file's content, as `sha256:…`."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def verify_digest(uri: str, wanted: str | None, got: str | None) -> None:
    """Raise DigestMismatch when a digest is wanted and the content has another."""
    if wanted is not None and wanted != got:
        raise StartFailure(
            FailureReason.DIGEST_MISMATCH,
            f"{uri}: wanted {wanted}, got {got}; the file has changed: set model.digest to the "
            "new content if that is meant, or restore the file",
        )


def download(uri: str, digest: str | None, cache: Path, max_bytes: int, received: Received) -> Path:
    """Stream the model into the cache under its digest; one that is there already is verified."""
    if digest is not None:
        cached = cache / cache_name(digest)
        if cached.is_file() and digest_of(cached) == digest:
            return cached
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return download_once(uri, digest, cache, max_bytes, received)
        except TransientError as error:
            if attempt == ATTEMPTS:
                raise StartFailure(
                    FailureReason.DOWNLOAD_FAILED,
                    f"{uri}: {error} ({ATTEMPTS} attempts); check that the host answers from here",
                ) from error
            time.sleep(attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


class TransientError(Exception):
    """A download that may succeed when it is tried again."""


def download_once(
    uri: str, digest: str | None, cache: Path, max_bytes: int, received: Received
) -> Path:
    """One attempt: nothing appears under the final name before all of it is verified."""
    hasher = hashlib.sha256()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, prefix="download-") as partial:
            with open_uri(uri) as response:
                for chunk in checked_chunks(uri, response, max_bytes, received):
                    hasher.update(chunk)
                    partial.write(chunk)
            got = f"sha256:{hasher.hexdigest()}"
            verify_digest(uri, digest, got)
            partial.flush()
            final = cache / cache_name(got)
            final.unlink(missing_ok=True)
            os.link(partial.name, final)
            return final
    except (TimeoutError, ConnectionError, HTTPException, urllib.error.URLError) as error:
        raise TransientError(str(error) or type(error).__name__) from error
    except OSError as error:
        raise StartFailure(
            FailureReason.DOWNLOAD_FAILED,
            f"{uri}: cannot write to {cache}: {error}; give --cache-dir a writable directory with "
            "room for the model",
        ) from error


def cache_name(digest: str) -> str:
    """The name of a model in the cache."""
    return f"{digest.replace(':', '-')}.onnx"


def open_uri(uri: str) -> Any:
    """The response to a GET; raises ModelNotFound, DownloadFailed, or `TransientError`."""
    opener = urllib.request.build_opener(FewRedirects)
    try:
        request = urllib.request.Request(uri, headers={"User-Agent": "kohort-server"})  # noqa: S310 (http and https only)
        return opener.open(request, timeout=SOCKET_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise StartFailure(
                FailureReason.MODEL_NOT_FOUND,
                f"{uri}: {error.code} {error.reason}; check model.uri",
            ) from error
        if error.code in (408, 429) or error.code >= 500:
            raise TransientError(f"{error.code} {error.reason}") from error
        raise StartFailure(
            FailureReason.DOWNLOAD_FAILED,
            f"{uri}: {error.code} {error.reason}; check that the model may be read from here",
        ) from error


def checked_chunks(
    uri: str, response: BinaryIO, max_bytes: int, received: Received
) -> Iterator[bytes]:
    """The body in pieces; raises when it is larger than allowed or shorter than announced."""
    announced = response_length(response)
    total = 0
    received(total, announced)
    while chunk := response.read(CHUNK):
        total += len(chunk)
        received(total, announced)
        if total > max_bytes:
            raise StartFailure(
                FailureReason.DOWNLOAD_FAILED,
                f"{uri}: larger than the limit of {max_bytes} bytes",
            )
        yield chunk
    if announced is not None and total < announced:
        raise TransientError(f"the connection ended after {total} of {announced} bytes")


def response_length(response: Any) -> int | None:
    """The announced length of a body in bytes, if it is announced."""
    length = response.headers.get("Content-Length")
    return int(length) if length is not None and length.isdigit() else None


class FewRedirects(urllib.request.HTTPRedirectHandler):
    """Follows few redirects, and none from https to http."""

    max_redirections = MAX_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The next request, or a `StartFailure` for an insecure one."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise StartFailure(
                FailureReason.DOWNLOAD_FAILED,
                f"{req.full_url} redirects to {newurl}, which is not https; use a source that "
                "stays on https",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
