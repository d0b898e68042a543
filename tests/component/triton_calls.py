"""Calls a server as users of tritonclient do; run by a test in an environment that has it.

Prints one line of JSON: what each call gave. The model `m` maps FP32 rows of 64 to 10.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

ROWS = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
LARGE = np.random.default_rng(1).standard_normal((3000, 64)).astype(np.float32)


def tensor(module: Any, rows: Any = ROWS, **how: Any) -> Any:
    """An input of the client's own kind."""
    given = module.InferInput("x", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows, **how)
    return given


def checksum(result: Any) -> list[float]:
    """What tells an answer from another."""
    return [float(value) for value in result.as_numpy("y").sum(axis=0)]


def refusal(call: Any) -> list[str]:
    """Status and message of a call that is refused."""
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    return ["none", ""]


def http_calls(url: str) -> dict[str, Any]:
    """Over HTTP."""
    client = http_client.InferenceServerClient(url)
    binary = [http_client.InferRequestedOutput("y", binary_data=True)]
    plain = [http_client.InferRequestedOutput("y", binary_data=False)]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready() and client.is_model_ready("m"),
        "metadata": client.get_model_metadata("m")["name"],
        "config": client.get_model_config("m")["name"],
        "statistics": client.get_inference_statistics("m")["model_stats"][0]["name"],
        "index": client.get_model_repository_index()[0]["state"],
        "binary": checksum(client.infer("m", [tensor(http_client)], outputs=binary)),
        "json": checksum(
            client.infer("m", [tensor(http_client, binary_data=False)], outputs=plain)
        ),
        "gzip": checksum(
            client.infer("m", [tensor(http_client)], request_compression_algorithm="gzip")
        ),
        "deflate": checksum(
            client.infer("m", [tensor(http_client)], request_compression_algorithm="deflate")
        ),
        "load": refusal(lambda: client.load_model("m")),
        "wrong shape": refusal(
            lambda: client.infer("m", [tensor(http_client, np.zeros((1, 3), np.float32))])
        ),
        "unknown model": refusal(lambda: client.infer("other", [tensor(http_client)])),
    }


def grpc_calls(url: str) -> dict[str, Any]:
    """Over gRPC, each call waited for."""
    client = grpc_client.InferenceServerClient(url)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready() and client.is_model_ready("m"),
        "metadata": client.get_model_metadata("m").name,
        "config": client.get_model_config("m").config.name,
        "statistics": client.get_inference_statistics("m").model_stats[0].name,
        "index": client.get_model_repository_index().models[0].state,
        "binary": checksum(client.infer("m", [tensor(grpc_client)], client_timeout=30)),
        "large": checksum(client.infer("m", [tensor(grpc_client, LARGE)])),
        "gzip": checksum(client.infer("m", [tensor(grpc_client)], compression_algorithm="gzip")),
        "id": client.infer("m", [tensor(grpc_client)], request_id="seven").get_response().id,
        "load": refusal(lambda: client.load_model("m")),
        "wrong shape": refusal(
            lambda: client.infer("m", [tensor(grpc_client, np.zeros((1, 3), np.float32))])
        ),
        "unknown model": refusal(lambda: client.infer("other", [tensor(grpc_client)])),
        "stream": stream(client),
    }


def stream(client: Any) -> list[str]:
    """Ids of ten good requests of a stream in the order of their answers, and a bad one's error."""
    answers: list[str] = []
    done = threading.Semaphore(0)

    def take(result: Any, error: Any) -> None:
        answers.append(str(error) if error else result.get_response().id)
        done.release()

    client.start_stream(take)
    for index in range(10):
        client.async_stream_infer("m", [tensor(grpc_client)], request_id=str(index))
    client.async_stream_infer("m", [tensor(grpc_client, np.zeros((1, 3), np.float32))])
    for _ in range(11):
        done.acquire(timeout=30)
    client.stop_stream()
    return answers


async def aio_calls(url: str) -> dict[str, Any]:
    """Over gRPC, many at once."""
    async with grpc_aio.InferenceServerClient(url) as client:
        results = await asyncio.gather(*(client.infer("m", [tensor(grpc_aio)]) for _ in range(200)))
        given_up = asyncio.ensure_future(client.infer("m", [tensor(grpc_aio, LARGE)]))
        await asyncio.sleep(0)
        given_up.cancel()
        after = await client.infer("m", [tensor(grpc_aio)])
        return {
            "same": len({json.dumps(np.round(checksum(result), 4).tolist()) for result in results}),
            "after a cancelled one": checksum(after),
        }


if __name__ == "__main__":
    given = sys.argv[1]
    told = {
        "http": http_calls(given),
        "grpc": grpc_calls(given),
        "aio": asyncio.run(aio_calls(given)),
    }
    print(json.dumps(told))
