"""What differs between two specs, and what ``kubectl apply`` makes of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

LONGEST_VALUE = 60


@dataclass(frozen=True)
class Difference:
    """A field that differs; None where one side has none of its own."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.before)} -> {_shown(self.after)}"


def differences(before: Any, after: Any, path: str = "") -> Iterator[Difference]:
    """Fields that differ, as deep as both sides have them; items of lists go by name, else by place."""
    if before == after:
        return
    ours, theirs = _fields(before), _fields(after)
    listed = not isinstance(before, Mapping)
    if ours is None or theirs is None or listed == isinstance(after, Mapping):
        yield Difference(path, before, after)
        return
    for key in dict.fromkeys([*ours, *theirs]):
        inside = f"{path}[{key}]" if listed else f"{path}.{key}"
        yield from differences(ours.get(key), theirs.get(key), inside)
    common = [key for key in theirs if key in ours]
    if listed and common != [key for key in ours if key in theirs]:
        yield Difference(f"{path} in order", list(ours), list(theirs))


def _fields(value: Any) -> dict[str, Any] | None:
    """A mapping, or a list of mappings as one by their names; None for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, list | tuple) or not all(isinstance(v, Mapping) for v in value):
        return None
    fields = {str(item.get("name", index)): item for index, item in enumerate(value)}
    return fields if len(fields) == len(value) else None


def _shown(value: Any) -> str:
    if value is None:
        return "(default)"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 2]}.."


def three_way_patch(original: Any, wanted: Any, present: Any) -> dict[str, Any]:
    """The merge patch of ``kubectl apply``: what the file says where it differs, and without what an
    earlier edition of the file said and this one does not."""
    patch: dict[str, Any] = {key: None for key in original if key not in wanted}
    for key, value in wanted.items():
        there = present.get(key)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            former = original.get(key)
            inside = three_way_patch(former if isinstance(former, Mapping) else {}, value, there)
            patch |= {key: inside} if inside else {}
        elif value != there:
            patch[key] = value
    return patch
