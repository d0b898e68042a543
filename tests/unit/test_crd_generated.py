"""The CRD that is checked in is the one that the types say, and complete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from kohort.api.crd import definition, render
from kohort.api.spec import Spec
from kohort.api.status import Status

CHECKED_IN = Path(__file__).parents[2] / "crds" / "kohort.dev_modeldeployments.yaml"
SCHEMA = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema node below ``node``, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


def defaulted(node: dict[str, Any], value: Any) -> Any:
    """A value with the schema's defaults, as the API server fills them in."""
    if "default" in node and value is None:
        value = msgspec.json.decode(msgspec.json.encode(node["default"]))
    if isinstance(value, dict):
        filled = {n: defaulted(c, value.get(n)) for n, c in node.get("properties", {}).items()}
        return {**value, **{n: v for n, v in filled.items() if v is not None}}
    if isinstance(value, list):
        return [defaulted(node["items"], item) for item in value]
    return value


def test_the_checked_in_file_is_generated_from_the_types() -> None:
    assert CHECKED_IN.read_text() == render(), "run make generate"


def test_every_field_has_a_description_for_kubectl_explain() -> None:
    bare = [
        path
        for part in ("spec", "status")
        for path, node in nodes(SCHEMA["properties"][part], part)
        if not path.endswith("[]") and not node.get("description")
    ]
    assert bare == []


def test_the_schema_is_structural() -> None:
    for path, node in nodes(SCHEMA):
        assert not {"$ref", "anyOf", "allOf", "title", "additionalProperties"} & node.keys(), path
        assert "type" in node, path


def test_the_schema_fills_in_the_defaults_that_the_types_have() -> None:
    short = {"model": {"uri": "file:///m.onnx"}}
    filled = defaulted(SCHEMA["properties"]["spec"], short)
    assert msgspec.convert(filled, Spec) == msgspec.convert(short, Spec)


def test_a_status_that_was_never_written_says_so() -> None:
    status = SCHEMA["properties"]["status"]
    filled = defaulted(status, None)
    assert filled["observedGeneration"] == -1
    assert msgspec.convert(filled, Status) == Status()
