"""An environment of its own with the clients that others have: their pins are not the product's."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = ("tritonclient[grpc,http]==2.73.0", "numpy==2.4.6", "grpcio==1.85.1")


def python_with_clients() -> Path:
    """The interpreter of that environment, which is made the first time (about half a minute)."""
    cache = Path.home() / ".cache/kohort"
    cache.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(" ".join((sys.version, *REQUIREMENTS)).encode()).hexdigest()[:12]
    home = cache / "clients" / digest
    with (cache / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".ready").exists():
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            pip = [home / "bin/python", "-m", "pip", "install", "--quiet", *REQUIREMENTS]
            pip += ["--disable-pip-version-check", "--cache-dir", cache / "pip"]
            subprocess.run(pip, check=True)
            (home / ".ready").touch()
    return home / "bin/python"
