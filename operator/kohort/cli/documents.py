"""ModelDeployments in files: many documents, other kinds between them, and the line of everything."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kohort.contract import GROUP, KIND

STDIN = "-"


class DocumentError(Exception):
    """A file that cannot be read, or is no YAML; the message says where."""


@dataclass(frozen=True)
class Document:
    """One object of a file. ``lines``: line numbers from 1 by path, as in ``spec.cohorts[0].name``;
    ``twice``: paths of keys that stand there twice."""

    file: str
    value: Any
    lines: Mapping[str, int]
    twice: tuple[str, ...]

    @property
    def name(self) -> str:
        """The object's name; empty when it has none."""
        metadata = self.value.get("metadata")
        return str(metadata.get("name") or "") if isinstance(metadata, dict) else ""

    def place(self, path: str) -> str:
        """``FILE:LINE`` of a path, or of what it is in."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return f"{self.file}:{self.lines[path]}"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML as kubectl reads it: a date is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(file: str) -> list[Document]:
    """The ModelDeployments of a file or, for ``-``, of the standard input.

    Raises:
        DocumentError: it cannot be read.
    """
    shown = "<stdin>" if file == STDIN else file
    try:
        text = sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise DocumentError(f"{shown}: {said}") from None
    return list(parse(text, shown))


def parse(text: str, file: str) -> Iterator[Document]:
    """The ModelDeployments of a text, also those in a List; other kinds are passed over."""
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            twice = tuple(_twice(node, ""))
            value = loader.construct_document(node)
            yield from _models(file, value, dict(_lines(node, "")), twice)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DocumentError(f"{file}:{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise DocumentError(f"{file}: {' '.join(str(error).split())}") from None


def _models(
    file: str, value: Any, lines: dict[str, int], twice: tuple[str, ...]
) -> Iterator[Document]:
    if not isinstance(value, dict):
        return
    if value.get("kind") == "List" and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            inside = f"items[{index}]"
            own = {_below(p, inside): line for p, line in lines.items() if _is_below(p, inside)}
            again = tuple(_below(p, inside) for p in twice if _is_below(p, inside))
            yield from _models(file, item, own, again)
    elif value.get("kind") == KIND and str(value.get("apiVersion")).startswith(f"{GROUP}/"):
        yield Document(file, value, lines, twice)


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith((f"{place}.", f"{place}["))


def _below(path: str, place: str) -> str:
    return path.removeprefix(place).removeprefix(".")


def _lines(node: Any, path: str) -> Iterator[tuple[str, int]]:
    yield path, node.start_mark.line + 1
    for key, child, line in _children(node, path):
        yield from _lines(child, key)
        yield key, line


def _twice(node: Any, path: str) -> Iterator[str]:
    seen = set()
    for key, child, _ in _children(node, path):
        if key in seen:
            yield key
        seen.add(key)
        yield from _twice(child, key)


def _children(node: Any, path: str) -> Iterator[tuple[str, Any, int]]:
    """Path, node and line of what is inside a mapping (the key's line) or a list."""
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            inside = f"{path}.{key.value}" if path else str(key.value)
            yield inside, child, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield f"{path}[{index}]", child, child.start_mark.line + 1
