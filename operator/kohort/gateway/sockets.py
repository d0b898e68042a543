"""Where Envoy and the process beside it that compares mirrored answers meet."""

from __future__ import annotations

from pathlib import Path

REPLAY_SECONDS = 30
"""Time for an answer that nobody waits for."""


def mirror_socket(directory: Path) -> Path:
    """Where Envoy sends copies of requests, and asks for counters."""
    return directory / "mirror.sock"


def replay_socket(directory: Path) -> Path:
    """Where Envoy takes requests that name the revision that is to answer."""
    return directory / "replay.sock"
