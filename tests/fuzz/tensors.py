"""Models that give back what they get, good requests for them, and values that are out of place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from kohort_server.datatypes import BYTES, FIXED_SIZE
from kohort_server.front.wire import pack_bytes

# By model: the inputs' datatypes and their extents after the rows.
MODELS: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    "one": {"x": ("FP32", (4,))},
    "free": {"x": ("FP32", (-1, -1)), "h": ("BF16", (2,))},
    "many": {
        "a": ("INT8", (2,)),
        "b": ("BOOL", (2,)),
        "c": ("FP16", (2,)),
        "d": ("INT64", (2,)),
        "e": ("UINT64", (2,)),
        "s": (BYTES, (2,)),
    },
}
ELEMENTS = {
    "INT8": TensorProto.INT8,
    "BOOL": TensorProto.BOOL,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "INT64": TensorProto.INT64,
    "UINT64": TensorProto.UINT64,
    BYTES: TensorProto.STRING,
}
ROWS = (1, 1, 1, 2, 3, 5, 40)
POOL = 40  # good requests of each model that are made beforehand


def save_model(path: Path, name: str) -> None:
    """A model whose output `NAME_out` is its input `NAME`."""
    nodes, inputs, outputs = [], [], []
    for tensor, (datatype, extents) in MODELS[name].items():
        shape = [
            "batch",
            *(str(axis) if extent < 0 else extent for axis, extent in enumerate(extents)),
        ]
        nodes.append(helper.make_node("Identity", [tensor], [f"{tensor}_out"]))
        kind = ELEMENTS[datatype]
        inputs.append(helper.make_tensor_value_info(tensor, kind, shape))
        outputs.append(helper.make_tensor_value_info(f"{tensor}_out", kind, shape))
    graph = helper.make_graph(nodes, name, inputs, outputs)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


@dataclass(frozen=True)
class Tensor:
    """One input in all its forms."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: list[Any]
    raw: bytes


def tensor(name: str, datatype: str, shape: tuple[int, ...], random: np.random.Generator) -> Tensor:
    """A random one, of values that every form holds exactly."""
    count = int(np.prod(shape, dtype=int))
    if datatype == BYTES:
        texts = [f"t{number}" for number in random.integers(0, 1000, count)]
        return Tensor(name, datatype, shape, texts, pack_bytes(texts))
    array: NDArray[Any] = random.integers(0, 2 if datatype == "BOOL" else 100, count)
    stored = array.astype(FIXED_SIZE[datatype].dtype)
    return Tensor(name, datatype, shape, stored.tolist(), stored.tobytes())


def make_pool(model: str) -> list[list[Tensor]]:
    """The inputs of good requests."""
    random = np.random.default_rng(7)
    pool = []
    for number in range(POOL):
        rows = ROWS[number % len(ROWS)]
        pool.append(
            [
                tensor(name, datatype, (rows, *(3 if e < 0 else e for e in extents)), random)
                for name, (datatype, extents) in MODELS[model].items()
            ]
        )
    return pool


def as_json(
    inputs: list[Tensor], random: Random, identity: str, binary: bool
) -> tuple[dict[str, Any], bytes]:
    """A request and the binary tensors that follow it."""
    told, tail = [], []
    for given in inputs:
        one: dict[str, Any] = {
            "name": given.name,
            "shape": list(given.shape),
            "datatype": given.datatype,
        }
        if binary and random.random() < 0.8:
            one["parameters"] = {"binary_data_size": len(given.raw)}
            tail.append(given.raw)
        else:
            one["data"] = given.values
        told.append(one)
    request: dict[str, Any] = {"id": identity, "inputs": told}
    if binary:
        request["parameters"] = {"binary_data_output": True}
    return request, b"".join(tail)


# What stands where something else belongs. A string that begins with RAW is written as it is.
RAW = "\x01raw:"
WEIRD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 1.5, 1e308),
    *("", "x", "x" * 1000, "\ud800", "\x00\x1f", "é", "FP32", "BYTES", "BF16", "fp32", "INT8"),
    *([], {}, [[]], [None], [1, "a"], {"a": 1}, [0.5] * 300, [[1], [2, 3]], ["a", "b"]),
    *(f"{RAW}{'9' * 4000}", f"{RAW}{'9' * 5000}", f"{RAW}-{'9' * 4299}", f"{RAW}NaN"),
    *(f"{RAW}1e400", f"{RAW}-Infinity", f"{RAW}[1,,2]", f"{RAW}{'[' * 3000}", f'{RAW}"\udcff"'),
    *(f"{RAW}{'[' * 200}1{']' * 200}", f"{RAW}01", f"{RAW}1E5", f'{RAW}"\\u00"', f"{RAW}"),
)
# Names that mean something, wherever they stand.
KEYS = (
    *("id", "name", "shape", "datatype", "data", "inputs", "outputs", "parameters", "timeout"),
    *("binary_data", "binary_data_size", "binary_data_output", "classification"),
    *("shared_memory_region", "triton_enable_empty_final_response", "priority", "sequence_id", ""),
)


def misplace(value: Any, random: Random) -> Any:
    """The same JSON with something in a wrong place."""
    if isinstance(value, dict) and random.random() < 0.85:
        changed = dict(value)
        if not changed or random.random() < 0.2:
            changed[random.choice(KEYS)] = random.choice(WEIRD)
        elif random.random() < 0.15:
            changed.pop(random.choice(list(changed)))
        else:
            key = random.choice(list(changed))
            changed[key] = misplace(changed[key], random)
        return changed
    if isinstance(value, list) and value and random.random() < 0.75:
        changed_list = list(value)
        at = random.randrange(len(value))
        what = random.random()
        if what < 0.15:
            changed_list.pop(at)
        elif what < 0.3:
            changed_list.insert(at, value[at])
        else:
            changed_list[at] = misplace(value[at], random)
        return changed_list
    return random.choice(WEIRD)


def dump(value: Any) -> bytes:
    """JSON, with what is RAW as it is."""
    text = json.dumps(value)
    if "\\u0001raw:" not in text:
        return text.encode()
    pieces = text.split('"\\u0001raw:')
    written = [pieces[0]]
    for piece in pieces[1:]:
        raw, _, rest = json_string_end(piece)
        written += [json.loads(f'"{raw}"'), rest]
    return "".join(written).encode("utf-8", "surrogateescape")


def json_string_end(text: str) -> tuple[str, str, str]:
    """A JSON string's text up to its closing quotation mark, that, and what follows."""
    at = 0
    while text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return text[:at], '"', text[at + 1 :]


def damage(data: bytes, random: Random) -> bytes:
    """The bytes with a few of them changed, lost, doubled, or put elsewhere."""
    if not data:
        return random.randbytes(3)
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(changed) + 1)
        size = random.choice((1, 1, 2, 4, 30))
        match random.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([random.randrange(256)])
            case 1 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case 2:
                changed[at:at] = random.randbytes(size)
            case 3:
                del changed[at : at + size]
            case 4:
                changed[at:at] = changed[at : at + size]
            case _:
                del changed[at:]
        if not changed:
            break
    return bytes(changed)
