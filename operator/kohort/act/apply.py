"""Writes of the operator: server-side apply with one field manager, deletes that name what they mean."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

from kohort.act.manifests import (
    COMPONENT,
    Owner,
    Scale,
    applied_annotation,
    deployment,
    record,
    template_of,
)
from kohort.act.merge import Json
from kohort.api.spec import Spec
from kohort.api.status import Status
from kohort.contract import API_VERSION, FIELD_MANAGER, GROUP, KIND, PLURAL
from kohort.kube import APPLY, ApiError, Calls

NOT_FOUND, CONFLICT, INVALID, BROKEN = 404, 409, 422, 500
# How an API server begins to say that a field is unknown or of another type, as an error of its own.
MISTYPED = "failed to create typed patch object"
TEMPLATES_KEPT = 64


@dataclass(frozen=True)
class Applied:
    """A Deployment as last seen: what was applied, and whether that is still so.

    ``annotation``: says what was applied, and the generation that this made. ``generation``: of its
    spec now. ``revision``, ``component``: its labels; without the others it would not be seen.
    """

    annotation: str
    generation: int
    replicas: int
    revision: str
    component: str


def _path(owner: Owner, resource: str, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{owner.namespace}/{resource}/{name}"


class _Metadata(msgspec.Struct):
    generation: int


class _Applied(msgspec.Struct):
    metadata: _Metadata


_APPLIED = msgspec.json.Decoder(_Applied)


def _as_wanted(owner: Owner, revision: str, scale: Scale, known: Applied) -> bool:
    annotation = applied_annotation(owner, revision, scale, known.generation)
    return (
        known.annotation == annotation
        and known.replicas == scale.replicas
        and (known.revision, known.component) == (revision, COMPONENT)
    )


class Writer:
    """Carries out what the planner wants; every method may be repeated at any time.

    ``image``: of the server, for revisions recorded from now on.

    Raises:
        ApiError: from every method, when the API server does not take it.
    """

    def __init__(self, kube: Calls, image: str) -> None:
        self._kube = kube
        self._image = image
        # Records never change, and a rollout reads the same few again and again.
        self._templates: OrderedDict[tuple[str, str], Json] = OrderedDict()

    async def record_revision(
        self, owner: Owner, revision: str, number: int, spec: Spec, data: Json
    ) -> bytes:
        """Records a revision; returns the ControllerRevision as JSON."""
        manifest = record(owner, revision, number, spec, data, self._image)
        answer = await self._apply(_path(owner, "controllerrevisions", revision), manifest)
        self._keep(owner, revision, manifest["data"])
        return answer

    async def ensure_deployment(
        self, owner: Owner, revision: str, scale: Scale, known: Applied | None
    ) -> bytes | None:
        """Applies a revision's Deployment from its record.

        Returns the Deployment as JSON, or None when ``known`` already is what is wanted: a spec that
        somebody edits has another generation than the one that was applied.
        """
        if known and _as_wanted(owner, revision, scale, known):
            return None
        template = await self._template(owner, revision)
        path = _path(owner, "deployments", revision)
        generation = known.generation + 1 if known else 1
        answer = await self._apply(path, deployment(owner, revision, scale, template, generation))
        made = _APPLIED.decode(answer).metadata.generation
        if made == generation:
            return answer
        # What was edited is not ours to change back: noted, so that it is not met again.
        return await self._apply(path, deployment(owner, revision, scale, template, made))

    async def remove(self, owner: Owner, resource: str, name: str, uid: str) -> None:
        """Deletes the very object that was seen, and what it owns; gone already is well."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._kube.call("DELETE", _path(owner, resource, name), body=body)
        except ApiError as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    async def write_status(self, owner: Owner, version: int, status: Status) -> bytes:
        """Replaces the status if the object still has ``version``; returns the object as JSON.

        Raises:
            ApiError: with status 409 when somebody else wrote meanwhile.
        """
        return await self._kube.call(
            "PUT",
            f"/apis/{GROUP}/v1alpha1/namespaces/{owner.namespace}/{PLURAL}/{owner.name}/status",
            params={"fieldManager": FIELD_MANAGER},
            body={
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {
                    "name": owner.name,
                    "namespace": owner.namespace,
                    "uid": owner.uid,
                    "resourceVersion": str(version),
                },
                "status": status,
            },
        )

    async def _template(self, owner: Owner, revision: str) -> Json:
        key = (owner.uid, revision)
        if key not in self._templates:
            path = _path(owner, "controllerrevisions", revision)
            content: Any = msgspec.json.decode(await self._kube.call("GET", path))
            self._keep(owner, revision, content["data"])
        self._templates.move_to_end(key)
        return self._templates[key]

    def _keep(self, owner: Owner, revision: str, data: Json) -> None:
        self._templates[owner.uid, revision] = template_of(data)
        while len(self._templates) > TEMPLATES_KEPT:
            self._templates.popitem(last=False)

    async def _apply(self, path: str, manifest: Json) -> bytes:
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        try:
            return await self._kube.call(
                "PATCH", path, params=params, body=manifest, content_type=APPLY
            )
        except ApiError as error:
            if error.status != BROKEN or not error.message.startswith(MISTYPED):
                raise
            where = error.message.partition("): ")[2] or error.message
            raise ApiError(INVALID, "Invalid", where, f"PATCH {path}") from error
