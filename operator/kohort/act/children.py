"""Services and routes: made once, put right when they differ, never taken over from somebody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from kohort.act.manifests import Owner
from kohort.act.merge import Json
from kohort.contract import FIELD_MANAGER
from kohort.kube import MERGE, ApiError, Calls
from kohort.route.gateway_api.routes import API_VERSION, RouteKind

NOT_FOUND, CONFLICT = 404, 409
ALREADY_EXISTS = "AlreadyExists"


@dataclass(frozen=True)
class Kind:
    """A resource, with the beginning of its URL."""

    api: str
    plural: str

    def path(self, namespace: str, name: str = "") -> str:
        """The URL of all of them in a namespace, or of one."""
        return f"{self.api}/namespaces/{namespace}/{self.plural}" + (f"/{name}" if name else "")


SERVICES = Kind("/api/v1", "services")
ROUTES = {kind: Kind(f"/apis/{API_VERSION}", kind.plural) for kind in RouteKind}


@dataclass(frozen=True)
class Known:
    """An object as last seen: its uid, the uid of what it belongs to, its spec as JSON."""

    uid: str
    owner: str
    spec: bytes


class Obstacle(Exception):
    """Something stands in the way that a person has to remove; says what."""


class _Reference(msgspec.Struct):
    uid: str = ""


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str
    owner_references: list[_Reference] = []


class _Found(msgspec.Struct):
    metadata: _Metadata


_FOUND = msgspec.json.Decoder(_Found)


class Children:
    """Writes objects that share their names with a ModelDeployment or a revision.

    Server-side apply would make a user's object of the same name ours, so these are created, and
    changed only by the uid under which they were seen to belong to the model.

    Raises:
        ApiError: from every method, when the API server does not take it.
    """

    def __init__(self, kube: Calls) -> None:
        self._kube = kube

    async def ensure(
        self, owner: Owner, kind: Kind, manifest: Json, known: Known | None
    ) -> bytes | None:
        """Makes an object be as in ``manifest``; returns it as JSON, None when it already is.

        Raises:
            Obstacle: it belongs to somebody else, who keeps it as it is; or the cluster has no such kind.
        """
        name = manifest["metadata"]["name"]
        if known is not None:
            if known.owner != owner.uid:
                raise Obstacle(_told(kind, name))
            if covers(msgspec.json.decode(known.spec), manifest["spec"]):
                return None
            return await self._change(owner, kind, manifest, known.uid)
        try:
            params = {"fieldManager": FIELD_MANAGER}
            path = kind.path(owner.namespace)
            return await self._kube.call("POST", path, params=params, body=manifest)
        except ApiError as error:
            if error.status == NOT_FOUND:
                told = f"there can be no {kind.plural}: {error.message}; are their CRDs installed?"
                raise Obstacle(told) from error
            if error.reason != ALREADY_EXISTS:
                raise
        # Ours, if a former leader made it a moment ago or somebody took our labels off it.
        content = await self._kube.call("GET", kind.path(owner.namespace, name))
        found = _FOUND.decode(content).metadata
        if owner.uid not in [reference.uid for reference in found.owner_references]:
            raise Obstacle(_told(kind, name))
        return await self._change(owner, kind, manifest, found.uid)

    async def remove(self, owner: Owner, kind: Kind, name: str, uid: str) -> None:
        """Deletes the very object that was seen; gone already is well."""
        try:
            body = {"preconditions": {"uid": uid}}
            await self._kube.call("DELETE", kind.path(owner.namespace, name), body=body)
        except ApiError as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    async def _change(self, owner: Owner, kind: Kind, manifest: Json, uid: str) -> bytes:
        """Another object of the same name has another uid, which the API server refuses."""
        metadata = {**manifest["metadata"], "uid": uid}
        return await self._kube.call(
            "PATCH",
            kind.path(owner.namespace, metadata["name"]),
            params={"fieldManager": FIELD_MANAGER},
            body={**manifest, "metadata": metadata},
            content_type=MERGE,
        )


def covers(actual: Any, wanted: Any) -> bool:
    """Whether ``actual`` has everything of ``wanted``; it may have more fields, as defaults are."""
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and all(
            key in actual and covers(actual[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(wanted)
            and all(map(covers, actual, wanted))
        )
    return bool(actual == wanted)


def _told(kind: Kind, name: str) -> str:
    return f"{kind.plural} {name} is there and not Kohort's, and is left as it is"
