"""CRDs of other projects, from their Go modules in the version that go.sum vouches for."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kohort_local.places import cache_dir
from kohort_local.tools import BuildError, find_go


@dataclass(frozen=True)
class Definitions:
    """CRDs of a group, ``kinds`` by their plural.

    ``directory``: with go.mod and go.sum that name the Go module. ``folder``: where in that the files are.
    """

    directory: Path
    module: str
    folder: str
    group: str
    kinds: tuple[str, ...]

    def crds(self, say: Callable[[str], None]) -> list[Path]:
        """Their manifests; fetched once, which needs Go and its module proxy.

        Raises:
            BuildError: there is no Go, or the module cannot be had.
        """
        key = hashlib.sha256((self.directory / "go.sum").read_bytes()).hexdigest()[:12]
        target = cache_dir() / self.directory.name.replace("_", "-") / key
        target.mkdir(parents=True, exist_ok=True)
        with (target / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would fetch the same
            wanted = [target / f"{self.group}_{kind}.yaml" for kind in self.kinds]
            if not all(path.exists() for path in wanted):
                self._fetch(wanted, say)
        return wanted

    def names(self) -> list[str]:
        """What kubectl calls them."""
        return [f"crd/{kind}.{self.group}" for kind in self.kinds]

    def _fetch(self, wanted: list[Path], say: Callable[[str], None]) -> None:
        with tempfile.TemporaryDirectory(prefix="kohort-go-") as modules:
            done = subprocess.run(
                [find_go(say), "mod", "download", "-json", self.module],
                cwd=self.directory,
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
                    f"{self.module} cannot be fetched; set GOPROXY to a proxy for Go modules that this "
                    f"machine can reach and run it again:\n"
                    f"{(done.stderr or done.stdout).strip()[-2000:]}"
                )
            source = Path(json.loads(done.stdout)["Dir"]) / self.folder
            for path in wanted:
                shutil.copyfile(source / path.name, path.with_suffix(".part"))
                path.with_suffix(".part").replace(path)
