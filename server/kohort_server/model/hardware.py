"""What of this machine an engine is built for."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FIELDS = {"flags": "flags", "Features": "flags", "model name": "model"}  # as x86 and Arm write them


def machine(cpuinfo: Path = CPUINFO) -> str:
    """One line that is equal where the same engine runs: architecture, model of CPU, and what it can do."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    told: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if field := FIELDS.get(name.strip()):
            told.setdefault(field, value.strip())
    flags = " ".join(sorted(told.get("flags", "").split()))
    able = hashlib.sha256(flags.encode()).hexdigest()[:12]
    return f"{platform.machine()} / {told.get('model', 'unknown CPU')} / {able}"
