"""Where the local cluster keeps its files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """The directory of everything that may be thrown away and made again."""
    return Path.home() / ".cache" / "kohort"


def state_directory(name: str) -> Path:
    """The state directory of the cluster with this name."""
    return cache_dir() / "cluster" / name


def claims_dir() -> Path:
    """Claims of port blocks: the loopback interface is the machine's, whatever HOME is."""
    return Path(tempfile.gettempdir()) / f"kohort-claims-{os.getuid()}"
