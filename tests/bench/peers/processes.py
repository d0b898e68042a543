"""Starting the peers, each in an environment of its own under the cache, made the first time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = {
    "MLServer": ("mlserver==1.7.1", "onnxruntime"),
    "KServe": ("kserve==0.21.0", "onnxruntime"),
}
START_SECONDS = 90.0


def environment(peer: str) -> Path:
    """The interpreter of a peer's environment."""
    home = Path.home() / ".cache/kohort/peers" / peer.lower()
    if not (home / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS[peer]]
        subprocess.run(pip, check=True)
        (home / ".ready").touch()
    return home / "bin/python"


@contextmanager
def running(peer: str, model: Path, core: int, ports: tuple[int, int]) -> Iterator[int]:
    """A ready peer on one core with HTTP and gRPC on these ports: its process id."""
    python = environment(peer)
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        if peer == "MLServer":
            settings = {"host": "127.0.0.1", "http_port": ports[0], "grpc_port": ports[1]}
            settings |= {"metrics_port": ports[1] + 1, "parallel_workers": 0, "debug": False}
            (home / "settings.json").write_text(json.dumps(settings))
            (home / "model-settings.json").write_text(
                json.dumps(
                    {
                        "name": "mlp",
                        "implementation": "mlserver_model.OnnxModel",
                        "max_batch_size": 32,
                        "max_batch_time": 0.001,
                        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
                        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
                    }
                )
            )
            command = [str(python.parent / "mlserver"), "start", str(home)]
        else:
            command = [str(python), str(HERE / "kserve_model.py"), f"--http_port={ports[0]}"]
            command += [f"--grpc_port={ports[1]}", "--workers=1"]
        # numpy's own threads would only get in each other's way on one core.
        given = {"MODEL_FILE": str(model), "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            env={**os.environ, **given},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(process, ports[0])
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Return when the model is ready."""
    end = time.monotonic() + START_SECONDS
    url = f"http://127.0.0.1:{port}/v2/models/mlp/ready"
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.2)
    raise RuntimeError("the server did not become ready")
