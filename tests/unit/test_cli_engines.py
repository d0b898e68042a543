"""The engines of a model as people and programs read them."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kohort.api.status import EngineStatus, EngineTable, Status
from kohort.cli.engines import Sheet, sheets, without
from tests.unit.cli_samples import printed

FAILED = 'output "y"[3] of sample 17 at batch 8: off by 0.31, more than 0.02, expected 0.5120432, got 0.2'
STATUS = {
    "desired": "m-b",
    "cohorts": [{"name": "everyone", "stable": "m-a", "canary": "m-b"}],
    "revisions": [
        {"name": "m-a", "number": 1, "uri": "file:///m/1/model.onnx", "createdAt": "2026-11-24"},
        {
            "name": "m-b",
            "number": 2,
            "uri": "file:///m/2/model.onnx",
            "createdAt": "2026-11-24",
            "engines": {
                "machine": "x86_64 Some CPU",
                "choice": "the fastest with the model's own answers: 52% faster than ONNXRuntime",
                "tried": [
                    {
                        "engine": "ONNXRuntime",
                        "version": "1.32.0",
                        "precision": "FP32",
                        "parity": "Same",
                        "maxError": "0.0e+00",
                        "latencyMicros": 14628,
                        "bestRows": 32,
                        "rowsPerSecond": 1068,
                        "bytes": 2621440,
                    },
                    {
                        "engine": "OpenVINO",
                        "version": "2026.4.1",
                        "precision": "FP32",
                        "parity": "Same",
                        "maxError": "2.1e-05",
                        "latencyMicros": 850,
                        "bestRows": 64,
                        "rowsPerSecond": 1623,
                        "bytes": 5242880,
                        "buildMillis": 240,
                        "chosen": True,
                    },
                    {
                        "engine": "OpenVINO",
                        "version": "2026.4.1",
                        "precision": "FP16",
                        "parity": "Differs",
                        "maxError": "3.1e-01",
                        "latencyMicros": 500,
                        "bestRows": 64,
                        "rowsPerSecond": 9000,
                        "buildMillis": 3240,
                        "problem": FAILED,
                    },
                    {
                        "engine": "TensorRT",
                        "precision": "FP16",
                        "problem": "this machine has no GPU",
                    },
                ],
            },
        },
    ],
}


def shown(width: int, encoding: str = "utf-8") -> str:
    found = sheets(msgspec.convert(STATUS, Status))
    return "\n".join(printed(sheet, width, encoding) for sheet in found)


def test_the_engines_are_told_on_a_terminal_of_80_columns() -> None:
    assert shown(80) == AT_80


AT_80 = """\
v2  file:///m/2/model.onnx  desired, canary
   ENGINE       PRECISION  ANSWERS    AT BATCH 1  BEST BATCH  ROWS/S  BUILT IN
   ONNXRuntime  FP32       same          14.6 ms          32   1,068      kept
●  OpenVINO     FP32       same           850 µs          64   1,623    240 ms
   OpenVINO     FP16       differ         500 µs          64   9,000     3.2 s
   TensorRT     FP16       never ran
OpenVINO FP16: output "y"[3] of sample 17 at batch 8: off by 0.31, more than
0.02, expected 0.5120432, got 0.2
TensorRT FP16: this machine has no GPU
OpenVINO FP32 serves: the fastest with the model's own answers: 52% faster than
ONNXRuntime
measured on x86_64 Some CPU"""


def test_with_room_all_figures_are_told() -> None:
    assert shown(200) == AT_200


AT_200 = """\
v2  file:///m/2/model.onnx  desired, canary
   ENGINE       VERSION   PRECISION  ANSWERS    MAX ERROR  AT BATCH 1  BEST BATCH  ROWS/S     SIZE  BUILT IN
   ONNXRuntime  1.32.0    FP32       same         0.0e+00     14.6 ms          32   1,068  2.5 MiB      kept
●  OpenVINO     2026.4.1  FP32       same         2.1e-05      850 µs          64   1,623  5.0 MiB    240 ms
   OpenVINO     2026.4.1  FP16       differ       3.1e-01      500 µs          64   9,000      0 B     3.2 s
   TensorRT               FP16       never ran
OpenVINO FP16: output "y"[3] of sample 17 at batch 8: off by 0.31, more than 0.02, expected 0.5120432, got 0.2
TensorRT FP16: this machine has no GPU
OpenVINO FP32 serves: the fastest with the model's own answers: 52% faster than ONNXRuntime
measured on x86_64 Some CPU"""


def test_an_old_terminal_gets_plain_characters() -> None:
    assert "* OpenVINO" in shown(80, "ascii").replace("  ", " ")


def test_a_revision_is_told_alone_where_it_is_asked_for() -> None:
    status = msgspec.convert(STATUS, Status)
    assert [sheet.label for sheet in sheets(status)] == ["v2"]
    assert sheets(status, "v1") == ()


def test_programs_get_every_field() -> None:
    (sheet,) = sheets(msgspec.convert(STATUS, Status))
    told = msgspec.json.decode(msgspec.json.encode(sheet.data()))
    assert (told["revision"], told["roles"]) == ("v2", ["desired", "canary"])
    first, second = told["tried"][:2]
    assert (first["chosen"], first["buildMillis"], second["chosen"]) == (False, 0, True)


def test_it_is_said_why_there_are_none() -> None:
    assert "as it is" in without("m", {})
    assert "no pod has told yet" in without("m", {"engine": {"type": "Auto"}})


@given(
    engines=st.lists(
        st.builds(
            EngineStatus,
            engine=st.text(max_size=32),
            precision=st.text(max_size=32),
            problem=st.text(max_size=512),
            latency_micros=st.integers(0, 2**53),
            bytes=st.integers(0, 2**53),
            chosen=st.booleans(),
        ),
        max_size=8,
    ),
    width=st.integers(20, 250),
)
def test_whatever_stands_in_status_is_shown_without_a_character_that_harms_a_terminal(
    engines: list[EngineStatus], width: int
) -> None:
    sheet = Sheet("v1", "file:///m", (), EngineTable(tried=tuple(engines), choice="so"))
    assert all(line.isprintable() for line in printed(sheet, width).split("\n"))
