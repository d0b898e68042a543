"""HTTP with few redirects, time-outs, and credentials that stay with the host they are for."""

from __future__ import annotations

import base64
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, LocationValueError

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.source.credentials import Credentials
from kohort_server.source.interface import (
    CHUNK,
    MAX_DOCUMENT,
    ChangedError,
    TransientError,
    denied,
    failed,
    not_found,
)

MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0  # without a byte
AGENT = {"User-Agent": "kohort-server", "Accept-Encoding": "identity"}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
RETRIED = frozenset({408, 425, 429})


def shown(url: str) -> str:
    """A URL as messages may hold it: a query may be a signature, and a user a password."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def origin(url: str) -> tuple[str, str, int | None]:
    """What credentials are for: scheme, host and port."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def basic(username: str, password: str) -> str:
    """The value of a header Authorization."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def authorization(credentials: Credentials) -> str:
    """That of the keys `token`, or `username` and `password`; empty without."""
    if token := credentials.get("token"):
        return checked_header(f"Bearer {token}")
    if username := credentials.get("username"):
        return basic(username, credentials.get("password"))
    return ""


def checked_header(value: str) -> str:
    """A header's value; raises for one that would be more than that, without showing it."""
    if not value.isascii() or not value.isprintable():
        raise denied(
            "the credentials have characters that no header can hold; check the Secret of secretRef"
        )
    return value


@dataclass
class Web:
    """A client for one source."""

    authorities: str = ""  # certificates to trust beside the machine's
    _pools: dict[str, urllib3.PoolManager] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def get(
        self, url: str, headers: Mapping[str, str], authorized: str = ""
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer to a GET, whatever its status is, once no redirect is left.

        `authorized` is sent to the origin of `url` only. Raises `StartFailure` for redirects that go wrong.
        """
        asked = url
        for _ in range(MAX_REDIRECTS + 1):
            sent = {**AGENT, **headers}
            if authorized and origin(asked) == origin(url):
                sent["Authorization"] = authorized
            response = self._send(asked, sent)
            to = response.headers.get("Location")
            if response.status not in REDIRECTS or not to:
                break
            response.close()
            asked = self._next(url, asked, to)
        else:
            raise failed(
                f"{shown(url)} redirects more than {MAX_REDIRECTS} times; use the address that it leads to"
            )
        if response.status == 401 and origin(asked) != origin(url):
            response.close()  # its question who asks is not to be answered with credentials of another
            raise denied(f"{shown(url)} redirects to {shown(asked)}, which does not let us read it")
        try:
            yield response
        except HTTPError as error:
            raise TransientError(plain(error)) from None
        finally:
            response.close()  # what is not read would have to be, for the connection to be used again

    def _next(self, url: str, asked: str, to: str) -> str:
        target = urljoin(asked, to)
        scheme = urlsplit(target).scheme
        if scheme not in ("http", "https") or (
            scheme == "http" and urlsplit(asked).scheme == "https"
        ):
            raise failed(
                f"{shown(url)} redirects to {shown(target)}, which is not https; use a source that "
                "stays on https"
            )
        return target

    def _send(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool(url).request(
                "GET",
                url,
                headers=headers,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=SILENT_SECONDS),
            )
        except (LocationParseError, LocationValueError) as error:
            raise failed(
                f"{shown(url)} is not an address: {plain(error)}; check model.uri"
            ) from None
        except HTTPError as error:
            raise TransientError(plain(error)) from None

    def _pool(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        if proxy and proxy_bypass(parts.netloc):
            proxy = ""
        with self._lock:
            if proxy not in self._pools:
                context = ssl.create_default_context()
                if self.authorities:
                    context.load_verify_locations(cadata=self.authorities)
                # As many connections as parts are asked for at once.
                self._pools[proxy] = (
                    urllib3.ProxyManager(proxy, maxsize=8, ssl_context=context)
                    if proxy
                    else urllib3.PoolManager(maxsize=8, ssl_context=context)
                )
            return self._pools[proxy]

    def document(self, url: str, headers: Mapping[str, str], authorized: str = "") -> bytes:
        """The whole body of a small answer; raises for a status that is not 200."""
        with self.get(url, headers, authorized) as response:
            refuse(response, url)
            found = b"".join(pieces(response, MAX_DOCUMENT + 1))
        if len(found) > MAX_DOCUMENT:
            raise failed(f"{shown(url)}: the answer is larger than {MAX_DOCUMENT} bytes")
        return found


def pieces(response: urllib3.BaseHTTPResponse, most: int | None = None) -> Iterator[bytes]:
    """The body, as far as `most` bytes of it; one that ends too early raises `TransientError`."""
    while most is None or most > 0:
        # What is there already, so that the pace of a slow sender can be seen.
        piece = response.read1(CHUNK if most is None else min(CHUNK, most))
        if not piece:
            return
        if most is not None:
            most -= len(piece)
        yield piece


def refuse(response: urllib3.BaseHTTPResponse, url: str, *, partial: bool = False) -> None:
    """Raise what a status means that is no success; `partial`: of a request for a part."""
    status = response.status
    if status in ((200, 206) if partial else (200,)):
        return
    told = f"{shown(url)}: {status} {response.reason or ''}".rstrip()
    if status in (404, 410):
        raise not_found(f"{told}; check model.uri")
    if status in (401, 403):
        raise denied(f"{told}; check that the model may be read from here, and model.secretRef")
    if status == 412:
        raise ChangedError("it was changed while it was downloaded")
    if status in RETRIED or status >= 500:
        raise TransientError(f"{status} {response.reason or ''}".rstrip())
    raise StartFailure(
        FailureReason.DOWNLOAD_FAILED, f"{told}; check that the model may be read from here"
    )


def plain(error: Exception) -> str:
    """An error of urllib3 in words, without the objects that it names and without any query."""
    text = " ".join(str(error).split())
    text = re.sub(r"<[^>]*>: |HTTPS?Connection(Pool)?\([^)]*\): ", "", text)
    text = re.sub(r"\?[^\s)'\"]*", "", text)
    return text[:300] or type(error).__name__


def decoded(where: str, body: bytes, kind: Any) -> Any:
    """A JSON document; raises for what is none, such as the page of a proxy."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        begin = " ".join(body[:60].decode(errors="replace").split())
        raise failed(
            f"{shown(where)}: the answer is not what this service answers ({error}); it begins with {begin!r}"
        ) from None
