"""How a model's Prometheus is reached: only where the installation allows, with what its Secret holds."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import Collection, Mapping

import msgspec

from kohort.api.prometheus import Prometheus
from kohort.api.quantity import seconds
from kohort.kube import ApiError, Calls, Server
from kohort.observe.prometheus import Access, PrometheusError

KEPT_SECONDS = 60.0
"""For how long a Secret is not read again, unless it was refused."""

FORBIDDEN, NOT_FOUND = 403, 404


class _Secret(msgspec.Struct):
    data: dict[str, str] = msgspec.field(default_factory=dict)


class Credentials:
    """Finds accesses, and keeps them for a while. ``allowed``: addresses that models may name."""

    def __init__(self, kube: Calls, allowed: Collection[str]) -> None:
        self._kube = kube
        self._allowed = {url.rstrip("/") for url in allowed}
        self._kept: dict[tuple[str, Prometheus], tuple[float, Access]] = {}

    async def access(self, namespace: str, wanted: Prometheus) -> Access:
        """How to reach what a model of this namespace names.

        Raises:
            PrometheusError: it is not allowed, or its Secret is of no use.
        """
        if wanted.url.rstrip("/") not in self._allowed:
            raise PrometheusError(
                f"this installation does not read {wanted.url}: add it to the chart's value prometheus.urls"
            )
        clock = asyncio.get_running_loop().time
        self._kept = {key: kept for key, kept in self._kept.items() if kept[0] > clock()}
        if (namespace, wanted) not in self._kept:
            found = access_of(wanted, await self._secret(namespace, wanted))
            self._kept[namespace, wanted] = clock() + KEPT_SECONDS, found
        return self._kept[namespace, wanted][1]

    def refused(self, namespace: str, wanted: Prometheus) -> None:
        """Has the Secret read again: it may have been renewed."""
        self._kept.pop((namespace, wanted), None)

    async def _secret(self, namespace: str, wanted: Prometheus) -> Mapping[str, bytes]:
        if wanted.secret_ref is None:
            return {}
        name = wanted.secret_ref.name
        try:
            content = await self._kube.call("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
            secret = msgspec.json.decode(content, type=_Secret)
            return {key: base64.b64decode(value) for key, value in secret.data.items()}
        except ApiError as error:
            advice = {
                NOT_FOUND: "there is none of this name in the model's namespace",
                FORBIDDEN: "add its name to the chart's value prometheus.secretNames",
            }.get(error.status, error.message)
            raise PrometheusError(f"Secret {name} cannot be read: {advice}") from None
        except (msgspec.MsgspecError, binascii.Error):
            raise PrometheusError(f"Secret {name} is not understood") from None


def access_of(wanted: Prometheus, secret: Mapping[str, bytes]) -> Access:
    """An access with what a Secret holds.

    Raises:
        PrometheusError: the Secret has nothing that is known, says two things, or holds no certificates.
    """
    name = wanted.secret_ref.name if wanted.secret_ref else ""
    try:
        told = {key: value.decode().strip() for key, value in secret.items() if key in _KEYS}
    except UnicodeDecodeError:
        raise PrometheusError(f"Secret {name} holds what is no text") from None
    if name and not any(told.values()):
        raise PrometheusError(f"Secret {name} has none of the keys {', '.join(sorted(_KEYS))}")
    headers = {}
    if told.get("token"):
        headers["Authorization"] = f"Bearer {told['token']}"
    if told.get("username"):
        if headers:
            raise PrometheusError(f"Secret {name} has a token and a username: leave out one")
        pair = f"{told['username']}:{told.get('password', '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    if told.get("tenant"):
        headers[wanted.tenant_header] = told["tenant"]
    if any(not value.isprintable() for value in headers.values()):
        raise PrometheusError(f"Secret {name} holds what no header can")
    return Access(wanted.url, seconds(wanted.timeout), headers, _tls(name, wanted.url, told))


_KEYS = frozenset({"token", "username", "password", "tenant", "tls.crt", "tls.key", "ca.crt"})


def _tls(name: str, url: str, told: Mapping[str, str]) -> ssl.SSLContext | None:
    certificate, key, ca = (told.get(each, "") for each in ("tls.crt", "tls.key", "ca.crt"))
    if bool(certificate) != bool(key):
        raise PrometheusError(f"Secret {name} needs both of tls.crt and tls.key")
    if not certificate and not ca:
        return None
    try:
        return Server(url, ca, certificate, key).tls()
    except (ssl.SSLError, ValueError) as error:
        raise PrometheusError(f"Secret {name} holds no certificates that fit: {error}") from None
