"""Closed-loop clients of an inference server, lean enough to be faster than it: HTTP/1.1 and gRPC.

A client sends the same request again as soon as it is answered. All servers are measured with these.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from kohort_server.front import frames
from kohort_server.front.hpack import encode_fields
from kohort_server.rpc import protobuf

NO_TABLE = b"\x20"  # that no dynamic table is used, at the beginning of the first headers

DATATYPES = {"float32": "FP32", "int32": "INT32"}


@dataclass(frozen=True)
class Target:
    """The model that is called, and a tensor for its only input."""

    model: str
    input: str
    rows: NDArray[np.generic]

    @property
    def tensor(self) -> dict[str, object]:
        """The input without its data, as JSON has it."""
        datatype = DATATYPES[self.rows.dtype.name]
        return {"name": self.input, "shape": list(self.rows.shape), "datatype": datatype}


def http_request(target: Target, binary: bool) -> bytes:
    """One inference request, as a client sends it."""
    tensor = target.tensor
    request: dict[str, object] = {"inputs": [tensor]}
    if binary:
        tensor["parameters"] = {"binary_data_size": target.rows.nbytes}
        request["parameters"] = {"binary_data_output": True}
    else:
        flat = target.rows.reshape(-1).tolist()
        tensor["data"] = [round(value, 6) if isinstance(value, float) else value for value in flat]
    header = json.dumps(request).encode()
    body = header + (target.rows.tobytes() if binary else b"")
    head = (
        f"POST /v2/models/{target.model}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\n"
        f"Content-Type: application/{'octet-stream' if binary else 'json'}\r\n"
        + (f"Inference-Header-Content-Length: {len(header)}\r\n" if binary else "")
        + f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def grpc_message(target: Target) -> bytes:
    """The same as a message of gRPC with its prefix, the tensor raw."""
    message = protobuf.encode(
        "inference.ModelInferRequest",
        {
            "model_name": target.model,
            "inputs": [target.tensor],
            "raw_input_contents": [target.rows.tobytes()],
        },
    )
    return b"\0" + len(message).to_bytes(4, "big") + message


class Client(asyncio.Protocol):
    """One connection; `end` is when it stops."""

    def __init__(self, request: bytes, end: float, latencies: list[float]) -> None:
        self.request = request
        self.end = end
        self.latencies = latencies
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pending = b""
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        """Send the next request."""
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def answered(self) -> None:
        """An answer has come."""
        now = time.perf_counter()
        self.latencies.append(now - self.sent)
        if now < self.end:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.finished.done():
            self.finished.set_result(None)


class HttpClient(Client):
    """Speaks HTTP/1.1."""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        head, separator, body = self.pending.partition(b"\r\n\r\n")
        if not separator:
            return
        at = head.lower().index(b"content-length: ") + 16
        length = head[at:].split(b"\r\n", 1)[0]
        if len(body) < int(length):
            return
        assert head.startswith(b"HTTP/1.1 200"), self.pending
        self.pending = b""
        self.answered()


class GrpcClient(Client):
    """Speaks gRPC: one call at a time, each a stream of HTTP/2."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.number = 1
        self.window = frames.DEFAULT_WINDOW
        self.frame_size = frames.DEFAULT_FRAME_SIZE
        self.unsent = memoryview(b"")
        self.succeeded = False
        block = encode_fields(
            {
                b":method": b"POST",
                b":scheme": b"http",
                b":path": b"/inference.GRPCInferenceService/ModelInfer",
                b":authority": b"127.0.0.1",
                b"te": b"trailers",
                b"content-type": b"application/grpc",
                b"user-agent": b"bench",
            }
        )
        self.head = frames.frame(frames.HEADERS, frames.END_HEADERS, 0, block)
        self.table = NO_TABLE
        cast(asyncio.Transport, transport).write(
            frames.PREFACE
            + frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW})
            + frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)
        )
        super().connection_made(transport)

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.succeeded = False
        block, self.table = self.table + self.head[9:], b""
        self.transport.write(frames.frame(frames.HEADERS, frames.END_HEADERS, self.number, block))
        self.unsent = memoryview(self.request)
        self.pump()

    def pump(self) -> None:
        """Send of the message as much as the connection's window allows; streams' are wide."""
        while self.unsent and self.window > 0:
            size = min(len(self.unsent), self.window, self.frame_size)
            ends = frames.END_STREAM if size == len(self.unsent) else 0
            self.transport.write(
                frames.frame(frames.DATA, ends, self.number, bytes(self.unsent[:size]))
            )
            self.unsent = self.unsent[size:]
            self.window -= size

    def data_received(self, data: bytes) -> None:
        self.pending = data = self.pending + data if self.pending else data
        at = 0
        while len(data) - at >= frames.HEADER_SIZE:
            high, low, kind, flags, number = frames.HEADER.unpack_from(data, at)
            stop = at + frames.HEADER_SIZE + (high << 8 | low)
            if stop > len(data):
                break
            payload = data[at + frames.HEADER_SIZE : stop]
            at = stop
            if kind == frames.SETTINGS and not flags & frames.ACK:
                self.frame_size = dict(frames.read_settings(payload)).get(
                    frames.MAX_FRAME_SIZE, self.frame_size
                )
                self.transport.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
            elif kind == frames.PING and not flags & frames.ACK:
                self.transport.write(frames.frame(frames.PING, frames.ACK, 0, payload))
            elif kind == frames.WINDOW_UPDATE and number == 0:
                self.window += frames.word(payload)
                self.pump()
            elif kind == frames.DATA:
                self.succeeded = True
                self.received = getattr(self, "received", 0) + len(payload)
                if self.received > 1 << 30:
                    self.transport.write(frames.window_update(0, self.received))
                    self.received = 0
            assert kind != frames.GOAWAY, payload
            if flags & frames.END_STREAM and kind in (frames.DATA, frames.HEADERS):
                assert self.succeeded, payload
                self.number += 2
                self.answered()
        self.pending = data[at:]


async def load(
    port: int,
    client: Callable[[float, list[float]], Client],
    connections: int,
    seconds: float,
) -> list[float]:
    """Latencies in seconds of all requests of so many clients."""
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    end = time.perf_counter() + seconds
    clients = [
        (await loop.create_connection(lambda: client(end, latencies), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.finished for client in clients))
    return latencies


def client_for(protocol: str, target: Target) -> Callable[[float, list[float]], Client]:
    """Makes clients that speak `json`, `binary` or `grpc`."""
    if protocol == "grpc":
        message = grpc_message(target)
        return lambda end, latencies: GrpcClient(message, end, latencies)
    request = http_request(target, protocol == "binary")
    return lambda end, latencies: HttpClient(request, end, latencies)
