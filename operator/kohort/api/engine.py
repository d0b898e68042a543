"""How a model is run, and what is asked of an engine before it may serve."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from kohort.api.base import SpecStruct, rules
from kohort.api.model import SAMPLE_SCHEMES, Digest, digest_rule, uri_rules
from kohort.api.quantity import Percent


class EngineType(StrEnum):
    """What runs the model."""

    ONNX_RUNTIME = "ONNXRuntime"
    OPENVINO = "OpenVINO"
    AUTO = "Auto"


class Precision(StrEnum):
    """The number format that a network computes in."""

    FP32 = "FP32"
    BF16 = "BF16"
    FP16 = "FP16"


class OnUnsupported(StrEnum):
    """What becomes of a revision whose engine cannot be had."""

    FAIL = "Fail"
    FALLBACK = "Fallback"


class Golden(SpecStruct, frozen=True):
    """Samples that engines are compared with."""

    uri: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2048,
            description="Where they are: an .npz file of numpy.savez with an array per input and a row "
            "per sample, at file:///PATH (a path inside the pod) or http(s)://…",
            extra_json_schema=uri_rules(SAMPLE_SCHEMES),
        ),
    ]
    digest: Digest = ""


def _at_most_all(name: str) -> dict[str, object]:
    return rules(("double(self.replace('%', '')) <= 100.0", f"{name} must be at most 100%"))


class Parity(SpecStruct, frozen=True):
    """How near an engine's answers must be to the model's own."""

    golden: Annotated[
        Golden | None,
        Meta(
            description="Samples to compare with; without it they are drawn from the model's signature.",
            extra_json_schema=rules(digest_rule("a file of samples")),
        ),
    ] = None
    tolerance: Annotated[
        Percent | None,
        Meta(
            description="Greatest error of a value, of the value or of the output's root mean square, "
            "whichever is larger. Without it 0.2% for FP32, 2% for FP16, 10% for BF16.",
            extra_json_schema=_at_most_all("tolerance"),
        ),
    ] = None
    cosine: Annotated[
        Percent | None,
        Meta(
            description="Smallest cosine between an engine's output for a sample and the model's own. "
            "Without it 99.999% for FP32, 99.99% for FP16, 99.9% for BF16.",
            extra_json_schema=_at_most_all("cosine"),
        ),
    ] = None
    agreement: Annotated[
        Percent | None,
        Meta(
            description="Smallest share of samples with the same largest class, and of values that are no "
            "floating point numbers and equal. Without it 99.9% for FP32, 99% for FP16, 98% for BF16.",
            extra_json_schema=_at_most_all("agreement"),
        ),
    ] = None


class Engine(SpecStruct, frozen=True):
    """How the model is run."""

    type: Annotated[
        EngineType,
        Meta(
            description="ONNXRuntime runs the model as it is. OpenVINO is built and compared with it "
            "when a pod starts. Auto builds all that the pod has, and takes the fastest that gives the "
            "same answers. What is built is kept in the volume called cache."
        ),
    ] = EngineType.ONNX_RUNTIME
    precision: Annotated[
        Precision,
        Meta(
            description="The lowest that may be computed in. Answers in a lower one are compared with the "
            "model's own before any client gets them."
        ),
    ] = Precision.FP32
    parity: Annotated[
        Parity | None,
        Meta(description="How near the answers must be to the model's own."),
    ] = None
    on_unsupported: Annotated[
        OnUnsupported,
        Meta(
            description="Of an engine that a pod does not have, or that cannot run the model. Fail: the "
            "revision gets no clients. Fallback: ONNXRuntime serves it. Other answers always fail."
        ),
    ] = OnUnsupported.FAIL


# Of what may be left out nothing is said here: a default is not filled in when a default is looked at.
ENGINE_RULES = (
    (
        "!has(self.precision) || self.precision == 'FP32' || self.type != 'ONNXRuntime'",
        "ONNXRuntime computes in the model's own precision: set type to OpenVINO or Auto with another one",
    ),
    (
        "!has(self.parity) || self.type != 'ONNXRuntime'",
        "ONNXRuntime runs the model as it is, so that there is nothing to compare: leave out parity, or set "
        "type to OpenVINO or Auto",
    ),
    (
        "!has(self.onUnsupported) || self.onUnsupported == 'Fail' || self.type == 'OpenVINO'",
        "onUnsupported: Fallback is for type OpenVINO: Auto takes ONNXRuntime by itself where nothing else "
        "can be had",
    ),
)
