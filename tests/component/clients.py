"""An environment of its own with the clients that others have: their pins are not the product's."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REQUIREMENTS = (
    "tritonclient[grpc,http]==2.73.0",
    "kserve==0.21.0",
    "numpy==2.4.6",
    "grpcio==1.85.1",
)


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
            pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS]
            pip += ["--disable-pip-version-check", "--cache-dir", str(cache / "pip")]
            subprocess.run(pip, check=True)
            (home / ".ready").touch()
    return home / "bin/python"


def clients_told(model: str, *addresses: str) -> dict[str, dict[str, Any]]:
    """By client and call: what it gave, or how it failed. See `client_calls`."""
    told: dict[str, dict[str, Any]] = {}
    for script in ("triton_calls.py", "kserve_calls.py"):
        command = [
            str(python_with_clients()),
            str(Path(__file__).parent / script),
            model,
            *addresses,
        ]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == 0, run.stderr
        told |= json.loads(run.stdout.splitlines()[-1])
    return told
