"""Calls a server as users of KServe's clients do. See `client_calls`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import httpx
import kserve
from client_calls import BAD, ROWS, Calls, tell


def request(model: str, rows: Any, binary: bool, **more: Any) -> Any:
    """A request as KServe's clients want it."""
    given = kserve.InferInput("x", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows, binary_data=binary)
    return kserve.InferRequest(model, [given], request_id="seven", **more)


def sums(response: Any) -> list[float]:
    """What tells an answer from another."""
    assert response.id == "seven", response.id
    return [float(value) for value in response.outputs[0].as_numpy().reshape(-1, 10).sum(axis=0)]


def rest_calls(address: str, model: str) -> Calls:
    """KServe's InferenceRESTClient."""
    url = f"http://{address}"

    def connected(call: Callable[[Any], Coroutine[Any, Any, Any]]) -> Callable[[], Any]:
        async def run() -> Any:
            async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2")) as client:
                return await call(client)

        return lambda: asyncio.run(run())

    def infer(rows: Any, binary: bool, **more: Any) -> Callable[[Any], Coroutine[Any, Any, Any]]:
        async def call(client: Any) -> Any:
            asked = request(model, rows, binary, **more)
            try:
                return sums(await client.infer(url, asked, model_name=model))
            except httpx.HTTPStatusError as error:
                return [str(error.response.status_code), str(error)]

        return call

    out = {"binary_data_output": True}
    return {
        "live": connected(lambda client: client.is_server_live(url)),
        "ready": connected(lambda client: client.is_server_ready(url)),
        "model ready": connected(lambda client: client.is_model_ready(url, model)),
        "json": connected(infer(ROWS, binary=False)),
        "binary": connected(infer(ROWS, binary=True)),
        "binary out": connected(infer(ROWS, binary=True, parameters=out)),
        "wrong shape": connected(infer(BAD, binary=False)),
    }


def grpc_calls(address: str, model: str) -> Calls:
    """KServe's InferenceGRPCClient."""

    def connected(call: Callable[[Any], Coroutine[Any, Any, Any]]) -> Callable[[], Any]:
        async def run() -> Any:
            async with kserve.InferenceGRPCClient(address) as client:
                return await call(client)

        return lambda: asyncio.run(run())

    def infer(rows: Any, binary: bool) -> Callable[[Any], Coroutine[Any, Any, Any]]:
        async def call(client: Any) -> Any:
            try:
                return sums(await client.infer(request(model, rows, binary)))
            except grpc.RpcError as error:
                return [str(error.code()), error.details()]

        return call

    return {
        "live": connected(lambda client: client.is_server_live()),
        "ready": connected(lambda client: client.is_server_ready()),
        "model ready": connected(lambda client: client.is_model_ready(model)),
        "typed": connected(infer(ROWS, binary=False)),
        "raw": connected(infer(ROWS, binary=True)),
        "wrong shape": connected(infer(BAD, binary=True)),
    }


if __name__ == "__main__":
    logging.disable(logging.ERROR)  # they log what they raise
    tell({"kserve rest": rest_calls}, {"kserve grpc": grpc_calls})
