"""Pages of the documentation that are made from the code: fields of the resource, and the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

import yaml

from kohort.api.crd import render
from kohort.cli.main import parser

Schema = dict[str, Any]
LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "pattern": "matches `{}`",
}
WIDTH = "100"  # of help texts, in characters


def resource_page() -> str:
    """Every field of a ModelDeployment, with its type, default, limits and meaning, as Markdown."""
    version = yaml.safe_load(render())["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [
        "# ModelDeployment\n",
        "Made from the types; the same is told by `kubectl explain mdep.spec`.\n",
    ]
    for name in ("spec", "status"):
        parts.append(f"## {name}\n")
        parts += ["| field | type | default | what it is |", "|---|---|---|---|"]
        parts += [_row(path, field) for path, field in _fields(schema["properties"][name], name)]
        parts.append("")
    parts.append("## Rules\n")
    parts.append("Checked at admission, and by `kubectl kohort lint` without a cluster.\n")
    parts += ["| where | is refused with |", "|---|---|"]
    parts += [f"| `{where}` | {_cell(message)} |" for where, message in _rules(schema, "")]
    return "\n".join(parts) + "\n"


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Each field below a schema, by its path; lists are shown as NAME[]."""
    if "items" in schema:
        yield from _fields(schema["items"], f"{path}[]")
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from _fields(field, f"{path}.{name}")


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield path.lstrip(".") or "the whole object", rule["message"]
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")


def _row(path: str, field: Schema) -> str:
    default = f"`{_value(field['default'])}`" if "default" in field else ""
    limits = [told.format(field[name]) for name, told in LIMITS.items() if name in field]
    text = field.get("description", "")
    more = f" ({_cell('; '.join(limits))})" if limits else ""
    return f"| `{path}` | {_type(field)} | {_cell(default)} | {_cell(text)}{more} |"


def _type(field: Schema) -> str:
    if "enum" in field:
        return _cell(" | ".join(f"`{value}`" for value in field["enum"]))
    if "items" in field:
        return f"list of {field['items'].get('type', 'objects')}s"
    kinds = field.get("type") or ("integer or string" if "anyOf" in field else "any")
    return str(field.get("format", kinds))


def _value(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def command_page() -> str:
    """The help of each command of ``kubectl kohort``, as Markdown."""
    parts = [
        "# kubectl kohort, command by command\n",
        "What `--help` says; [kubectl.md](../kubectl.md) tells it.\n",
    ]
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        for name, command in _commands(parser()):
            parts.append(f"## {name}\n\n```\n{command.format_help().rstrip()}\n```\n")
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return "\n".join(parts)


def _commands(root: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


PAGES = {"reference/modeldeployment.md": resource_page, "reference/commands.md": command_page}
