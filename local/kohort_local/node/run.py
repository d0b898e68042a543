"""One run of a container: a process in a session of its own, its log and its record."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from kohort_local import process
from kohort_local.node.environment import Launch
from kohort_local.node.logfile import LogWriter
from kohort_local.process import Process

_LAST_OUTPUT_SECONDS = 1.0


class _Output(asyncio.SubprocessProtocol):
    def __init__(self, log: LogWriter) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._log = log

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._log.write(data)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class Run:
    """A container's process from start to end."""

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        output: _Output,
        log: LogWriter,
        found: Process,
        record: Path,
    ) -> None:
        self._transport = transport
        self._output = output
        self._log = log
        self._process = found
        self._record = record

    @classmethod
    async def start(cls, launch: Launch, log_file: Path, record: Path) -> Run:
        """Start a process; `record` tells a later node of it.

        Raises:
            OSError: it cannot be executed.
        """
        log = LogWriter(log_file)
        try:
            transport, output = await asyncio.get_running_loop().subprocess_exec(
                lambda: _Output(log),
                *launch.command,
                env=launch.environment,
                cwd=launch.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except BaseException:
            log.close()
            raise
        pid = transport.get_pid()
        found = process.identify(pid) or Process(pid, 0)
        process.write_record(record, found)
        return cls(transport, output, log, found, record)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._transport.get_returncode() is None

    async def wait(self) -> int:
        """Wait for its end, end what it left behind, and return its exit code; -N for signal N."""
        await asyncio.shield(self._output.exited)
        process.signal_group(self._process, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            # What left the session may still hold the output.
            await asyncio.wait_for(asyncio.shield(self._output.closed), _LAST_OUTPUT_SECONDS)
        self._transport.close()
        self._log.close()
        self._record.unlink(missing_ok=True)
        return self._transport.get_returncode() or 0

    @property
    def exited(self) -> asyncio.Future[None]:
        """Done when it has ended."""
        return self._output.exited

    def terminate(self) -> None:
        """Ask the process, as a container's first process is asked, to end."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the process and everything it started."""
        if self.running:
            process.signal_group(self._process, signal.SIGKILL)


async def run_command(launch: Launch, command: list[str], seconds: float) -> tuple[int, str]:
    """Run a command as a container's hook or probe would be; its exit code and its output.

    Raises:
        TimeoutError: it did not end within so many seconds, and was killed.
        OSError: it cannot be executed.
    """
    started = await asyncio.create_subprocess_exec(
        *launch.inside(command),
        env=launch.environment,
        cwd=launch.directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(started.communicate(), seconds)
    finally:
        if started.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            await started.wait()
    return started.returncode or 0, output[-1024:].decode(errors="replace")
