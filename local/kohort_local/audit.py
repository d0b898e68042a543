"""The API server's audit log: who asked for what, for those who are told to be watched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from kohort_local.process import replace_file


def policy_file(state_dir: Path) -> Path:
    """What is logged; there is no log without the file."""
    return state_dir / "audit.yaml"


def _log(state_dir: Path) -> Path:
    return state_dir / "logs" / "audit.log"


def flags(state_dir: Path) -> list[str]:
    """Of the API server of the cluster in a directory."""
    policy = policy_file(state_dir)
    if not policy.exists():
        return []
    return [f"--audit-policy-file={policy}", f"--audit-log-path={_log(state_dir)}"]


def write_policy(state_dir: Path, users: Sequence[str]) -> None:
    """Have the calls of some users logged, without what they sent or got."""
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": list(users)}, {"level": "None"}],
    }
    replace_file(policy_file(state_dir), msgspec.json.encode(policy))


def events(state_dir: Path) -> list[dict[str, Any]]:
    """What was logged, as events of audit.k8s.io/v1; a line that is still being written is left out."""
    log = _log(state_dir)
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return [msgspec.json.decode(line) for line in lines]
