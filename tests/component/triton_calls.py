"""Calls a server as users of tritonclient do. See `client_calls`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
from client_calls import BAD, LARGE, ROWS, Calls, tell
from tritonclient.utils import InferenceServerException

SECONDS = 10.0  # that a stream may take for an answer


def tensor(module: Any, rows: Any = ROWS, **how: Any) -> Any:
    """An input of tritonclient's."""
    given = module.InferInput("x", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows, **how)
    return given


def checksum(result: Any) -> list[float]:
    """What tells an answer from another."""
    return [float(value) for value in result.as_numpy("y").sum(axis=0)]


def refusal(call: Callable[[], Any]) -> list[str]:
    """Status and message of a call that is refused."""
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    return ["none", ""]


def http_calls(address: str, model: str) -> Calls:
    """tritonclient over HTTP."""
    client = http_client.InferenceServerClient(address)

    def infer(given: Any, *outputs: Any, **how: Any) -> Any:
        return client.infer(model, [given], outputs=outputs or None, **how)

    given = tensor(http_client)
    plain = tensor(http_client, binary_data=False)
    as_binary = http_client.InferRequestedOutput("y", binary_data=True)
    as_json = http_client.InferRequestedOutput("y", binary_data=False)
    return {
        "live": client.is_server_live,
        "ready": lambda: client.is_server_ready() and client.is_model_ready(model),
        "metadata": lambda: client.get_model_metadata(model)["name"],
        "config": lambda: client.get_model_config(model)["name"],
        "statistics": lambda: client.get_inference_statistics(model)["model_stats"][0]["name"],
        "index": lambda: client.get_model_repository_index()[0]["state"],
        "binary": lambda: checksum(infer(given, as_binary)),
        "json": lambda: checksum(infer(plain, as_json)),
        "default": lambda: checksum(infer(given)),
        "gzip": lambda: checksum(infer(given, request_compression_algorithm="gzip")),
        "deflate": lambda: checksum(infer(given, request_compression_algorithm="deflate")),
        "id": lambda: infer(given, request_id="seven").get_response()["id"],
        "load": lambda: refusal(lambda: client.load_model(model)),
        "wrong shape": lambda: refusal(lambda: infer(tensor(http_client, BAD))),
        "unknown model": lambda: refusal(lambda: client.infer("other", [given])),
    }


def grpc_calls(address: str, model: str) -> Calls:
    """tritonclient over gRPC, each call waited for."""
    client = grpc_client.InferenceServerClient(address)
    given = tensor(grpc_client)

    def infer(given: Any = given, **how: Any) -> Any:
        return client.infer(model, [given], client_timeout=30, **how)

    return {
        "live": client.is_server_live,
        "ready": lambda: client.is_server_ready() and client.is_model_ready(model),
        "metadata": lambda: client.get_model_metadata(model).name,
        "config": lambda: client.get_model_config(model).config.name,
        "statistics": lambda: client.get_inference_statistics(model).model_stats[0].name,
        "index": lambda: client.get_model_repository_index().models[0].state,
        "binary": lambda: checksum(infer()),
        "large": lambda: checksum(infer(tensor(grpc_client, LARGE))),
        "gzip": lambda: checksum(infer(compression_algorithm="gzip")),
        "id": lambda: infer(request_id="seven").get_response().id,
        "stream": lambda: stream(client, model),
        "load": lambda: refusal(lambda: client.load_model(model)),
        "wrong shape": lambda: refusal(lambda: infer(tensor(grpc_client, BAD))),
        "unknown model": lambda: refusal(lambda: client.infer("other", [given])),
    }


def stream(client: Any, model: str) -> list[str]:
    """Ids of ten good requests of a stream in the order of their answers, and a bad one's error."""
    answers: list[str] = []
    done = threading.Semaphore(0)

    def take(result: Any, error: Any) -> None:
        answers.append(str(error) if error else result.get_response().id)
        done.release()

    client.start_stream(take)
    for index in range(10):
        client.async_stream_infer(model, [tensor(grpc_client)], request_id=str(index))
    client.async_stream_infer(model, [tensor(grpc_client, BAD)])
    complete = all(done.acquire(timeout=SECONDS) for _ in range(11))
    client.stop_stream()
    if not complete:
        raise TimeoutError(f"{len(answers)} of 11 answers: {answers}")
    return answers


def aio_calls(address: str, model: str) -> Calls:
    """tritonclient over gRPC, many calls at once."""

    async def crowd(client: Any) -> int:
        given = [tensor(grpc_aio)]
        results = await asyncio.gather(*(client.infer(model, given) for _ in range(200)))
        return len({json.dumps(np.round(checksum(result), 4).tolist()) for result in results})

    async def after_cancelled(client: Any) -> list[float]:
        given_up = asyncio.ensure_future(client.infer(model, [tensor(grpc_aio, LARGE)]))
        await asyncio.sleep(0)
        given_up.cancel()
        return checksum(await client.infer(model, [tensor(grpc_aio)]))

    def connected(call: Callable[[Any], Coroutine[Any, Any, Any]]) -> Callable[[], Any]:
        async def run() -> Any:
            async with grpc_aio.InferenceServerClient(address) as client:
                return await call(client)

        return lambda: asyncio.run(run())

    return {"same": connected(crowd), "after a cancelled one": connected(after_cancelled)}


if __name__ == "__main__":
    tell({"http": http_calls}, {"grpc": grpc_calls, "aio": aio_calls})
