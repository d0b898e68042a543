"""ConfigMaps, Secrets and service account tokens for the pods of a node."""

from __future__ import annotations

import asyncio
import base64
import time
from dataclasses import dataclass

from kohort_local.client import Client, Object, status_code
from kohort_local.node.fields import PodContext

Files = dict[str, bytes]
CONFIG_MAPS = "configmaps"
SECRETS = "secrets"
_SHARED_SECONDS = 4.0  # pods that look for changes at the same time share one request
_DEFAULT_TOKEN_SECONDS = 3600
_RENEW_AFTER = 0.8  # of a token's life


@dataclass(frozen=True)
class _Token:
    content: bytes
    renew_at: float  # time.monotonic()


class Sources:
    """Reads what volumes and variables are made of."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._shared: dict[tuple[str, str, str], tuple[float, asyncio.Task[Object]]] = {}
        self._tokens: dict[tuple[str, str, int], _Token] = {}

    async def keys(
        self, kind: str, namespace: str, name: str, *, optional: bool = False, fresh: bool = True
    ) -> Files:
        """The entries of a ConfigMap or Secret; none if it is optional and not there.

        Args:
            kind: CONFIG_MAPS or SECRETS.
            namespace: Its namespace.
            name: Its name.
            optional: Whether it may be missing.
            fresh: Whether it must be as it is now, not as it was some seconds ago.

        Raises:
            ApiError: it is missing or may not be read.
        """
        try:
            found = await self._read(kind, namespace, name, fresh)
        except Exception as error:
            if optional and status_code(error) == 404:
                return {}
            raise
        data = found.get("data") or {}
        if kind == SECRETS:
            return {key: base64.b64decode(value) for key, value in data.items()}
        binary = found.get("binaryData") or {}
        return {key: value.encode() for key, value in data.items()} | {
            key: base64.b64decode(value) for key, value in binary.items()
        }

    async def _read(self, kind: str, namespace: str, name: str, fresh: bool) -> Object:
        key, now = (kind, namespace, name), time.monotonic()
        known = self._shared.get(key)
        if fresh or known is None or now - known[0] > _SHARED_SECONDS:
            path = f"/api/v1/namespaces/{namespace}/{kind}/{name}"
            known = (now, asyncio.create_task(self._client.request("GET", path)))
            self._shared = {k: v for k, v in self._shared.items() if now - v[0] <= _SHARED_SECONDS}
            self._shared[key] = known
        # One pod that goes away must not take the answer from the others.
        return await asyncio.shield(known[1])

    async def token(self, pod: PodContext, source: Object) -> bytes:
        """A token of the pod's service account that is valid for a while yet.

        Raises:
            ApiError: the account is missing or the token is refused.
        """
        audience = str(source.get("audience") or "")
        lifetime = int(source.get("expirationSeconds") or _DEFAULT_TOKEN_SECONDS)
        key = (pod.uid, audience, lifetime)
        known = self._tokens.get(key)
        if known and time.monotonic() < known.renew_at:
            return known.content
        answer = await self._client.request(
            "POST",
            f"/api/v1/namespaces/{pod.namespace}/serviceaccounts/{pod.service_account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [audience] if audience else [],
                    "expirationSeconds": lifetime,
                    "boundObjectRef": {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "name": pod.name,
                        "uid": pod.uid,
                    },
                },
            },
        )
        content = str(answer["status"]["token"]).encode()
        renew_at = time.monotonic() + _RENEW_AFTER * lifetime
        self._tokens[key] = _Token(content, renew_at)
        return content

    def forget(self, pod: PodContext) -> None:
        """The pod is gone."""
        self._tokens = {key: token for key, token in self._tokens.items() if key[0] != pod.uid}
