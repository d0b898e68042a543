"""The page itself: three files that hold nothing of any cluster, and the headers that guard them."""

from __future__ import annotations

import hashlib
from importlib import resources

from aiohttp import web

TYPES = {
    "index.html": "text/html; charset=utf-8",
    "view.css": "text/css; charset=utf-8",
    **dict.fromkeys(
        ("view.js", "pages.js", "charts.js", "follow.js"), "text/javascript; charset=utf-8"
    ),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def guard(response: web.StreamResponse) -> None:
    """Adds what browsers are told about every answer."""
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Server"] = "kohort"


class Files:
    """The page's files, read once."""

    def __init__(self) -> None:
        page = resources.files("kohort.web") / "page"
        self._files = {name: (page / name).read_bytes() for name in TYPES}
        self._tags = {n: hashlib.sha256(c).hexdigest()[:16] for n, c in self._files.items()}

    def answer(self, name: str, request: web.Request) -> web.Response:
        """A file, or word that the browser's copy is still good."""
        tag = self._tags[name]
        known = {each.value for each in request.if_none_match or ()}
        if tag in known:
            response = web.Response(status=304)
        else:
            response = web.Response(body=self._files[name], headers={"Content-Type": TYPES[name]})
        response.etag = tag
        response.headers["Cache-Control"] = "no-cache"
        return response
