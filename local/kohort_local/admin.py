"""A small blocking client of the local API server, for what starting and watching it needs."""

from __future__ import annotations

import http.client
import json
import ssl
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT = 5.0  # seconds


@cache
def _tls(pki: Path, made: float) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    return context


class AdminClient:
    """Asks the API server as the administrator."""

    def __init__(self, server: str, pki: Path) -> None:
        """`server` is a URL; `pki` holds ca.crt, admin.crt and admin.key."""
        self._address = urlsplit(server).netloc
        self._context = _tls(pki, (pki / "ca.crt").stat().st_mtime)

    def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            self._address, timeout=_TIMEOUT, context=self._context
        )
        try:
            content = json.dumps(body) if body is not None else None
            headers = {"Content-Type": "application/json"} if content else {}
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ready(self) -> bool:
        """Whether the API server answers and says that it is ready."""
        try:
            return self._request("GET", "/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str) -> Any | None:
        """The object at a path; None while it is not there or the server does not answer."""
        try:
            status, content = self._request("GET", path)
        except (OSError, http.client.HTTPException):
            return None
        return json.loads(content) if status == 200 else None

    def create(self, path: str, body: dict[str, Any]) -> None:
        """Create an object; one that is there already is left as it is.

        Raises:
            RuntimeError: the API server refused it.
        """
        status, content = self._request("POST", path, body)
        if status not in (200, 201, 409):
            raise RuntimeError(f"POST {path}: {status} {content[:500].decode(errors='replace')}")
