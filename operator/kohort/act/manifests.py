"""What Kohort makes for a revision: its record and its Deployment, as plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kohort.act.merge import Json, merged
from kohort.api.engine import Engine, OnUnsupported, Parity
from kohort.api.model import Model
from kohort.api.spec import GPU, Spec
from kohort.contract import (
    ANNOTATION_APPLIED,
    ANNOTATION_RESTARTED,
    API_VERSION,
    KIND,
    LABEL_COMPONENT,
    LABEL_GPU_PRODUCT,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
    LABEL_REVISION,
    MANAGED_BY,
    PORT_SERVER,
)

CACHE_DIRECTORY = "/var/cache/kohort"
# Mounted whole, so that keys that are rotated reach a server that runs.
CREDENTIALS = "model-credentials"
CREDENTIALS_DIRECTORY = "/var/run/kohort/model-credentials"
SERVER = "server"
COMPONENT = "model-server"
GRACE_SECONDS = 60
GPU_CLAIM = "gpu"


@dataclass(frozen=True)
class Owner:
    """The ModelDeployment that everything of a model belongs to."""

    namespace: str
    name: str
    uid: str


def record(owner: Owner, revision: str, number: int, spec: Spec, data: Json, image: str) -> Json:
    """The ControllerRevision: what decides an answer, and the pod template that came of it.

    The template is kept too, so that neither a newer Kohort nor another default image restarts the
    pods of a revision that is there.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata(owner, revision, labels(owner, revision)),
        "revision": number,
        "data": {**data, "image": image, "podTemplate": pod_template(owner, revision, spec, image)},
    }


@dataclass(frozen=True)
class Scale:
    """What of a revision's Deployment changes: its replicas, when fresh pods were last wanted, and whether
    there is room for those beside the ones that they replace."""

    replicas: int
    restarted_at: str = ""
    spare: bool = True


def deployment(owner: Owner, revision: str, scale: Scale, template: Json, generation: int) -> Json:
    """The Deployment of a revision, from the pod template of its record.

    ``generation``: that it will have.
    """
    manifest = _deployment(owner, revision, scale)
    applied = {ANNOTATION_APPLIED: applied_annotation(owner, revision, scale, generation)}
    return {
        **manifest,
        "metadata": {**manifest["metadata"], "annotations": applied},
        "spec": {**manifest["spec"], "template": merged(template, manifest["spec"]["template"])},
    }


def applied_annotation(owner: Owner, revision: str, scale: Scale, generation: int) -> str:
    """Names what is applied, and the generation that it makes.

    The rest of the template has no part in the name: a revision's never changes.
    """
    content = msgspec.json.encode(_deployment(owner, revision, scale), order="sorted")
    return f"{hashlib.sha256(content).hexdigest()[:16]}/{generation}"


def _deployment(owner: Owner, revision: str, scale: Scale) -> Json:
    # A template without the annotation stays as it was, so that pods of a former version stay too.
    again = {"metadata": {"annotations": {ANNOTATION_RESTARTED: scale.restarted_at}}}
    few = "25%"
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(owner, revision, labels(owner, revision)),
        "spec": {
            "replicas": scale.replicas,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": selector(owner, revision)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {
                    "maxUnavailable": 0 if scale.spare else few,
                    "maxSurge": few if scale.spare else 0,
                },
            },
            "template": again if scale.restarted_at else {},
        },
    }


def selector(owner: Owner, revision: str) -> Json:
    """The labels that tell a revision's pods from all others."""
    return {LABEL_MODEL: owner.name, LABEL_REVISION: revision}


def pod_template(owner: Owner, revision: str, spec: Spec, image: str) -> Json:
    """The pods of a revision, with the user's overlay merged in."""
    base: Json = {
        "metadata": {"labels": labels(owner, revision)},
        "spec": {
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_server(owner, revision, spec, image)],
            "volumes": _volumes(spec.model),
            **_gpu_placement(spec.gpu),
        },
    }
    return _selectable(merged(base, spec.template), labels(owner, revision))


def _selectable(template: Json, ours: dict[str, str]) -> Json:
    """The template with our labels, whatever the overlay says: the selector must go on matching.

    Metadata of another type stay as they are, for the API server to refuse.
    """
    metadata = template.get("metadata") or {}
    given = (metadata.get("labels") or {}) if isinstance(metadata, dict) else None
    if not isinstance(given, dict):
        return template
    return {**template, "metadata": {**metadata, "labels": {**given, **ours}}}


def _server(owner: Owner, revision: str, spec: Spec, image: str) -> Json:
    return {
        "name": SERVER,
        "image": image,
        "args": [
            "serve",
            spec.model.uri,
            f"--name={owner.name}",
            f"--revision={revision}",
            *_engine(spec.engine),
            "--host=$(POD_IP)",
            f"--port={PORT_SERVER}",
            f"--cache-dir={CACHE_DIRECTORY}",
            *_source(spec.model),
        ],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            # The root file system is read-only.
            {"name": "TMPDIR", "value": CACHE_DIRECTORY},
        ],
        "ports": [{"name": "http", "containerPort": PORT_SERVER, "protocol": "TCP"}],
        "resources": _resources(spec.gpu),
        "startupProbe": _probe("/v2/health/live", period=1, failures=120),
        "readinessProbe": _probe("/v2/health/ready", period=2, failures=2),
        "livenessProbe": _probe("/v2/health/live", period=10, failures=6),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "cache", "mountPath": CACHE_DIRECTORY},
            *(
                [{"name": CREDENTIALS, "mountPath": CREDENTIALS_DIRECTORY, "readOnly": True}]
                if spec.model.secret_ref
                else []
            ),
        ],
    }


def _source(model: Model) -> list[str]:
    given = {
        "digest": model.digest,
        "credentials": CREDENTIALS_DIRECTORY if model.secret_ref else "",
        "endpoint": model.endpoint,
        "region": model.region,
    }
    return [f"--{name}={value}" for name, value in given.items() if value]


def _volumes(model: Model) -> list[Json]:
    cache: Json = {"name": "cache", "emptyDir": {}}
    if model.secret_ref is None:
        return [cache]
    # A Secret that is not there is for the server to tell, in words: a pod that never starts tells nothing.
    secret = {"secretName": model.secret_ref.name, "optional": True}
    return [cache, {"name": CREDENTIALS, "secret": secret}]


def _engine(engine: Engine) -> list[str]:
    parity = engine.parity or Parity()
    golden = parity.golden
    given = {
        "golden": golden and golden.uri,
        "golden-digest": golden and golden.digest,
        "tolerance": parity.tolerance,
        "cosine": parity.cosine,
        "agreement": parity.agreement,
    }
    return [
        f"--engine={engine.type.value}",
        f"--precision={engine.precision.value}",
        *(f"--{name}={value}" for name, value in given.items() if value),
        *(["--fallback"] if engine.on_unsupported is OnUnsupported.FALLBACK else []),
    ]


def _probe(path: str, *, period: int, failures: int) -> Json:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _resources(gpu: GPU | None) -> Json:
    if gpu is None:
        return {}
    if gpu.claim_template:
        return {"claims": [{"name": GPU_CLAIM}]}
    # Extended resources need requests and limits alike; limits alone say both.
    return {"limits": {gpu.resource: gpu.count}}


def _gpu_placement(gpu: GPU | None) -> Json:
    if gpu is None:
        return {}
    placement: Json = {
        "tolerations": [{"key": gpu.resource, "operator": "Exists", "effect": "NoSchedule"}]
    }
    if gpu.claim_template:
        claim = {"name": GPU_CLAIM, "resourceClaimTemplateName": gpu.claim_template}
        placement["resourceClaims"] = [claim]
    if gpu.products:
        wanted = {"key": LABEL_GPU_PRODUCT, "operator": "In", "values": list(gpu.products)}
        placement["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [wanted]}]
                }
            }
        }
    return placement


def labels(owner: Owner, revision: str) -> dict[str, str]:
    """The labels of everything that is made for a revision."""
    return {
        **selector(owner, revision),
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_COMPONENT: COMPONENT,
    }


def metadata(owner: Owner, name: str, labelled: Mapping[str, str]) -> Json:
    """The metadata of something that belongs to a model and goes with it."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": labelled,
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }


def template_of(record_data: Mapping[str, Any]) -> Json:
    """The pod template in a record's data.

    Raises:
        KeyError: this is no record of Kohort.
    """
    template: Json = record_data["podTemplate"]
    return template
