"""Batched equals unbatched: random mixes of requests to real models, against the bare engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from kohort_server.batch.batcher import Batcher
from kohort_server.batch.calibration import Curve
from kohort_server.batch.call import Result
from kohort_server.building import Request
from kohort_server.errors import RequestError
from kohort_server.front.calls import InferCall
from kohort_server.front.codec import Codec, InferRequest
from kohort_server.loading import WarmModel, load
from kohort_server.source.fetch import Wanted
from tests.component.server_process import linear_model, save, value

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def elementwise(path: Path) -> Path:
    """Two inputs, two dynamic dimensions, and only kernels that treat each element alone."""
    return save(
        path,
        [
            helper.make_node("Mul", ["x", "x"], ["square"]),
            helper.make_node("Cast", ["n"], ["wide"], to=FLOAT),
            helper.make_node("Add", ["square", "wide"], ["y"]),
            helper.make_node("Identity", ["n"], ["same"]),
        ],
        [value("x", FLOAT, ["b", "s"]), value("n", INT, ["b", 1])],
        [value("y", FLOAT, ["b", "s"]), value("same", INT, ["b", 1])],
    )


def sums_per_row(path: Path) -> Path:
    """An answer whose shape does not tell how long the input was."""
    return save(
        path,
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)],
        [value("x", FLOAT, ["b", "s"])],
        [value("y", FLOAT, ["b"])],
    )


def with_state(path: Path) -> Path:
    """A row's answer depends on the rows before it, as with state."""
    return save(
        path,
        [helper.make_node("CumSum", ["x", "axis"], ["y"])],
        [value("x", FLOAT, ["b", 4])],
        [value("y", FLOAT, ["b", 4])],
        numpy_helper.from_array(np.array(0, np.int64), "axis"),
    )


# By name: how it is made, what calibration must find, and the error that another order of summation
# may make; none where the kernels are the same for every batch.
MODELS: dict[str, tuple[Callable[[Path], Path], str, float]] = {
    "linear": (lambda path: linear_model(path, "batch"), "dynamic", 1e-5),
    "elementwise": (elementwise, "dynamic", 0.0),
    "sums per row": (sums_per_row, "dynamic", 1e-5),
    "with state": (with_state, "none", 0.0),
    "fixed": (lambda path: linear_model(path, 2), "fixed", 0.0),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WarmModel]:
    directory = tmp_path_factory.mktemp("models")
    return {
        name: load(
            Wanted(make(directory / f"{name.replace(' ', '-')}.onnx").as_uri()),
            Request("ONNXRuntime", "FP32", 1),
            directory,
        )
        for name, (make, _, _) in MODELS.items()
    }


class FutureCall(InferCall):
    """A request whose outputs are awaited."""

    def __init__(self, request: InferRequest) -> None:
        super().__init__(request, 0.0)
        self.outcome: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def headers(self) -> dict[bytes, bytes]:
        return {}

    def answer(self, result: Result, start: int | None) -> None:
        rows = slice(None) if start is None else slice(start, start + self.rows)
        self.outcome.set_result({name: array[rows] for name, array in result.arrays.items()})

    def refuse(self, error: RequestError) -> None:
        self.outcome.set_exception(error)


@dataclass
class Sent:
    """One request: its arrays, and its bytes."""

    arrays: dict[str, NDArray[Any]]
    header: bytes
    body: bytes


def make_request(model: WarmModel, rows: int, extent: int, seed: int) -> Sent:
    """Random numbers in binary."""
    random = np.random.default_rng(seed)
    arrays, told = {}, []
    for spec in model.engine.signature.inputs:
        shape = [extent if known < 0 else known for known in spec.shape]
        if spec.shape[0] < 0:
            shape[0] = rows
        drawn = (
            random.integers(0, 9, shape) if spec.datatype == "INT64" else random.normal(0, 1, shape)
        )
        array = drawn.astype(np.int64 if spec.datatype == "INT64" else np.float32)
        arrays[spec.name] = array
        size = {"binary_data_size": array.nbytes}
        told.append(
            {"name": spec.name, "shape": shape, "datatype": spec.datatype, "parameters": size}
        )
    header = json.dumps({"inputs": told}).encode()
    return Sent(arrays, header, b"".join(array.tobytes() for array in arrays.values()))


mixes = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([1, 3, 16]), st.integers(0, 1000)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("inline", [True, False], ids=["on the loop", "in a thread"])
@given(mix=mixes)
@settings(max_examples=40)
def test_every_request_of_a_mix_gets_what_the_bare_model_gives_it_alone(
    models: dict[str, WarmModel], name: str, inline: bool, mix: list[tuple[int, int, int]]
) -> None:
    model = models[name]
    _, kind, tolerance = MODELS[name]
    assert model.batch.kind == kind
    codec = Codec("m", "r", model.engine.signature, model.batch)
    sent = [make_request(model, *one) for one in mix]

    async def world() -> None:
        batcher = Batcher(model.engine, Curve({1: 1e-3, 8: 1e-3}, max_rows=8, inline=inline))
        calls = [FutureCall(codec.decode(one.header + one.body, len(one.header))) for one in sent]
        for call in calls:
            batcher.submit(call)
        for one, call in zip(sent, calls, strict=True):
            alone = model.engine.run(one.arrays)
            for output, got in (await call.outcome).items():
                assert got.shape == alone[output].shape
                np.testing.assert_allclose(got, alone[output], rtol=tolerance, atol=tolerance)
        batcher.close()

    asyncio.run(world())
