"""Real models of several kinds, for engines to be built of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.component.server_process import save, value

WIDTH, TOKENS = 32, 7


def weights(random: np.random.Generator, **shapes: tuple[int, ...]) -> list[Any]:
    """Weights of about the size that training gives them."""
    return [
        numpy_helper.from_array(
            (random.standard_normal(shape) / np.sqrt(max(1, shape[-1]))).astype(np.float32), name
        )
        for name, shape in shapes.items()
    ]


def convolutional(path: Path) -> Path:
    """A small network for images of 3×32×32 and ten classes."""
    node = helper.make_node
    random = np.random.default_rng(1)
    return save(
        path,
        [
            node("Conv", ["x", "first", "bias"], ["a"], pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"]),
            node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["c", "second"], ["d"], pads=[1, 1, 1, 1]),
            node("Relu", ["d"], ["e"]),
            node("GlobalAveragePool", ["e"], ["f"]),
            node("Flatten", ["f"], ["g"]),
            node("Gemm", ["g", "last", "end"], ["scores"]),
            node("Softmax", ["scores"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [value("y", TensorProto.FLOAT, ["batch", 10])],
        *weights(
            random, first=(8, 3, 3, 3), bias=(8,), second=(16, 8, 3, 3), last=(16, 10), end=(10,)
        ),
    )


def transformer(path: Path) -> Path:
    """A block of a transformer over 7 tokens of 32: attention, a feed-forward layer, and five classes."""
    node = helper.make_node
    random = np.random.default_rng(2)
    return save(
        path,
        [
            node("LayerNormalization", ["x", "scale", "shift"], ["n"]),
            *(node("MatMul", ["n", f"w{one}"], [one]) for one in "qkv"),
            node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
            node("MatMul", ["q", "kt"], ["products"]),
            node("Mul", ["products", "root"], ["scaled"]),
            node("Softmax", ["scaled"], ["attention"], axis=-1),
            node("MatMul", ["attention", "v"], ["mixed"]),
            node("Add", ["x", "mixed"], ["h"]),
            node("MatMul", ["h", "up"], ["wide"]),
            node("Erf", ["wide"], ["bent"]),
            node("MatMul", ["bent", "down"], ["narrow"]),
            node("Add", ["h", "narrow"], ["z"]),
            node("ReduceMean", ["z"], ["mean"], axes=[1], keepdims=0),
            node("MatMul", ["mean", "last"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["batch", TOKENS, WIDTH])],
        [value("y", TensorProto.FLOAT, ["batch", 5])],
        *weights(
            random,
            scale=(WIDTH,),
            shift=(WIDTH,),
            wq=(WIDTH, WIDTH),
            wk=(WIDTH, WIDTH),
            wv=(WIDTH, WIDTH),
            up=(WIDTH, 64),
            down=(64, WIDTH),
            last=(WIDTH, 5),
        ),
        numpy_helper.from_array(np.float32(WIDTH**-0.5), "root"),
    )


def forest(path: Path) -> Path:
    """A forest of scikit-learn for its irises."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    features, classes = load_iris(return_X_y=True)
    model = RandomForestClassifier(10, random_state=0).fit(features.astype(np.float32), classes)
    made = to_onnx(model, features[:1].astype(np.float32), options={"zipmap": False})
    path.write_bytes(made.SerializeToString())
    return path


def elementwise(path: Path, kind: int, shape: list[int | str]) -> Path:
    """A model that gives back what it is given, of any type and shape."""
    identity = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [identity], [value("x", kind, shape)], [value("y", kind, shape)])


def cancelling(path: Path) -> Path:
    """A model that loses all that it was asked in few bits: it adds 10,000, and takes it away again."""
    random = np.random.default_rng(3)
    large = numpy_helper.from_array(np.float32(1e4), "large")
    node = helper.make_node
    return save(
        path,
        [
            node("MatMul", ["x", "weight"], ["a"]),
            node("Add", ["a", "large"], ["b"]),
            node("Relu", ["b"], ["c"]),
            node("MatMul", ["c", "eye"], ["d"]),
            node("Sub", ["d", "large"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["batch", 8])],
        [value("y", TensorProto.FLOAT, ["batch", 4])],
        *weights(random, weight=(8, 4)),
        numpy_helper.from_array(np.eye(4, dtype=np.float32), "eye"),
        large,
    )


NETWORKS: dict[str, Callable[[Path], Path]] = {
    "a convolutional network": convolutional,
    "a block of a transformer": transformer,
}


def slow(path: Path, size: int = 800) -> Path:
    """A model that takes some ten milliseconds per request: it takes long to prove an engine of it."""
    node = helper.make_node
    whole = np.full((size, size), 1 / size, np.float32)
    return save(
        path,
        [
            node("Abs", ["x"], ["a"]),
            node("ReduceSum", ["a"], ["sum"], keepdims=0),
            node("Add", ["whole", "sum"], ["square"]),
            node("MatMul", ["square", "whole"], ["cube"]),
            node("MatMul", ["cube", "whole"], ["power"]),
            node("ReduceMax", ["power"], ["y"], axes=[0, 1], keepdims=1),
        ],
        [value("x", TensorProto.FLOAT, [1, 64])],
        [value("y", TensorProto.FLOAT, [1, 1])],
        numpy_helper.from_array(whole, "whole"),
    )
