"""What one gateway knows: versions of each model's resources, sent and taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kohort.route.envoy.resource import Kind, owner
from kohort.route.table import ModelKey

GONE = ""
"""The version of a resource that was taken away."""


def _by_kind() -> dict[Kind, dict[str, str]]:
    return {kind: {} for kind in Kind}


@dataclass
class Known:
    """What one gateway knows of one model: versions by name.

    ``sent``: the newest that it was sent. ``held``: the newest that it has taken.
    ``waiting``: responses that it has not answered yet, by kind.
    """

    sent: dict[Kind, dict[str, str]] = field(default_factory=_by_kind)
    held: dict[Kind, dict[str, str]] = field(default_factory=_by_kind)
    waiting: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))

    @property
    def empty(self) -> bool:
        """Whether there is nothing left to remember."""
        return not any(self.waiting.values()) and not any(self.sent.values())


@dataclass(frozen=True)
class Sent:
    """A response on its way: versions by name, ``GONE`` for what it takes away."""

    kind: Kind
    versions: Mapping[str, str]

    @property
    def owners(self) -> set[ModelKey]:
        """The models that it speaks of."""
        return {owner(name) for name in self.versions}


@dataclass(frozen=True)
class Refusal:
    """A model whose configuration a gateway did not take, and what it said.

    ``version``: of the route table that the refused part is for.
    """

    key: ModelKey
    version: str
    message: str


def note(versions: dict[str, str], name: str, version: str) -> None:
    """Takes a resource in, or out when it was taken away."""
    if version == GONE:
        versions.pop(name, None)
    else:
        versions[name] = version
