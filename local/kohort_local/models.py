"""Three models of handwritten digits, trained and exported on the spot from scikit-learn's own data."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PIXELS = 64


@dataclass(frozen=True)
class Digits:
    """Images held out from training: ``images`` float32 [n, 64] in 0..16, ``labels`` int64 [n]."""

    images: np.ndarray[Any, np.dtype[np.float32]]
    labels: np.ndarray[Any, np.dtype[np.int64]]


def train(directory: Path) -> tuple[dict[str, Path], Digits]:
    """Write ``v1.onnx``, ``v2.onnx`` and ``v3.onnx``; return their paths and the held-out images.

    v1 saw 60 images; v2 is larger and saw them all; v3 is as good as v2 or better, but was exported with
    a batch size of exactly one, as happens when the example input's shape is taken for the model's.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.4, random_state=7, stratify=labels
    )
    directory.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sixty images do not converge, and are not meant to
        trained = {
            "v1": (LogisticRegression(max_iter=60).fit(train_x[:60], train_y[:60]), None),
            "v2": (MLPClassifier((64,), max_iter=80, random_state=1).fit(train_x, train_y), None),
            "v3": (MLPClassifier((128,), max_iter=150, random_state=3).fit(train_x, train_y), 1),
        }
    paths = {}
    for name, (model, batch) in trained.items():
        exported = to_onnx(
            model,
            initial_types=[("image", FloatTensorType([batch, PIXELS]))],
            options={"zipmap": False},
        )
        paths[name] = directory / f"{name}.onnx"
        paths[name].write_bytes(exported.SerializeToString())
    return paths, Digits(test_x, test_y.astype(np.int64))
