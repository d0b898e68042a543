"""The CustomResourceDefinition, generated from the types of spec and status.

``python -m kohort.api.crd > crds/kohort.dev_modeldeployments.yaml``
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import msgspec.yaml

from kohort.api import analysis as analysis_types
from kohort.api import cohorts as cohort_types
from kohort.api import engine as engine_types
from kohort.api import model as model_types
from kohort.api import prometheus as prometheus_types
from kohort.api import routing as routing_types
from kohort.api import spec as spec_types
from kohort.api import status as status_types
from kohort.contract import GROUP, KIND, PLURAL

Schema = dict[str, Any]

TYPES = (
    spec_types,
    model_types,
    engine_types,
    cohort_types,
    analysis_types,
    prometheus_types,
    routing_types,
    status_types,
)

# Fields of status that are maps in the shape of lists, with the key of each.
LIST_KEYS = {
    ("Status", "cohorts"): "name",
    ("Status", "revisions"): "name",
    ("Status", "conditions"): "type",
    ("CohortStatus", "evidence"): "metric",
}

# JSON Schema that structural schemas do not know, or say otherwise.
DROPPED = frozenset({"title", "additionalProperties", "$ref", "anyOf"})

NAME_RULE = {
    "rule": "size(self.metadata.name) <= 40"
    " && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "message": "metadata.name must have at most 40 characters of a-z, 0-9 and '-', and start with a"
    " letter: revisions and pods are called after it, with a suffix",
}

# Of spec as a whole: what one part of it asks for, and another cannot do.
EVIDENCE_RULE = {
    "rule": "self.spec.route.type != 'GatewayAPI'"
    " || self.spec.cohorts.all(c, c.steps.all(s, !has(s.until)))",
    "message": "until needs counters, and Kohort cannot read those of a Gateway API gateway: use hold with"
    " route.gatewayAPI.stepsByTime, or route.type Envoy",
}

GOAL_RULE = {
    "rule": "self.spec.analysis.metrics.exists(m, m.name == 'errors' && m.role != 'Watched')"
    " || self.spec.cohorts.all(c, c.steps.all(s, !has(s.until)))"
    " || (self.spec.analysis.metrics.exists(m, m.role == 'Goal')"
    " && self.spec.cohorts.all(c, c.steps.all(s, !has(s.until) || s.until != 'Pass')))",
    "message": "until: NonInferior waits for errors, and Pass too: add it to analysis.metrics, but not"
    " as Watched, or use hold",
}

PROMETHEUS_RULE = {
    "rule": "self.spec.route.type != 'GatewayAPI' || !has(self.spec.analysis.prometheus)",
    "message": "Kohort compares revisions only behind its own gateways: leave out analysis.prometheus and"
    " metrics with counts or score, or use route.type Envoy",
}

_PREVIEW = "!has(self.spec.preview) || "
PREVIEW_RULES = (
    {
        "rule": _PREVIEW + "self.spec.preview.header != self.spec.clientKey.header",
        "message": "preview.header is clientKey.header, which every client has: name another one",
    },
    {
        "rule": _PREVIEW + "self.spec.cohorts.all(c, !has(c.match)"
        " || c.match.all(m, m.headers.all(h, h.name != self.spec.preview.header)))",
        "message": "preview.header is a header that a cohort matches on, so that its clients would always"
        " ask for the preview: name another one",
    },
    {
        "rule": _PREVIEW + "self.spec.route.type != 'GatewayAPI' || has(self.spec.preview.value)",
        "message": "the Gateway API matches a header by its value only: set preview.value",
    },
)

HOLDBACK_RULE = {
    "rule": "self.spec.route.type != 'GatewayAPI' || self.spec.cohorts.all(c, !has(c.holdback))",
    "message": "Kohort compares revisions only behind its own gateways: leave out holdback, or use"
    " route.type Envoy",
}

MIRROR_RULE = {
    "rule": "self.spec.route.type != 'GatewayAPI'"
    " || self.spec.cohorts.all(c, c.steps.all(s, !has(s.mirror)))",
    "message": "Kohort can compare mirrored answers only in its own gateways: leave out mirror, or use"
    " route.type Envoy",
}

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("Ready", ".status.conditions[?(@.type=='Ready')].status", "Every client is served as asked."),
    ("Phase", ".status.phase", "Where the rollout is."),
    ("Stable", ".status.summary.stable", "Revisions of the stable clients."),
    ("Canary", ".status.summary.canary", "Revision being tried."),
    ("Weight", ".status.summary.weight", "Share of clients on the canary."),
    ("Step", ".status.summary.step", "Step of the rollout."),
)


def definition() -> Schema:
    """The whole CRD as one JSON-like value."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["mdep"],
                "categories": ["kohort"],
            },
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": _columns(),
                }
            ],
        },
    }


def _root() -> Schema:
    (_, components) = msgspec.json.schema_components([spec_types.Spec, status_types.Status])
    status = _structural({"$ref": "#/$defs/Status"}, components)
    # kstatus takes an object without status.observedGeneration for a finished one.
    status["default"] = {"observedGeneration": -1}
    return {
        "type": "object",
        "description": "A model, and how its versions reach its clients cohort by cohort.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _structural({"$ref": "#/$defs/Spec"}, components),
            "status": status,
        },
        "x-kubernetes-validations": [
            NAME_RULE,
            EVIDENCE_RULE,
            GOAL_RULE,
            PROMETHEUS_RULE,
            *PREVIEW_RULES,
            MIRROR_RULE,
            HOLDBACK_RULE,
        ],
    }


def _columns() -> list[Schema]:
    columns: list[Schema] = [
        {"name": name, "type": "string", "jsonPath": path, "description": text}
        for name, path, text in COLUMNS
    ]
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    message = {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1}
    return [*columns, age, message]


def _structural(node: Schema, components: Mapping[str, Schema]) -> Schema:
    """A node without references and unions, as a structural schema must be written."""
    node = _inlined(node, components)
    title = node.get("title", "")
    out = {key: value for key, value in node.items() if key not in DROPPED}
    if "enum" in out:
        out["type"] = "string"
    if "items" in out:
        out["items"] = _structural(out["items"], components)
    if "properties" in out:
        out["properties"] = {
            name: _property(title, name, _structural(field, components))
            for name, field in out["properties"].items()
        }
    if not out.get("required"):
        out.pop("required", None)
    return out


def _inlined(node: Schema, components: Mapping[str, Schema]) -> Schema:
    """``node`` merged over what it refers to; of a union with null the other half."""
    while "$ref" in node or "anyOf" in node:
        rest = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
        if "$ref" in node:
            referred = components[node["$ref"].removeprefix("#/$defs/")]
        else:
            (referred,) = (half for half in node["anyOf"] if half != {"type": "null"})
        rules = referred.get("x-kubernetes-validations", []) + rest.get(
            "x-kubernetes-validations", []
        )
        node = {**referred, **rest, **({"x-kubernetes-validations": rules} if rules else {})}
    return node


def _property(owner: str, name: str, node: Schema) -> Schema:
    """A property of ``owner`` with its default and the shape of its list."""
    key = LIST_KEYS.get((owner, name))
    if key:
        node |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    node.pop("default", None)
    default = _default(owner, name)
    # Status is written without what is empty; readers of the API see the rest.
    if default is not None and (default or not hasattr(status_types, owner)):
        node["default"] = default
    return node


def _default(owner: str, name: str) -> Any:
    types = next(module for module in TYPES if hasattr(module, owner))
    fields = msgspec.structs.fields(getattr(types, owner))
    (field,) = (f for f in fields if f.encode_name == name)
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default_factory())
    if field.default is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default)
    return None


def render() -> str:
    """The text of the CRD's file."""
    # Through JSON, so that equal parts are written out and not as YAML aliases.
    plain = msgspec.json.decode(msgspec.json.encode(definition()))
    text = msgspec.yaml.encode(plain).decode()
    return f"# Generated by make generate; edit operator/kohort/api.\n{text}"


if __name__ == "__main__":
    sys.stdout.write(render())
