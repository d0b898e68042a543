"""The output of a container, line by line with the time, as `kubectl logs` wants it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kohort_local.node.clock import now_micro

_MESSAGE_BYTES = 2048
_MESSAGE_LINES = 80
_FILE_MESSAGE_BYTES = 4096


class LogWriter:
    """Appends output to a file as lines `TIME TEXT`, whole lines as soon as they are whole."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._partial = b""

    def write(self, data: bytes) -> None:
        """Take over output; a line may come in pieces."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()
        if lines:
            stamp = now_micro().encode() + b" "
            self._file.write(b"".join(stamp + line + b"\n" for line in lines))

    def close(self) -> None:
        """Write what has no end of line, without one."""
        if self._partial:
            self._file.write(now_micro().encode() + b" " + self._partial)
        self._file.close()


@dataclass(frozen=True)
class Selection:
    """Which lines of a log are wanted, and how."""

    tail: int | None = None
    since: datetime.datetime | None = None
    timestamps: bool = False

    def render(self, line: bytes) -> bytes | None:
        """A stored line as it is shown; None if it is too old."""
        stamp, _, text = line.partition(b" ")
        if self.since is not None and parse_time(stamp.decode()) < self.since:
            return None
        return line if self.timestamps else text

    def select(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that are shown of those stored so far."""
        stored = list(lines)
        if self.tail is not None:
            stored = stored[len(stored) - self.tail :] if self.tail < len(stored) else stored
        return (shown for line in stored if (shown := self.render(line)) is not None)


def parse_time(text: str) -> datetime.datetime:
    """A time as the API writes it.

    Raises:
        ValueError: it is none.
    """
    return datetime.datetime.fromisoformat(text)


def termination_message(
    message_file: Path, log_file: Path, policy: str, exit_code: int
) -> str | None:
    """What a container says of its end: its message file, else the end of its log if it failed.

    Args:
        message_file: What `terminationMessagePath` stands for.
        log_file: The log of the same run.
        policy: The container's `terminationMessagePolicy`.
        exit_code: How it ended.
    """
    if message_file.is_file() and (told := message_file.read_bytes()[:_FILE_MESSAGE_BYTES]):
        return told.decode(errors="replace")
    if policy != "FallbackToLogsOnError" or exit_code == 0 or not log_file.exists():
        return None
    lines = log_file.read_bytes().splitlines(keepends=True)[-_MESSAGE_LINES:]
    text = b"".join(Selection().select(lines))
    return text[-_MESSAGE_BYTES:].decode(errors="replace") or None
