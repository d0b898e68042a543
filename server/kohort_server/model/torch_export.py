"""A program of torch.export (.pt2) as ONNX, in a process of its own: torch is large and unpickles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.model.origin import invalid

LONGEST = 1800.0  # seconds
NOT_INSTALLED = 3  # exit status of the process


def convert(program: Path, target: Path) -> None:
    """Write the ONNX model of a program to `target`; dynamic dimensions of the program stay dynamic.

    Raises `StartFailure` with EngineUnavailable without torch, ModelInvalid for what cannot be converted.
    """
    # The program's weights and samples may be pickles: torch then takes nothing but tensors from them.
    environment = {**os.environ, "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    environment.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    command = [sys.executable, "-m", __name__, str(program), str(target)]
    try:
        ended = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired as error:
        raise invalid(
            program, f"took more than {LONGEST:.0f} s to convert; export it to ONNX yourself"
        ) from error
    if ended.returncode == 0:
        return
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    said = lines[-1][:400].rstrip(".") if lines else f"exit status {ended.returncode}"
    if ended.returncode == NOT_INSTALLED:
        raise StartFailure(
            FailureReason.ENGINE_UNAVAILABLE,
            f"{program.name} is a program of torch.export, which needs the extra: pip install "
            f"'kohort[server,torch]' ({said})",
        )
    raise invalid(
        program,
        f"could not be converted: {said}; save it with this version of torch, or export it to ONNX yourself "
        "with torch.onnx.export(…, dynamo=True)",
    )


def main(program: str, target: str) -> None:
    """The process: load, convert, write one file and what it needs beside it."""
    try:
        import onnxscript  # noqa: F401 (the exporter needs it)
        import torch
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(NOT_INSTALLED)
    loaded = torch.export.load(program)
    converted = torch.onnx.export(loaded, dynamo=True, verbose=False)
    converted.save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
