"""How fast a large model comes, and what memory that takes, beside curl on the same loopback.

    python -m tests.bench.sources [--size 2Gi] [--rounds 3]

The server hands files to the kernel (sendfile), in a process of its own; each client writes a file. Clients
take turns.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kohort_server.units import parse_size

FETCH = """
import sys
from pathlib import Path
from kohort_server.source.credentials import Credentials
from kohort_server.source.fetch import Wanted, fetch
uri, cache, endpoint = sys.argv[1:]
fetch(Wanted(uri, None, Credentials(), endpoint), Path(cache))
"""


def serve(path: Path, port: socket.socket, parent: int) -> None:
    """Answer HEAD and GET with the file, or a part of it, as long as the parent lives."""
    port.settimeout(1.0)
    while os.getppid() == parent:
        try:
            client, _ = port.accept()
        except TimeoutError:
            continue
        client.settimeout(None)
        threading.Thread(target=answer, args=(client, path), daemon=True).start()


def answer(client: socket.socket, path: Path) -> None:
    """Converse, until either side has enough."""
    with suppress(OSError):
        converse(client, path)


def converse(client: socket.socket, path: Path) -> None:
    """Answer the requests of a connection."""
    size = path.stat().st_size
    with client, path.open("rb") as file, client.makefile("rb") as asking:
        while line := asking.readline():
            method = line.split(b" ")[0]
            start, end, status = 0, size, "200 OK"
            while (header := asking.readline()) not in (b"\r\n", b""):
                if found := re.match(rb"range: bytes=(\d+)-(\d*)", header.lower()):
                    start, status = int(found[1]), "206 Partial Content"
                    end = min(int(found[2]) + 1, size) if found[2] else size
            told = (
                f'HTTP/1.1 {status}\r\nContent-Length: {end - start}\r\nETag: "1"\r\n'
                f"Content-Range: bytes {start}-{end - 1}/{size}\r\nAccept-Ranges: bytes\r\n"
                "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n"
            )
            client.sendall(told.encode())
            while method == b"GET" and start < end:
                start += os.sendfile(client.fileno(), file.fileno(), start, end - start)


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and the most memory in MiB that a command takes; raises where it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=parse_size, default="2Gi")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kohort-sources-") as temporary:
        root = Path(temporary)
        model = root / "model.onnx"
        with model.open("wb") as file:
            block = os.urandom(1 << 20)
            for _ in range(options.size >> 20):
                file.write(block)
        port = socket.create_server(("127.0.0.1", 0), backlog=64)
        parent = os.getpid()
        server = os.fork()
        if server == 0:
            serve(model, port, parent)
            os._exit(0)
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
        target = root / "target"
        python = [sys.executable, "-c", FETCH]
        clients: dict[str, Callable[[], list[str]]] = {
            "curl": lambda: ["curl", "-sS", "--create-dirs", "-o", f"{target}/m", f"{url}/b/m"],
            "nothing": lambda: [*python[:2], FETCH.rsplit("\n", 2)[0], "", "", ""],
            "http://": lambda: [*python, f"{url}/b/m", str(target), ""],
            "s3://": lambda: [*python, "s3://bucket/m", str(target), url],
        }
        times: dict[str, list[float]] = {name: [] for name in clients}
        memory: dict[str, float] = {}
        try:
            for _ in range(options.rounds):
                for name, command in clients.items():
                    seconds, peak = measured(command())
                    times[name].append(seconds)
                    memory[name] = max(memory.get(name, 0), peak)
                    shutil.rmtree(target, ignore_errors=True)
        finally:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
        best = {name: min(found) for name, found in times.items()}
        print(f"{'client':8} {'best s':>8} {'MB/s':>8} {'of curl':>8} {'peak MiB':>9}")
        for name, seconds in best.items():
            if name == "nothing":
                print(
                    f"{'':8} {seconds:8.2f} {'':8} {'':8} {memory[name]:9.0f}  Python with imports"
                )
                continue
            rate = options.size / seconds / 1e6
            share = best["curl"] / seconds
            print(f"{name:8} {seconds:8.2f} {rate:8.0f} {share:8.2f} {memory[name]:9.0f}")


if __name__ == "__main__":
    main()
