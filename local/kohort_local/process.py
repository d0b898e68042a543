"""Processes that outlive whoever started them, known by pid and start time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_POLL_SECONDS = 0.02
# Kept so that a process which exits while its starter lives is reaped by `alive`.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Process:
    """A process: a pid alone may be given to another one later, with its start time it cannot."""

    pid: int
    started: int  # clock ticks after boot, /proc/PID/stat field 22


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command: state first, start time at 19, RSS at 21."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def identify(pid: int) -> Process | None:
    """The process that has this pid now."""
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields else None


def current() -> Process:
    """This process."""
    return Process(os.getpid(), int((_stat(os.getpid()) or [])[19]))


def alive(process: Process) -> bool:
    """Whether it still runs; one that has exited and waits to be reaped does not."""
    child = _children.get(process.pid)
    if child is not None and child.poll() is not None:
        del _children[process.pid]
    fields = _stat(process.pid)
    if fields is None or int(fields[19]) != process.started:
        return False
    return fields[0] not in "ZX" or _threads(process.pid) > 1


def _threads(pid: int) -> int:
    """How many threads are left; the first may have ended while others hold files and ports."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def resident_bytes(process: Process) -> int:
    """Its resident memory in bytes, 0 when it is gone."""
    fields = _stat(process.pid)
    return int(fields[21]) * _PAGE_BYTES if fields and alive(process) else 0


def spawn(
    command: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str] | None = None
) -> Process:
    """Start a command in a session of its own, its output to `log`.

    Raises:
        OSError: it cannot be executed.
        RuntimeError: it was gone before it could be recorded.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _children[child.pid] = child
    process = identify(child.pid)
    if process is None:
        raise RuntimeError(f"{command[0]} exited at once; its output is in {log}")
    return process


def signal_group(process: Process, number: int) -> None:
    """Signal the process and everything it left in its session's process group.

    A group keeps its number while any member lives, so the group of a leader that is gone may
    still be signalled; that of a pid which another process has now is somebody else's.
    """
    holder = identify(process.pid)
    if holder is None or holder == process:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def stop(processes: Iterable[Process], grace: float) -> None:
    """Terminate them together, kill what is left of them after `grace` seconds; 0 kills at once."""
    left = list(processes)
    if grace > 0:
        for process in left:
            signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while any(map(alive, left)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    for process in left:
        signal_group(process, signal.SIGKILL)
    while any(map(alive, left)):
        time.sleep(_POLL_SECONDS)


def write_record(path: Path, process: Process) -> None:
    """Record a process in a file, whole or not at all."""
    replace_file(path, msgspec.json.encode(process))


def read_record(path: Path) -> Process | None:
    """The process recorded in a file, if there is one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Process)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.replace(path)
