"""Kubernetes objects as the operator remembers them: only what a decision may rest on.

Values compare equal when nothing changed that anybody here would act on, so that most updates of
pods wake nobody.
"""

from __future__ import annotations

from sys import intern
from typing import Protocol, TypeVar

import msgspec

from kohort.contract import ANNOTATION_APPLIED, LABEL_COMPONENT, LABEL_MODEL, LABEL_REVISION
from kohort.observe.problems import deployment_problem, pod_problem
from kohort.observe.wire import (
    DeploymentObject,
    Metadata,
    OwnedObject,
    PodObject,
    RevisionObject,
    RouteParentStatus,
)
from kohort.plan.world import Problem
from kohort.route.table import ModelKey


class Child(Protocol):
    """What all remembered objects have; ``model`` is empty for objects of no model."""

    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def version(self) -> int: ...


T = TypeVar("T", bound=Child)


class Pod(msgspec.Struct, frozen=True):
    """A pod of a revision, or of the gateway (then without model and revision).

    ``cut_off``: its containers are ready by the last word of its node, which is out of touch since: so
    Kubernetes calls all pods of a node unready that could not reach the API server for 40 s. ``slow``: its
    containers run and have come up, but do not say in time that they are ready.
    """

    namespace: str
    name: str
    uid: str
    model: str
    revision: str
    address: str
    ready: bool
    deleting: bool
    restarts: int
    problem: Problem | None
    version: int
    cut_off: bool = False
    slow: bool = False


class Deployment(msgspec.Struct, frozen=True):
    """The Deployment of a revision.

    ``wanted``: replicas. ``applied``: what was, as Kohort noted it. ``generation``: of the spec;
    with ``revision`` and ``component``, which are labels, it tells what somebody else edits.
    """

    namespace: str
    name: str
    uid: str
    model: str
    wanted: int
    applied: str
    generation: int
    revision: str
    component: str
    deleting: bool
    problem: Problem | None
    version: int


class Record(msgspec.Struct, frozen=True):
    """The ControllerRevision of a revision; its data is read when it is needed."""

    namespace: str
    name: str
    uid: str
    model: str
    number: int
    version: int


class Owned(msgspec.Struct, frozen=True):
    """A Service, HTTPRoute or GRPCRoute that Kohort wrote.

    ``owner``: uid of what it belongs to. ``spec``: as JSON. ``parents``: what gateways say of a route.
    """

    namespace: str
    name: str
    uid: str
    model: str
    owner: str
    spec: bytes
    generation: int
    parents: tuple[RouteParentStatus, ...]
    version: int


def key_of(child: Child) -> ModelKey:
    """The model that an object belongs to."""
    return ModelKey(child.namespace, child.model)


def same(one: Child | None, other: Child | None) -> bool:
    """Whether two states of an object differ in nothing but their version."""
    if one is None or other is None:
        return one is other
    return all(
        getattr(one, name) == getattr(other, name)
        for name in type(one).__struct_fields__  # type: ignore[attr-defined]
        if name != "version"
    )


def parse_pod(content: bytes | msgspec.Raw) -> Pod:
    """A Pod out of its JSON."""
    pod = _PODS.decode(content)
    meta, status = pod.metadata, pod.status
    true = {c.type for c in status.conditions if c.status == "True"}
    ready = "Ready" in true
    cut_off = not ready and "ContainersReady" in true and not pod.spec.readiness_gates
    containers = status.container_statuses
    up = bool(containers) and all(c.started for c in containers)
    slow = up and not true & {"ContainersReady", "Ready"}
    return Pod(
        namespace=intern(meta.namespace),
        name=meta.name,
        uid=meta.uid,
        model=_label(meta, LABEL_MODEL),
        revision=_label(meta, LABEL_REVISION),
        address=status.pod_ip,
        ready=ready and bool(status.pod_ip),
        deleting=bool(meta.deletion_timestamp),
        restarts=sum(c.restart_count for c in status.container_statuses),
        problem=None if ready or meta.deletion_timestamp else pod_problem(pod),
        version=meta.version,
        cut_off=cut_off and bool(status.pod_ip),
        slow=slow and bool(status.pod_ip),
    )


def parse_deployment(content: bytes | msgspec.Raw) -> Deployment:
    """A Deployment out of its JSON."""
    deployment = _DEPLOYMENTS.decode(content)
    meta = deployment.metadata
    return Deployment(
        namespace=intern(meta.namespace),
        name=intern(meta.name),
        uid=meta.uid,
        model=_label(meta, LABEL_MODEL),
        wanted=deployment.spec.replicas,
        applied=meta.annotations.get(ANNOTATION_APPLIED, ""),
        generation=meta.generation,
        revision=_label(meta, LABEL_REVISION),
        component=_label(meta, LABEL_COMPONENT),
        deleting=bool(meta.deletion_timestamp),
        problem=deployment_problem(deployment.status),
        version=meta.version,
    )


def parse_record(content: bytes | msgspec.Raw) -> Record:
    """A ControllerRevision out of its JSON, without its data."""
    record = _RECORDS.decode(content)
    meta = record.metadata
    return Record(
        namespace=intern(meta.namespace),
        name=intern(meta.name),
        uid=meta.uid,
        model=_label(meta, LABEL_MODEL),
        number=record.revision,
        version=meta.version,
    )


def parse_owned(content: bytes | msgspec.Raw) -> Owned:
    """A Service, HTTPRoute or GRPCRoute out of its JSON."""
    owned = _OWNED.decode(content)
    meta = owned.metadata
    return Owned(
        namespace=intern(meta.namespace),
        name=meta.name,
        uid=meta.uid,
        model=_label(meta, LABEL_MODEL),
        owner=meta.owner_references[0].uid if meta.owner_references else "",
        spec=bytes(owned.spec),
        generation=meta.generation,
        parents=owned.status.parents,
        version=meta.version,
    )


def _label(meta: Metadata, name: str) -> str:
    return intern(meta.labels.get(name, ""))


_PODS = msgspec.json.Decoder(PodObject)
_DEPLOYMENTS = msgspec.json.Decoder(DeploymentObject)
_RECORDS = msgspec.json.Decoder(RevisionObject)
_OWNED = msgspec.json.Decoder(OwnedObject)
