"""The Secrets behind mutual TLS: made if absent, renewed in time, by whichever operator comes first."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from kohort.act.permissions import AUTHORITY_SECRET, GATEWAY_SECRET, OPERATOR_SECRET
from kohort.contract import LABEL_MANAGED_BY, MANAGED_BY
from kohort.kube import ApiError, Kube
from kohort.route.envoy import certificates
from kohort.route.envoy.identity import Identity

NOT_FOUND, CONFLICT = 404, 409
# Until then nobody needs to look into a certificate, which would cost a running operator 8 MB.
RENEW_AFTER = "kohort.dev/renew-after"

Files = Mapping[str, bytes]


class Secrets:
    """The Secrets of one installation."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._path = f"/api/v1/namespaces/{namespace}/secrets"

    async def ensure(self, now: datetime) -> Identity:
        """What the operator shows and trusts, after making or renewing what is due.

        Raises:
            ApiError: the Secrets cannot be read or written.
        """
        names = (AUTHORITY_SECRET, OPERATOR_SECRET, GATEWAY_SECRET)
        found = [await self._read(name) for name in names]
        if all(secret is not None and _fresh(secret, now) for secret in found):
            return Identity.of(_files(found[1]))
        authority = await self._settle(
            AUTHORITY_SECRET, now, lambda files: certificates.authority(files, now)
        )
        own = await self._settle(
            OPERATOR_SECRET,
            now,
            lambda files: certificates.operator_files(files, authority, (), now),
        )
        await self._settle(
            GATEWAY_SECRET, now, lambda files: certificates.gateway_files(files, authority, now)
        )
        return Identity.of(own)

    async def _settle(
        self, name: str, now: datetime, wanted: Callable[[Files | None], Files]
    ) -> Files:
        """The files of a Secret after ``wanted`` had its way; whoever writes first wins."""
        while True:
            secret = await self._read(name)
            files = wanted(_files(secret) if secret else None)
            if secret and files == _files(secret) and _fresh(secret, now):
                return files
            try:
                await self._write(name, secret, files, now)
            except ApiError as error:
                if error.status != CONFLICT:
                    raise
            else:
                return files

    async def _read(self, name: str) -> dict[str, Any] | None:
        try:
            content = await self._kube.call("GET", f"{self._path}/{name}")
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise
        secret: dict[str, Any] = msgspec.json.decode(content)
        return secret

    async def _write(
        self, name: str, old: dict[str, Any] | None, files: Files, now: datetime
    ) -> None:
        # A third of a leaf's life is left then; see RENEW_AT.
        renew = now + certificates.LEAF_LIFE * (1 - certificates.RENEW_AT)
        secret: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                **(old["metadata"] if old else {"name": name}),
                "labels": {LABEL_MANAGED_BY: MANAGED_BY},
                "annotations": {RENEW_AFTER: renew.isoformat(timespec="seconds")},
            },
            "data": {key: base64.b64encode(value).decode() for key, value in files.items()},
        }
        if old:
            await self._kube.call("PUT", f"{self._path}/{name}", body=secret)
        else:
            await self._kube.call("POST", self._path, body=secret)


def _files(secret: dict[str, Any] | None) -> Files:
    data = (secret or {}).get("data") or {}
    return {key: base64.b64decode(value) for key, value in data.items()}


def _fresh(secret: dict[str, Any], now: datetime) -> bool:
    told = (secret["metadata"].get("annotations") or {}).get(RENEW_AFTER, "")
    try:
        return now < datetime.fromisoformat(told).astimezone(UTC)
    except ValueError:
        return False
