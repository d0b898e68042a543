"""What others' clients get from this server, MLServer and KServe's server: the same calls, unchanged.

Run with `python -m tests.bench.clients`. Prints a Markdown table. A call passes when it gives what the
bare model says, the names and ids that belong there, or a refusal that tells the client from the server.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.bench.peers.processes import REQUIREMENTS, running
from tests.bench.server import free_port, save_mlp, server
from tests.component.client_calls import LARGE, ROWS
from tests.component.clients import clients_told

LONGEST = 70  # characters of a failure
STREAM = [*map(str, range(10))]
REFUSED = {"400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"}
UNLOADED = {"501", "StatusCode.UNIMPLEMENTED", "none"}  # none: it was done


def verdict(call: str, gave: Any, sums: dict[str, list[float]]) -> str:
    """`pass`, or what went wrong."""
    if isinstance(gave, str) and gave.startswith("failed: "):
        told = gave.removeprefix("failed: ").removeprefix("InferenceServerException: ")
        return told.splitlines()[0][:LONGEST].replace("|", "/")
    wanted: Any
    match call:
        case "wrong shape" | "unknown model":
            return "pass" if gave[0] in REFUSED else f"status {gave[0]}"
        case "load":
            return "pass" if gave[0] in UNLOADED else f"status {gave[0]}"
        case "stream":
            return "pass" if gave[:10] == STREAM else "not in order"
        case "live" | "ready" | "model ready":
            wanted = True
        case "metadata" | "config" | "statistics":
            wanted = "mlp"
        case "index":
            return "pass" if gave.endswith("READY") else f"gave {gave!r}"
        case "id":
            wanted = "seven"
        case "same":
            wanted = 1
        case _ if isinstance(gave[0], str):
            return f"{gave[0]}: {gave[1]}"[:LONGEST].replace("|", "/")
        case _:
            close = np.allclose(gave, sums["large" if call == "large" else "small"], rtol=1e-3)
            return "pass" if close else "another answer"
    return "pass" if gave == wanted else f"gave {gave!r}"[:LONGEST]


def main() -> None:
    """Call all, and print."""
    core = min(os.sched_getaffinity(0))
    told: dict[str, dict[str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mlp.onnx"
        save_mlp(path)
        bare = onnxruntime.InferenceSession(path)
        sums = {
            name: bare.run(None, {"x": rows})[0].sum(axis=0).tolist()
            for name, rows in (("small", ROWS), ("large", LARGE))
        }
        with server(path, core) as (_, port):
            told["Kohort"] = clients_told("mlp", f"127.0.0.1:{port}")
        for peer in REQUIREMENTS:
            ports = (free_port(), free_port() + 1)
            with running(peer, path, core, ports):
                told[peer] = clients_told("mlp", *(f"127.0.0.1:{port}" for port in ports))
    print(f"| client | call | {' | '.join(told)} |\n|{'---|' * (2 + len(told))}")
    for client, calls in told["Kohort"].items():
        for call in calls:
            verdicts = [verdict(call, server[client][call], sums) for server in told.values()]
            print(f"| {client} | {call} | {' | '.join(verdicts)} |")


if __name__ == "__main__":
    main()
