"""A file over HTTP: listed by asking for its first byte, read in parts where the server has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import urllib3

from kohort_server.source.credentials import Credentials
from kohort_server.source.interface import (
    ChangedError,
    Listing,
    RemoteFile,
    TransientError,
)
from kohort_server.source.web import Web, authorization, pieces, refuse

RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass
class HttpSource:
    """One file at an address."""

    uri: str
    credentials: Credentials
    web: Web = field(default_factory=Web)

    def resolve(self) -> Listing:
        """The file, with its size and ETag as far as the server tells them."""
        self.web = Web(self.credentials.authorities())
        return Listing((look(self.web, self.uri, authorization(self.credentials)),))

    @contextmanager
    def open(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Iterator[bytes]]:
        """See `Source`."""
        with read(self.web, file, start, end, authorization(self.credentials)) as body:
            yield body


def look(
    web: Web, url: str, authorized: str, headers: Mapping[str, str] | None = None, name: str = ""
) -> RemoteFile:
    """What a server tells of a file without sending it."""
    with web.get(url, {"Range": "bytes=0-0", **(headers or {})}, authorized) as response:
        if response.status == 416:  # there is no first byte
            return RemoteFile(name, 0, place=url, ranges=False)
        refuse(response, url, partial=True)
        version = validator(response)
        part = RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status == 206 and part:
            return RemoteFile(name, int(part[3]), version, place=url)
        length = response.headers.get("Content-Length", "")
        whole = response.status == 200 and length.isdigit()
        return RemoteFile(name, int(length) if whole else None, version, place=url, ranges=False)


def validator(response: urllib3.BaseHTTPResponse) -> str:
    """The strong ETag, or the time of the last change; a weak one says nothing of bytes."""
    etag = response.headers.get("ETag", "")
    return "" if etag.startswith("W/") else etag


@contextmanager
def read(
    web: Web,
    file: RemoteFile,
    start: int,
    end: int | None,
    authorized: str,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Iterator[bytes]]:
    """The bytes of a file that was looked at."""
    asked = dict(headers or {})
    ranged = file.ranges and (start > 0 or end is not None)
    if ranged:
        asked["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if file.version:
            asked["If-Match"] = file.version
    with web.get(file.place, asked, authorized) as response:
        refuse(response, file.place, partial=ranged)
        if file.version and validator(response) != file.version:
            raise ChangedError("it was changed while it was downloaded")
        if ranged and response.status != 206:
            raise TransientError("the server sends no parts of it any more")
        part = RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if ranged and not (part and (int(part[1]), int(part[3])) == (start, file.size)):
            raise ChangedError(
                "the server sends another part, or one of another file: "
                f"{response.headers.get('Content-Range', '')[:100]!r}"
            )
        yield pieces(response)
