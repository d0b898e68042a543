"""The CRDs of the Gateway API, from its Go module in the version that go.sum vouches for."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from kohort_local.places import cache_dir
from kohort_local.tools import BuildError, find_go

MODULE = "sigs.k8s.io/gateway-api"
GROUP = "gateway.networking.k8s.io"
KINDS = ("gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants")
_HERE = Path(__file__).parent


def crds(say: Callable[[str], None]) -> list[Path]:
    """Manifests of the standard channel; fetched once, which needs Go and its module proxy.

    Raises:
        BuildError: there is no Go, or the module cannot be had.
    """
    key = hashlib.sha256((_HERE / "go.sum").read_bytes()).hexdigest()[:12]
    target = cache_dir() / "gateway-api" / key
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would fetch the same
        wanted = [target / f"{GROUP}_{kind}.yaml" for kind in KINDS]
        if not all(path.exists() for path in wanted):
            _fetch(wanted, say)
    return wanted


def _fetch(wanted: list[Path], say: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="kohort-go-") as modules:
        done = subprocess.run(
            [find_go(say), "mod", "download", "-json", MODULE],
            cwd=_HERE,
            env={
                **os.environ,
                "GOMODCACHE": modules,
                "GOFLAGS": "-modcacherw -mod=readonly",  # a cache that its owner can delete
                "GOTOOLCHAIN": "local",
                "GOWORK": "off",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildError(
                f"{MODULE} cannot be fetched; set GOPROXY to a proxy for Go modules that this machine "
                f"can reach and run it again:\n{(done.stderr or done.stdout).strip()[-2000:]}"
            )
        source = Path(json.loads(done.stdout)["Dir"]) / "config" / "crd" / "standard"
        for path in wanted:
            shutil.copyfile(source / path.name, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
