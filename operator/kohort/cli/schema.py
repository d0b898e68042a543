"""What the API server would say of a ModelDeployment: the CRD's schema and rules, without a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from kohort.api.crd import definition
from kohort.cli.cel import CelError, holds

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """What is wrong, in the API server's words, and where: ``spec.cohorts[0].steps``."""

    path: str
    message: str


@cache
def schema() -> Schema:
    """The schema of the whole object."""
    version = definition()["spec"]["versions"][0]
    found: Schema = msgspec.json.decode(msgspec.json.encode(version["schema"]["openAPIV3Schema"]))
    return found


def defaulted(value: Any, node: Schema) -> Any:
    """The value with the defaults that the API server would fill in; null says nothing there."""
    if isinstance(value, dict) and "properties" in node:
        out = {k: v for k, v in value.items() if v is not None or k not in node["properties"]}
        for name, inner in node["properties"].items():
            if name not in out and "default" in inner:
                out[name] = inner["default"]
            if name in out:
                out[name] = defaulted(out[name], inner)
        return out
    if isinstance(value, list) and "items" in node:
        return [defaulted(item, node["items"]) for item in value]
    return value


def problems(value: Any, node: Schema, path: str = "") -> Iterator[Problem]:
    """Everything that the API server would refuse in a value that has its defaults.

    Rules are asked only of what has the right shape.
    """
    found = list(_shape(value, node, path))
    yield from found
    yield from _broken_rules(value, node, path, tuple(problem.path for problem in found))


def _shape(value: Any, node: Schema, path: str) -> Iterator[Problem]:
    kind = node.get("type")
    if kind and not _TYPES[kind](value):
        shown = json.dumps(value, default=str)
        yield Problem(path, f"must be of type {kind}: {shown}")
        return
    for keyword, check in _LIMITS.items():
        if keyword in node and (said := check(value, node[keyword])):
            yield Problem(path, said)
    if isinstance(value, dict) and "properties" in node:
        yield from _fields(value, node, path)
    if isinstance(value, list) and "items" in node:
        for index, item in enumerate(value):
            yield from _shape(item, node["items"], f"{path}[{index}]")
        yield from _duplicates(value, node, path)


def _fields(value: dict[str, Any], node: Schema, path: str) -> Iterator[Problem]:
    known = node["properties"]
    for name in node.get("required", ()):
        if name not in value:
            yield Problem(_inside(path, name), "Required value")
    for name, item in value.items():
        inside = _inside(path, name)
        if name in known and not (path == "" and name == "metadata"):
            yield from _shape(item, known[name], inside)
        elif name not in known and not node.get("x-kubernetes-preserve-unknown-fields"):
            yield Problem(inside, f'unknown field "{inside}"')


def _duplicates(value: list[Any], node: Schema, path: str) -> Iterator[Problem]:
    keys = node.get("x-kubernetes-list-map-keys", ())
    seen: list[dict[str, Any]] = []
    for index, item in enumerate(value):
        if not keys or not isinstance(item, dict):
            continue
        key = {name: item.get(name) for name in keys}
        if key in seen:
            yield Problem(f"{path}[{index}]", f"Duplicate value: {json.dumps(key, default=str)}")
        seen.append(key)


def _broken_rules(
    value: Any, node: Schema, path: str, misshapen: tuple[str, ...]
) -> Iterator[Problem]:
    sound = not any(wrong.startswith(path) for wrong in misshapen)
    for rule in node.get("x-kubernetes-validations", ()) if sound else ():
        if "oldSelf" in rule["rule"]:
            continue  # about a change, which only the cluster sees
        try:
            kept = holds(rule["rule"], value)
        except CelError as error:
            yield Problem(path, f"a rule cannot be worked out: {error}")
            continue
        if not kept:
            yield Problem(path, rule["message"])
    if isinstance(value, dict):
        for name, inner in node.get("properties", {}).items():
            if name in value:
                yield from _broken_rules(value[name], inner, _inside(path, name), misshapen)
    if isinstance(value, list) and "items" in node:
        for index, item in enumerate(value):
            yield from _broken_rules(item, node["items"], f"{path}[{index}]", misshapen)


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
}


def _enum(value: Any, among: list[Any]) -> str:
    listed = ", ".join(f'"{each}"' for each in among)
    return "" if value in among else f'Unsupported value: "{value}": supported values: {listed}'


_LIMITS: Mapping[str, Callable[[Any, Any], str]] = {
    "enum": _enum,
    "pattern": lambda v, p: "" if re.search(p, v) else f"should match '{p}'",
    "minimum": lambda v, n: "" if v >= n else f"should be greater than or equal to {n}",
    "maximum": lambda v, n: "" if v <= n else f"should be less than or equal to {n}",
    "minLength": lambda v, n: "" if len(v) >= n else f"should be at least {n} chars long",
    "maxLength": lambda v, n: "" if len(v) <= n else f"Too long: may not be more than {n} bytes",
    "minItems": lambda v, n: "" if len(v) >= n else f"should have at least {n} items",
    "maxItems": lambda v, n: "" if len(v) <= n else f"Too many: must have at most {n} items",
}
