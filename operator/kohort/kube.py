"""The connection to the API server: bytes in and out, time-outs on every call, watches as lines.

A generic client library would cost the operator 20 MB and twice the CPU per call, and decode into
models that nobody here reads.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import msgspec
import msgspec.yaml

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

CONNECT_SECONDS = 5.0
CALL_SECONDS = 15.0
# Bookmarks come about once a minute: a watch that says less than this is dead.
WATCH_SILENCE_SECONDS = 90.0
LARGEST_LINE = 4 * 1024 * 1024
TOKEN_SECONDS = 60.0
LONGEST_RETRY_AFTER = 60.0


class ApiError(Exception):
    """An answer of the API server that is no success; ``status`` 0 is no answer at all.

    ``retry_after``: seconds that the server wants to be left alone for.
    """

    def __init__(
        self, status: int, reason: str, message: str, call: str, retry_after: float = 0.0
    ) -> None:
        super().__init__(f"{call}: {status} {reason}: {message}")
        self.retry_after = retry_after
        self.status = status
        self.reason = reason
        self.message = message


class _Failure(msgspec.Struct):
    """The parts of a metav1.Status that are told on."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Server:
    """Where an API server is and how to be believed by it; certificates and key as PEM."""

    url: str
    ca: str = ""
    certificate: str = ""
    key: str = field(default="", repr=False)
    token_path: Path | None = None
    token: str = field(default="", repr=False)

    def tls(self) -> ssl.SSLContext:
        """A context that trusts this server alone."""
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.certificate:
            # OpenSSL reads keys from files alone; this one is gone again at once.
            with tempfile.NamedTemporaryFile(prefix="kohort-") as file:
                file.write(f"{self.certificate}\n{self.key}".encode())
                file.flush()
                context.load_cert_chain(file.name)
        return context

    def bearer(self) -> str:
        """The token to send, read anew: the kubelet rotates the file."""
        return self.token_path.read_text().strip() if self.token_path else self.token


def in_cluster(directory: Path, environ: Mapping[str, str] = os.environ) -> Server:
    """The server that a pod's service account is for.

    Raises:
        FileNotFoundError, KeyError: this is not a pod, or its token is not mounted.
    """
    host = environ["KUBERNETES_SERVICE_HOST"]
    host = f"[{host}]" if ":" in host else host
    token = directory / "token"
    if not token.exists():
        raise FileNotFoundError(f"no token in {directory}: set automountServiceAccountToken: true")
    return Server(
        url=f"https://{host}:{environ['KUBERNETES_SERVICE_PORT']}",
        ca=(directory / "ca.crt").read_text(),
        token_path=token,
    )


def from_kubeconfig(path: Path) -> Server:
    """The server of a kubeconfig's current context.

    Raises:
        OSError: a file that it names cannot be read.
        ValueError: the file names no such context, or a way to authenticate other than
            certificates and tokens.
    """
    config: Any = msgspec.yaml.decode(path.read_bytes())

    def named(kind: str, name: str) -> dict[str, Any]:
        for entry in config.get(f"{kind}s") or ():
            if entry.get("name") == name:
                found: dict[str, Any] = entry.get(kind) or {}
                return found
        raise ValueError(f"{path} has no {kind} {name!r}; check current-context")

    context = named("context", str(config.get("current-context")))
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
    if "exec" in user or "auth-provider" in user:
        raise ValueError(f"{path}: exec and auth-provider are not supported; use a token instead")

    def pem(source: dict[str, Any], name: str) -> str:
        if f"{name}-data" in source:
            return base64.b64decode(source[f"{name}-data"]).decode()
        return (path.parent / source[name]).read_text() if name in source else ""

    return Server(
        url=cluster["server"].rstrip("/"),
        ca=pem(cluster, "certificate-authority"),
        certificate=pem(user, "client-certificate"),
        key=pem(user, "client-key"),
        token=user.get("token", ""),
        token_path=Path(user["tokenFile"]) if "tokenFile" in user else None,
    )


def resource_of(path: str) -> str:
    """The resource of an API path, with its subresource: ``modeldeployments/status``."""
    _, root, *rest = path.split("/")
    rest = rest[1:] if root == "api" else rest[2:]  # version; group and version
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join([*rest[:1], *rest[2:3]])


class Calls(Protocol):
    """What those need who only call."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        """The body of a successful answer.

        Raises:
            ApiError: any other answer, or none in time.
        """


class Fenced:
    """Calls that are not made unless ``allowed`` says at that very moment that they may be."""

    def __init__(self, kube: Calls, allowed: Callable[[], bool]) -> None:
        self._kube = kube
        self._allowed = allowed

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        """As :meth:`Calls.call`; without permission it is an ``ApiError`` without an answer."""
        if not self._allowed():
            raise ApiError(0, "NotAllowed", "another process may lead by now", path)
        return await self._kube.call(
            method, path, params=params, body=body, content_type=content_type
        )


class Kube:
    """Calls to one API server over one pool of connections.

    ``on_call`` hears of every call: verb, resource, status (0: no answer). ``silent``: whether the
    last one got no answer.
    """

    def __init__(
        self, server: Server, on_call: Callable[[str, str, int], None] | None = None
    ) -> None:
        self.server = server
        self._on_call = on_call or (lambda verb, resource, status: None)
        self._tls = server.tls() if server.url.startswith("https:") else False
        self._session: aiohttp.ClientSession | None = None
        self._token = ("", -TOKEN_SECONDS)
        self.silent = False
        self._back = asyncio.Event()

    async def __aenter__(self) -> Kube:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS, connect=CONNECT_SECONDS),
            headers={"User-Agent": "kohort-operator", "Accept": JSON},
            read_bufsize=256 * 1024,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        """The body of a successful answer.

        Raises:
            ApiError: any other answer, or none in time.
        """
        try:
            async with self._open().request(
                method,
                self.server.url + path,
                params=params,
                data=None if body is None else msgspec.json.encode(body),
                headers=self._headers(content_type if body is not None else None),
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._ended(method, path, 0)
            raise ApiError(0, "Unreachable", str(error) or "no answer in time", path) from error
        self._ended(method, path, answer.status)
        if answer.status >= 300:
            raise _api_error(answer, content, f"{method} {path}")
        return content

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The lines of a watch until the server ends it or falls silent.

        Raises:
            ApiError: the watch was refused or broken.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=WATCH_SILENCE_SECONDS
        )
        try:
            async with self._open().get(
                self.server.url + path,
                params={**params, "watch": "1", "allowWatchBookmarks": "true"},
                headers=self._headers(None),
                timeout=timeout,
            ) as answer:
                self._ended("WATCH", path, answer.status)
                if answer.status >= 300:
                    raise _api_error(answer, await answer.read(), f"WATCH {path}")
                async for line in _lines(answer.content):
                    yield line
        except TimeoutError:
            return  # silence: the next watch goes on from the same place
        except aiohttp.ClientConnectorError as error:
            self._ended("WATCH", path, 0)
            raise ApiError(0, "Unreachable", str(error), f"WATCH {path}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiError(0, "Unreachable", str(error), f"WATCH {path}") from error

    async def back(self) -> None:
        """Returns when the server answers a call, whatever it says, after it did not answer the last."""
        await self._back.wait()

    async def pause(self, seconds: float) -> None:
        """Waits for so long, but no longer than until the server is back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.back()

    def _ended(self, verb: str, path: str, status: int) -> None:
        self._on_call(verb, resource_of(path), status)
        if self.silent and status:
            self._back.set()  # wakes all who wait now
            self._back.clear()
        self.silent = not status

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use Kube as an async context manager")
        return self._session

    def _headers(self, content_type: str | None) -> dict[str, str]:
        headers = {"Content-Type": content_type} if content_type else {}
        now = asyncio.get_running_loop().time()
        if now - self._token[1] >= TOKEN_SECONDS:
            self._token = (self.server.bearer(), now)
        if self._token[0]:
            headers["Authorization"] = f"Bearer {self._token[0]}"
        return headers


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of a stream, each up to LARGEST_LINE."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
        if len(rest) > LARGEST_LINE:
            raise aiohttp.ClientPayloadError("a watch event is too large")


def _api_error(answer: aiohttp.ClientResponse, content: bytes, call: str) -> ApiError:
    try:
        told = msgspec.json.decode(content, type=_Failure)
    except msgspec.MsgspecError:
        told = _Failure(message=content[:200].decode(errors="replace"))
    wait = retry_after(answer.headers.get("Retry-After", ""))
    return ApiError(answer.status, told.reason, told.message, call, wait)


def retry_after(header: str) -> float:
    """Seconds that a Retry-After header asks for, within reason; 0 when it names none."""
    return min(float(header), LONGEST_RETRY_AFTER) if header.isdecimal() else 0.0
