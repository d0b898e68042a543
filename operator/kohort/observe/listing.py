"""Complete lists, page by page: what a list needs at its peak, a process keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from kohort.kube import Kube

PAGE = "100"
T = TypeVar("T")


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str = "0"
    next: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _Metadata
    items: list[msgspec.Raw] | None = None


_PAGES = msgspec.json.Decoder(_Page)


async def list_all(
    kube: Kube, path: str, parameters: Mapping[str, str], parse: Callable[[msgspec.Raw], T]
) -> tuple[list[T], str]:
    """All objects under ``path``, and the resource version that they were all seen at.

    Raises:
        ApiError: the list was refused, or expired (410) before its last page.
    """
    objects: list[T] = []
    more = ""
    while True:
        params = {**parameters, "limit": PAGE, **({"continue": more} if more else {})}
        page = _PAGES.decode(await kube.call("GET", path, params=params))
        objects += [parse(item) for item in page.items or ()]
        more = page.metadata.next
        if not more:
            return objects, page.metadata.resource_version
