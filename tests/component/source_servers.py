"""Web servers that serve files well, badly, and with bad intentions."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.source.transfer import Bounds

# A test waits for no more than a second.
HASTY = Bounds(pause=0.01, slow_seconds=0.5, least_speed=1000, part=64 << 10)


@dataclass
class WebServer:
    """A web server whose answers are written by `answer`; what it was asked is on record."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    url: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # path, headers

    @contextmanager
    def running(
        self, host: str = "127.0.0.1", certificate: ssl.SSLContext | None = None
    ) -> Iterator[WebServer]:
        """While it answers, over TLS where it has a certificate."""
        mine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                mine.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                mine.answer(self)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients that go away are what is tested

        with Quiet((host, 0), Handler) as web:
            if certificate is not None:
                web.socket = certificate.wrap_socket(web.socket, server_side=True)
            threading.Thread(target=web.serve_forever, daemon=True).start()
            self.url = f"http{'s' if certificate else ''}://{host}:{web.server_address[1]}"
            yield self
            web.shutdown()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """A whole answer; underscores in names of headers are hyphens."""
    handler.send_response(status)
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in {"Content-Length": str(len(body)), **told}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def send_file(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """A file with ETag and parts, as good servers send it."""
    etag = etag_of(content)
    wanted = handler.headers.get("If-Match")
    if wanted is not None and wanted != etag:
        send(handler, 412)
        return
    part = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    if part is None:
        send(handler, 200, content, ETag=etag, Accept_Ranges="bytes")
        return
    start, end = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
    if start >= len(content):
        send(handler, 416, Content_Range=f"bytes */{len(content)}")
        return
    told = f"bytes {start}-{end}/{len(content)}"
    send(handler, 206, content[start : end + 1], ETag=etag, Content_Range=told)


@cache
def etag_of(content: bytes) -> str:
    """A strong ETag."""
    return f'"{hashlib.md5(content).hexdigest()}"'


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Bytes that never end."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while True:
        handler.wfile.write(bytes(1 << 16))


def slow(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, so that no time-out of a socket sees it."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while True:
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def sha256(content: bytes) -> str:
    """A digest as specs have it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def told(failure: StartFailure) -> tuple[FailureReason, str]:
    """The reason and the message of a start that failed."""
    return failure.failure.reason, failure.failure.message
