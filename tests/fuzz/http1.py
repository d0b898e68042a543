"""HTTP/1.1 requests, good and otherwise."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.fuzz.tensors import Tensor, as_json, damage, dump, misplace

LENGTH = b"Inference-Header-Content-Length"
BOMB = zlib.compress(bytes(4 << 20), 9)


@dataclass
class Request:
    """A request in its parts."""

    method: bytes
    target: bytes
    version: bytes = b"HTTP/1.1"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes | None = None
    chunk: int = 0  # bytes of each chunk; 0 for an announced length

    def encode(self) -> bytes:
        """As it is sent."""
        lines = [b"%b %b %b\r\n" % (self.method, self.target, self.version)]
        lines += [b"%b: %b\r\n" % pair for pair in self.headers]
        if self.body is None:
            return b"".join(lines) + b"\r\n"
        if not self.chunk:
            lines.append(b"Content-Length: %d\r\n\r\n%b" % (len(self.body), self.body))
            return b"".join(lines)
        lines.append(b"Transfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(self.body), self.chunk):
            piece = self.body[at : at + self.chunk]
            lines.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        return b"".join(lines) + b"0\r\n\r\n"


def good(model: str, inputs: list[Tensor], random: Random, identity: str) -> bytes:
    """A request that must be answered with its inputs."""
    return infer(model, *as_json(inputs, random, identity, binary=True), random).encode()


def infer(model: str, told: object, tail: bytes, random: Random) -> Request:
    """An inference of this JSON with these tensors after it."""
    header = dump(told)
    request = Request(b"POST", b"/v2/models/%b/infer" % model.encode(), body=header + tail)
    request.headers = [(b"Host", b"h"), (LENGTH, b"%d" % len(header))]
    if random.random() < 0.2:
        request.chunk = random.choice((1, 10, 500))
    return request


def bad(model: str, inputs: list[Tensor], random: Random) -> bytes:
    """A request with something wrong in it, mostly."""
    told, tail = as_json(inputs, random, random.choice(("", "é", "7")), random.random() < 0.5)
    kind = random.random()
    if kind < 0.45:
        for _ in range(random.choice((1, 1, 2, 4))):
            told = misplace(told, random)
    request = infer(model, told, tail, random)
    if not tail and random.random() < 0.7:
        request.headers = request.headers[:1]
    if kind > 0.4:
        for _ in range(random.choice((1, 1, 2))):
            random.choice(CHANGES)(request, random)
    sent = request.encode()
    if random.random() < 0.3:
        sent = damage(sent, random)
    return sent


def change_target(request: Request, random: Random) -> None:
    """Another path, mostly with its method."""
    method, paths = random.choice(
        (
            (b"GET", (b"", b"/ready", b"/config", b"/stats", b"/versions/1", b"/versions/9/ready")),
            (b"POST", (b"/versions/1/infer", b"/infer/", b"/infer?a=b", b"//infer", b"/%69nfer")),
        )
    )
    base = request.target.removesuffix(b"/infer")
    others: tuple[bytes, ...] = (
        b"/",
        b"*",
        b"/v2",
        b"/v2/health/live",
        b"/v2/health/ready",
        b"/v2/models/stats",
    )
    others += (b"/metrics", b"/v2/repository/index", b"http://h/v2", b"http://[/v2", b"/\xff\xfe")
    others += (b"/" + b"a" * 5000, b"/%zz%", b"/v2/repository/models/one/load", b"//h:x/")
    places = [base + path for path in paths]
    request.target = random.choice(places if random.random() < 0.5 else others)
    request.method = method
    if method == b"GET" and random.random() < 0.8:
        request.body = None


def change_method(request: Request, random: Random) -> None:
    """Another method."""
    methods = (b"GET", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"post", b"NONSENSE")
    request.method = random.choice(methods)


def change_header_length(request: Request, random: Random) -> None:
    """Another length of the JSON."""
    size = len(request.body or b"")
    told: tuple[bytes, ...] = (
        b"0",
        b"-1",
        b"1",
        b"%d" % size,
        b"%d" % (size + 1),
        b"1e3",
        b"",
        b" 7 ",
        b"\xb2",
    )
    told += (b"9" * 30, b"9" * 5000, b"0x10", b"%d" % random.randrange(size + 1))
    request.headers = [pair for pair in request.headers if pair[0] != LENGTH]
    if random.random() < 0.9:
        request.headers.append((LENGTH, random.choice(told)))


def change_length(request: Request, random: Random) -> None:
    """Another length of the body, or one more."""
    size = len(request.body or b"")
    wrong = (b"%d" % (size + 1), b"%d" % max(0, size - 1), b"-1", b"+5", b"0x5", b"", b"9" * 30)
    request.headers.append((b"Content-Length", random.choice((*wrong, b"5, 5", b"70000"))))
    if random.random() < 0.7:
        request.headers.append((b"X", b"\r\n\r\n" + (request.body or b"")))
        request.body = None


def change_framing(request: Request, random: Random) -> None:
    """Another transfer encoding, or both."""
    told = (b"chunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"", b"xchunked")
    request.headers.append((b"Transfer-Encoding", random.choice(told)))


def change_encoding(request: Request, random: Random) -> None:
    """A compressed body, or what is said to be one."""
    body = request.body or b""
    name, packed = random.choice(
        (
            (b"gzip", gzip.compress(body, 1)),
            (b"deflate", zlib.compress(body, 1)),
            (b"gzip", gzip.compress(body, 1)[:-5]),
            (b"deflate", BOMB),
            (b"gzip", body),
            (b"br", body),
            (b"\xff", body),
            (b"", body),
        )
    )
    request.headers.append((b"Content-Encoding", name))
    request.body = packed


def change_connection(request: Request, random: Random) -> None:
    """Other wishes for the connection."""
    request.headers += random.choice(
        (
            [(b"Connection", b"close")],
            [(b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", b"h2c")],
            [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")],
            [(b"Expect", b"100-continue")],
            [(b"Expect", b"\xff")],
            [(b"x-kohort-cohort", random.randbytes(3).hex().encode())],
            [(b"x-kohort-cohort", b'"\\\xff')],
            [(b"x-kohort-revision", b"r")],
        )
    )


def change_headers(request: Request, random: Random) -> None:
    """Headers that are many, long or malformed."""
    request.headers += random.choice(
        (
            [(b"X-%d" % number, b"y") for number in range(300)],
            [(b"X", b"y" * 20_000)],
            [(b"", b"")],
            [(b"Bad Name", b"1")],
            [(b"X", b"a\r\n folded")],
            [(b"X", b"nul\0")],
            [(b"X\0", b"1")],
            [(b"X", b"lone\rreturn")],
            [(b"\xff", b"\xff")],
        )
    )


def change_version(request: Request, random: Random) -> None:
    """Another version."""
    versions = (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"", b"HTTPS/1.1", b"HTTP/1.1 ")
    request.version = random.choice(versions)


CHANGES: tuple[Callable[[Request, Random], None], ...] = (
    change_target,
    change_target,
    change_method,
    change_header_length,
    change_header_length,
    change_length,
    change_framing,
    change_encoding,
    change_encoding,
    change_connection,
    change_headers,
    change_version,
)
