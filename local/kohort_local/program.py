"""Programs that tell what they have to say and end: kubectl, Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    error: type[Exception],
    *,
    stdin: str | None,
    timeout: float,
) -> str:
    """What the program prints; raises ``error`` with its own words when it fails."""
    done = subprocess.run(
        command,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise error(done.stderr.strip() or done.stdout.strip())
    return done.stdout
