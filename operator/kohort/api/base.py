"""What every node of the spec is made of."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """CEL rules of a schema node as (rule, message that says what to do)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": text} for rule, text in pairs]}


class SpecStruct(
    Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """A node of the spec: immutable, camelCase in YAML."""


class SecretRef(SpecStruct, frozen=True):
    """A Secret of the ModelDeployment's namespace."""

    name: Annotated[str, Meta(min_length=1, max_length=253, description="Name of the Secret.")]
