"""Connections of HTTP/2: calls of gRPC and plain requests in frames, good and otherwise."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from random import Random
from typing import Any

from kohort_server.front import frames
from kohort_server.front.hpack import Headers, encode_fields
from kohort_server.front.wire import pack_bytes
from kohort_server.rpc import protobuf
from tests.fuzz import http1
from tests.fuzz.tensors import Tensor, as_json, damage, dump, misplace

SERVICE = b"/inference.GRPCInferenceService/"
INFER = SERVICE + b"ModelInfer"
STREAM = SERVICE + b"ModelStreamInfer"
OTHERS = (
    *(SERVICE + name for name in (b"ServerLive", b"ServerReady", b"ModelReady", b"ModelMetadata")),
    *(SERVICE + name for name in (b"ModelConfig", b"ModelStatistics", b"RepositoryIndex")),
    *(SERVICE + name for name in (b"RepositoryModelLoad", b"ServerMetadata", b"None", b"")),
    *(b"/grpc.health.v1.Health/Check", b"/grpc.health.v1.Health/Watch", b"", b"/\xff"),
    b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
WIDE = {frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW}
TYPED = {"INT8": "int_contents", "FP32": "fp32_contents", "UINT64": "uint64_contents"}


def greeting(settings: dict[int, int], window: int) -> bytes:
    """What a client begins with."""
    more = frames.window_update(0, window) if window else b""
    return frames.PREFACE + frames.settings(settings) + more


GOOD_GREETING = greeting(WIDE, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)


def prefixed(message: bytes, compressed: int = 0) -> bytes:
    """A message of gRPC."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def infer_values(model: str, inputs: list[Tensor], identity: str, raw: bool = True) -> Any:
    """A ModelInferRequest."""
    told: dict[str, Any] = {"model_name": model, "id": identity}
    told["inputs"] = [
        {"name": given.name, "datatype": given.datatype, "shape": given.shape} for given in inputs
    ]
    if raw:
        told["raw_input_contents"] = [given.raw for given in inputs]
    else:
        for one, given in zip(told["inputs"], inputs, strict=True):
            if given.datatype in TYPED:
                one["contents"] = {TYPED[given.datatype]: given.values}
    return told


def good(number: int, model: str, inputs: list[Tensor], identity: str) -> bytes:
    """A call on this stream that must be answered with its inputs."""
    message = protobuf.encode("inference.ModelInferRequest", infer_values(model, inputs, identity))
    return b"".join(stream_frames(number, grpc_fields(INFER), prefixed(message), 16_384))


def grpc_fields(path: bytes) -> Headers:
    """The headers of a call."""
    return {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"h",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }


def stream_frames(number: int, fields: Headers, body: bytes, size: int) -> list[bytes]:
    """The frames of one stream."""
    head = frames.frame(frames.HEADERS, frames.END_HEADERS, number, encode_fields(fields))
    made = [head]
    for at in range(0, max(len(body), 1), size):
        last = at + size >= len(body)
        flags = frames.END_STREAM if last else 0
        made.append(frames.frame(frames.DATA, flags, number, body[at : at + size]))
    return made


@dataclass
class Conversation:
    """A connection's bytes, and how many requests they hold."""

    pieces: list[bytes] = field(default_factory=list)
    requests: int = 0


def bad(model: str, pool: list[list[Tensor]], random: Random) -> Conversation:
    """A connection with something wrong on it, mostly."""
    made = Conversation([random_greeting(random)])
    streams = []
    number = 1
    for _ in range(random.choice((1, 2, 4, 8))):
        streams.append(random_stream(number, model, random.choice(pool), random))
        made.requests += 1
        number += random.choice((2, 2, 2, 2, 4, 1, 0, -2))
        number = max(number, 0)
    while streams:  # frames of several streams come in any order
        stream = random.choice(streams) if random.random() < 0.5 else streams[0]
        made.pieces.append(stream.pop(0))
        if random.random() < 0.1:
            made.pieces.append(random_frame(number, random))
        streams = [left for left in streams if left]
    if random.random() < 0.25:
        place = random.randrange(len(made.pieces))
        made.pieces[place] = damage(made.pieces[place], random)
    return made


def random_greeting(random: Random) -> bytes:
    """Settings that a client may have, and some that it may not."""
    if random.random() < 0.6:
        return GOOD_GREETING
    settings = {
        random.choice((1, 2, 3, 4, 5, 6, 7, 99)): random.choice(
            (0, 1, 10, 16_384, 65_535, frames.LARGEST_FRAME_SIZE, frames.LARGEST_WINDOW, 2**32 - 1)
        )
        for _ in range(random.randrange(4))
    }
    return greeting(settings, random.choice((0, 1, 1000, 1 << 30)))


def random_stream(number: int, model: str, inputs: list[Tensor], random: Random) -> list[bytes]:
    """One request in frames."""
    kind = random.random()
    if kind < 0.15:
        fields, body = plain_request(model, inputs, random)
    else:
        fields, body = grpc_request(model, inputs, random)
    if random.random() < 0.1:
        name, value = random.choice(list(fields.items()))
        changed = dict(fields)
        changed[damage(name, random)] = damage(value, random)
        fields = changed
    made = stream_frames(
        number,
        fields,
        body,
        random.choice((7, 100, 1000, 16_384, 100_000)) if len(body) < 2000 else 16_384,
    )
    if random.random() < 0.4:
        change_frames(made, number, random)
    return made


def change_frames(made: list[bytes], number: int, random: Random) -> None:
    """Cut, pad, reorder, double, lose or reset."""
    at = random.randrange(len(made))
    kind, flags, payload = made[at][3], made[at][4], made[at][9:]
    match random.randrange(9):
        case 0:
            made.append(frames.reset(number, random.choice((0, 5, 8, 99))))
        case 1:
            made.insert(at, frames.reset(number, 8))
        case 2:
            padding = random.choice((0, 1, 255))
            padded = bytes([padding]) + payload + bytes(random.choice((padding, padding, 0)))
            made[at] = frames.frame(kind, flags | frames.PADDED, number, padded)
        case 3:
            made[at] = frames.frame(kind, random.randrange(256), number, payload)
        case 4:
            made[at] = frames.frame(random.randrange(12), flags, number, payload)
        case 5:
            made.insert(at, made[at])
        case 6:
            made.pop(at)
            if not made:
                made.append(b"")
        case 7:  # headers in pieces
            block = made[0][9:]
            half = len(block) // 2
            flags = made[0][4] & ~frames.END_HEADERS
            made[:1] = [
                frames.frame(frames.HEADERS, flags, number, block[:half]),
                frames.frame(frames.CONTINUATION, frames.END_HEADERS, number, block[half:]),
            ]
        case _:  # trailers
            flags = random.choice((frames.END_STREAM, 0)) | frames.END_HEADERS
            made.append(frames.frame(frames.HEADERS, flags, number, encode_fields({b"a": b"b"})))


def random_frame(number: int, random: Random) -> bytes:
    """A frame that carries no request."""
    return random.choice(
        (
            frames.frame(frames.PING, 0, 0, random.randbytes(random.choice((8, 8, 7)))),
            frames.frame(frames.SETTINGS, frames.ACK, 0),
            frames.settings({frames.INITIAL_WINDOW_SIZE: random.choice((0, 5, 100_000, 2**31))}),
            frames.window_update(random.choice((0, 1, number)), random.choice((0, 1, 1 << 20))),
            frames.window_update(0, frames.LARGEST_WINDOW),
            frames.go_away(0, 0),
            frames.frame(frames.PRIORITY, 0, number, bytes(5)),
            frames.frame(random.randrange(14), random.randrange(256), number, random.randbytes(9)),
        )
    )


def plain_request(model: str, inputs: list[Tensor], random: Random) -> tuple[Headers, bytes]:
    """An inference without gRPC."""
    told, tail = as_json(inputs, random, "7", binary=True)
    if random.random() < 0.5:
        told = misplace(told, random)
    header = dump(told)
    request = http1.infer(model, told, tail, random)
    if random.random() < 0.4:
        random.choice((http1.change_target, http1.change_header_length, http1.change_encoding))(
            request, random
        )
    body = request.body or b""
    fields = {b":method": request.method, b":scheme": b"http", b":path": request.target}
    fields |= {name.lower(): value for name, value in request.headers}
    if random.random() < 0.5:
        wrong = (len(body) + 1, len(body) - 1, 10**9, 10**20)
        size = len(body) if random.random() < 0.8 else random.choice(wrong)
        fields[b"content-length"] = b"%d" % size
    if random.random() < 0.1:
        fields[b":method"] = random.choice((b"\xff", b"", b"HEAD", b"GET"))
    if not header:
        fields.pop(b":path")
    return fields, body


def grpc_request(model: str, inputs: list[Tensor], random: Random) -> tuple[Headers, bytes]:
    """A call of some method."""
    path = random.choice((INFER, INFER, INFER, INFER, STREAM, STREAM, random.choice(OTHERS)))
    fields = grpc_fields(path)
    messages = []
    for _ in range(
        random.choice((1, 1, 2, 5)) if path == STREAM else random.choice((1,) * 9 + (2,))
    ):
        if path in (INFER, STREAM):
            message = infer_message(model, inputs, random)
        else:
            name = random.choice((model, "", "x" * 50))
            message = protobuf.encode("inference.ModelReadyRequest", {"name": name})
        if random.random() < 0.3:
            message = damage(message, random)
        messages.append(prefixed(message))
    body = b"".join(messages)
    if random.random() < 0.15:
        encoding, body = random.choice(
            (
                (b"gzip", prefixed(gzip.compress(messages[0][5:], 1), 1)),
                (b"gzip", prefixed(messages[0][5:], 1)),
                (b"deflate", prefixed(http1.BOMB if random.random() < 0.05 else b"", 1)),
                (b"snappy", prefixed(messages[0][5:], 1)),
                (b"identity", prefixed(messages[0][5:], 7)),
            )
        )
        fields[b"grpc-encoding"] = encoding
    if random.random() < 0.1:
        told = (b"1S", b"0S", b"1n", b"99999999H", b"123456789S", b"x", b"", b"-1S", b"1", b"\xb2S")
        fields[b"grpc-timeout"] = random.choice(told)
    if random.random() < 0.1:
        fields[b"x-kohort-cohort"] = damage(b"cohort", random)
    if random.random() < 0.1:
        body = damage(body, random)
    return fields, body


SHAPES = ((), (0,), (-1,), (1, -4), (2**62, 4), (1,) * 40, (0, 4), (3, 4), (2**31, 2**31, 4))
DATATYPES = ("", "FP32", "BYTES", "fp32", "BF16", "BOOL", "x" * 3000)


def infer_message(model: str, inputs: list[Tensor], random: Random) -> bytes:
    """A ModelInferRequest, good or not."""
    told = infer_values(model, inputs, random.choice(("", "7", "é")), random.random() < 0.7)
    if random.random() < 0.5:
        change_values(told, random)
    return protobuf.encode("inference.ModelInferRequest", told)


def change_values(told: dict[str, Any], random: Random) -> None:
    """Something that the model does not have or want."""
    given = random.choice(told["inputs"]) if told["inputs"] else {}
    raw = told.setdefault("raw_input_contents", [])
    match random.randrange(9):
        case 0:
            told["model_name"] = random.choice(("", "other", "é" * 2000))
        case 1:
            told["model_version"] = random.choice(("1", "2", "x" * 2000))
        case 2:
            given["shape"] = random.choice(SHAPES)
        case 3:
            given["datatype"] = random.choice(DATATYPES)
        case 4:
            given["name"] = random.choice(("", "y", "x" * 9000))
        case 5 if raw:
            at = random.randrange(len(raw))
            raw[at] = random.choice(
                (b"", raw[at][:-1], raw[at] * 2, pack_bytes(["a"]), bytes(70_000))
            )
        case 6:
            told["inputs"] = random.choice(([], told["inputs"] * 2, told["inputs"][1:]))
        case 7:
            name = random.choice(("timeout", "triton_enable_empty_final_response", "priority"))
            value = random.choice(
                (
                    {"int64_param": random.choice((0, 1, -1, 2**63 - 1))},
                    {"uint64_param": 2**64 - 1},
                    {"bool_param": True},
                    {"string_param": "x"},
                    {"double_param": 1.5},
                    {},
                )
            )
            told["parameters"] = {name: value}
        case _:
            wanted = random.choice(("y", "x_out", "a_out", ""))
            told["outputs"] = [{"name": wanted}] * random.choice((1, 2))
    if not raw:
        del told["raw_input_contents"]
