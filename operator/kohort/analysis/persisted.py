"""How an analysis keeps its state in status: JSON behind the number of its format."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec
from msgspec import Struct

S = TypeVar("S", bound=Struct)


def fingerprint(*facts: object) -> str:
    """A short name of what an analysis is of, that changes when it does."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def written(state: Struct, form: str) -> str:
    """A state as it stands in status; ``form`` begins it and names its format."""
    return form + msgspec.json.encode(state).decode()


def read(text: str, kind: type[S], form: str) -> S | None:
    """The state, or None for what was not written as ``form``."""
    if not text.startswith(form):
        return None
    try:
        return msgspec.json.decode(text.removeprefix(form), type=kind)
    except msgspec.MsgspecError:
        return None
