"""Random specs drawn from the CRD's own schema, whole or with something broken in them."""

from __future__ import annotations

import re
from copy import deepcopy
from random import Random
from typing import Any

from kohort.api.crd import definition

Schema = dict[str, Any]

SPEC: Schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
    "spec"
]

# Strings that some field takes; others are tried where a field is to be broken.
STRINGS = (
    *("file:///m.onnx", "https://h/m.onnx", "http://h:8080/m.onnx", "https://u:p@h/m", "ftp://h/m"),
    *("sha256:" + "0" * 64, "sha256:" + "f" * 64, "sha256:12"),
    *("0s", "5s", "1m", "1h30m", "2d", "1 m", "-1s", "10000h"),
    *("1%", "0.5%", "5%", "20%", "100%", "0%", "101%", "1"),
    *("everyone", "eu-shops", "a", "b", "Everyone", "1a", "a" * 41),
    *("x-org", "x-region", "x-client-id", "x-kohort-cohort", "X-Org", "x y"),
    *("acme", "NVIDIA-L4", "nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "gpu", "", "é", "x" * 300),
)
OVERLAYS: tuple[Any, ...] = (
    {},
    {"metadata": {"labels": {"team": "a"}}},
    {"spec": {"containers": [{"name": "server", "resources": {"limits": {"cpu": "1"}}}]}},
    {"spec": {"containers": "many", "volumes": None}},
    {"metadata": 3},
)
OTHERS: tuple[Any, ...] = (None, True, -1, 0, 10**12, 1.5, "", "text", [], [1], {}, {"a": 1})


def spec(rng: Random) -> dict[str, Any]:
    """A spec of which about half are such as somebody may have meant."""
    breaks = rng.choice((0.0, 0.0, 0.0, 0.01, 0.05))
    made = _object(SPEC, rng, breaks)
    if rng.random() < 0.9:
        _mend(made, rng)
    return made


def _value(node: Schema, rng: Random, breaks: float) -> Any:
    if rng.random() < breaks:
        return deepcopy(rng.choice(OTHERS))
    if node.get("x-kubernetes-preserve-unknown-fields"):
        return deepcopy(rng.choice(OVERLAYS))
    match node["type"]:
        case "object":
            return _object(node, rng, breaks)
        case "array":
            least, most = node.get("minItems", 0), node.get("maxItems", 4)
            count = rng.randint(least, max(least, min(most, 3)))
            return [_value(node["items"], rng, breaks) for _ in range(count)]
        case "string":
            return _string(node, rng, breaks)
        case "integer":
            low, high = node.get("minimum", 0), node.get("maximum", 100)
            return rng.choice((low, high, rng.randint(low, min(high, low + 10))))
        case "boolean":
            return rng.random() < 0.3
        case other:
            raise AssertionError(f"no values are known for {other}")


def _object(node: Schema, rng: Random, breaks: float) -> dict[str, Any]:
    made = {
        name: _value(child, rng, breaks)
        for name, child in node.get("properties", {}).items()
        if rng.random() < (1 - breaks if name in node.get("required", ()) else 0.35)
    }
    return made | ({"unheardOf": 1} if rng.random() < breaks else {})


def _string(node: Schema, rng: Random, breaks: float) -> str:
    if "enum" in node:
        return str(rng.choice(node["enum"]))
    if rng.random() < breaks:
        return rng.choice(STRINGS)
    fitting = [
        text
        for text in STRINGS
        if re.search(node.get("pattern", ""), text)
        and node.get("minLength", 0) <= len(text) <= node.get("maxLength", 10**6)
    ]
    return rng.choice(fitting)


def _mend(node: Any, rng: Random) -> None:
    """Make whole, where the types allow it, what chance alone hardly ever does."""
    if not isinstance(node, dict):
        return
    if isinstance(node.get("model"), dict) and "uri" in node["model"]:
        node["model"] |= {"uri": rng.choice(STRINGS[:3]), "digest": "sha256:" + "0" * 64}
    for rate in ("falseRollback", "falsePromotion"):
        if isinstance(node.get("analysis"), dict) and rate in node["analysis"]:
            node["analysis"][rate] = rng.choice(("0.5%", "1%", "20%"))
    cohorts = [c for c in _listed(node.get("cohorts")) if isinstance(c, dict)]
    for number, cohort in enumerate(cohorts):
        cohort["name"] = f"cohort-{number}"
        if "after" in cohort:
            cohort["after"] = [f"cohort-{n}" for n in range(number) if rng.random() < 0.5]
        cohort.setdefault("match", [{"headers": [{"name": "x-org", "value": "acme"}]}])
        for match in _listed(cohort["match"]):
            for header in _listed(match.get("headers") if isinstance(match, dict) else None):
                if isinstance(header, dict):
                    header.pop("values" if "value" in header else "value", None)
                    if not header.get("values"):
                        header["value"] = "acme"
        _mend_steps(cohort.get("steps"), rng)
    if cohorts:
        cohorts[-1].pop("match", None)


def _mend_steps(steps: Any, rng: Random) -> None:
    if not all(
        isinstance(step, dict) and isinstance(step.get("weight"), int) for step in _listed(steps)
    ):
        return
    for step in _listed(steps):
        kept = rng.choice(("hold", "until", "pause"))
        for other in {"hold", "until", "pause"} - {kept}:
            step.pop(other, None)
        if "until" in step:
            step["weight"] = min(max(step["weight"], 4), 96)
        elif not step["weight"]:
            step.pop("hold", None)
            step["pause"] = {}
    _listed(steps).sort(key=lambda step: step["weight"])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
