"""Servers and tools that only tests need: Python packages in environments of their own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kohort_local.places import cache_dir

MOTO = ("moto[server,s3]==5.2.5",)
MLFLOW = ("mlflow[auth]==3.17.2", "onnx==1.23.2", "onnxruntime==1.32.0")

START_SECONDS = 300.0


def environment(*requirements: str) -> Path:
    """The directory of the programs of these packages; installed the first time, which takes minutes."""
    key = hashlib.sha256(repr((requirements, sys.version_info[:2])).encode()).hexdigest()[:12]
    target = cache_dir() / "tools" / key
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / ".ready").exists():
            shutil.rmtree(target, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(target)], check=True, timeout=300)
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            pip_cache = ["--cache-dir", str(cache_dir() / "pip")]
            command = [str(target / "bin/python"), *install, *pip_cache, *requirements]
            subprocess.run(command, check=True, timeout=1800)
            (target / ".ready").touch()
    return target / "bin"


def unused_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def listening(
    command: list[str], port: int, environ: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, from when it listens on a port of 127.0.0.1."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environ},
            stdout=output,
            stderr=output,
            process_group=0,  # some have workers, which end with them
        )
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"it did not start: {log.read_text()[-2000:]}") from None
                time.sleep(0.05)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def python(programs: Path, code: str, *arguments: str, **environ: str) -> str:
    """What Python code prints that runs in an environment."""
    done = subprocess.run(
        [str(programs / "python"), "-c", code, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout
