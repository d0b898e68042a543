"""An asynchronous client of the local API server: requests, and watches that never end."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

Object = dict[str, Any]
log = logging.getLogger(__name__)

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
_RETRY_SECONDS = 0.5
_LONGEST_LINE = 4 * 2**20  # bytes: an object of the largest size etcd holds, and then some


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


# What a request raises: refused, not reached, or cut off.
RequestFailed = (ApiError, aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True)
class Relisted:
    """All objects as they are now; what is not among them is gone."""

    objects: list[Object]


@dataclass(frozen=True)
class Changed:
    """One object was added or modified, or is gone."""

    object: Object
    deleted: bool


class Client:
    """Asks the API server as one user, whose certificate is `USER.crt` and `USER.key` in `pki`."""

    def __init__(self, server: str, pki: Path, user: str) -> None:
        context = ssl.create_default_context(cafile=pki / "ca.crt")
        context.load_cert_chain(pki / f"{user}.crt", pki / f"{user}.key")
        self._session = aiohttp.ClientSession(
            server,
            connector=aiohttp.TCPConnector(ssl=context),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            read_bufsize=_LONGEST_LINE,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """Send one request and return the object answered.

        Raises:
            ApiError: the answer is not a success.
            aiohttp.ClientError, OSError, TimeoutError: there is none.
        """
        async with self._session.request(
            method,
            path,
            data=msgspec.json.encode(body) if body is not None else None,
            headers={"Content-Type": content_type},
            params=query,
            timeout=aiohttp.ClientTimeout(total=20),
        ) as response:
            content = await response.read()
            if response.status >= 300:
                raise ApiError(response.status, content[:1000].decode(errors="replace"))
            answer: Object = msgspec.json.decode(content)
            return answer

    async def watch(self, path: str, **query: str) -> AsyncIterator[Relisted | Changed]:
        """What is at a path and every change of it, for ever; lists again after any break."""
        while True:
            try:
                listed = await self.request("GET", path, query=query)
                yield Relisted(listed["items"])
                async for change in self._changes(
                    path, listed["metadata"]["resourceVersion"], query
                ):
                    yield change
            except (*RequestFailed, ValueError) as error:
                log.warning("watch of %s: %s", path, error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _changes(
        self, path: str, version: str, query: dict[str, str]
    ) -> AsyncIterator[Changed]:
        """Changes since a resource version until the server refuses to go on from there."""
        while True:
            options = query | {
                "watch": "1",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": "300",
            }
            async with self._session.get(path, params=options) as response:
                if response.status >= 300:
                    raise ApiError(response.status, await response.text())
                async for line in response.content:
                    event = msgspec.json.decode(line)
                    item = event["object"]
                    if event["type"] == "ERROR":
                        raise ApiError(item.get("code", 500), item.get("message", ""))
                    version = item["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield Changed(item, deleted=event["type"] == "DELETED")


def status_code(error: BaseException) -> int | None:
    """The status that the API server refused with, if it is that which went wrong."""
    return error.code if isinstance(error, ApiError) else None
