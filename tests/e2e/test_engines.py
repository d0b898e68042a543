"""Other engines than the model's own: taken with the same answers, stopped before any client with others."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from kohort_server.engine.kinds import openvino_precisions
from tests.component.engine_models import cancelling, slow
from tests.e2e.world import Model, in_thread, nobody_noticed, until


def desired(model: Model) -> dict[str, Any]:
    """The revision that the spec asks for."""
    status = model.status
    found: dict[str, Any] = next(r for r in status["revisions"] if r["name"] == status["desired"])
    return found


def told(model: Model) -> tuple[str, str]:
    """The reason and message of the revision that the spec asks for."""
    revision = desired(model)
    return revision.get("reason", ""), revision.get("message", "")


async def test_an_engine_serves_only_when_it_gives_the_models_own_answers(
    model: Model, tmp_path: Path
) -> None:
    lowest = next((one for one in ("BF16", "FP16") if one in openvino_precisions()), None)
    breaking = cancelling(tmp_path / "cancelling.onnx")
    async with model.served("v1", engine={"type": "Auto"}, replicas=1) as traffic:
        # What cannot be built at all.
        model.apply("v2", engine={"type": "OpenVINO"}, replicas=1)
        await in_thread("it is told", lambda: told(model)[0] == "BuildFailed")
        assert "ArrayFeatureExtractor" in told(model)[1]
        # What can be built, and gives other answers; or what this processor cannot compute at all.
        engine: dict[str, Any] = {"type": "OpenVINO", "precision": lowest or "BF16"}
        reason = "ParityFailed" if lowest else "EngineUnavailable"
        model.apply("v2", model={"uri": f"file://{breaking}"}, engine=engine, replicas=1)
        await in_thread("it is told", lambda: told(model)[0] == reason)
        if lowest:
            assert 'output "y"[' in told(model)[1]
        assert reason in str(model.condition("Ready"))
        # What is right is promoted: here by an engine that it may fall back to.
        engine = {"type": "OpenVINO", "onUnsupported": "Fallback", "parity": {"tolerance": "1%"}}
        model.apply("v2", engine=engine, replicas=1)
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
        await in_thread("its engines are told", lambda: desired(model).get("engines"))
        first, second = desired(model)["engines"]["tried"]
        assert "ArrayFeatureExtractor" in first["problem"]
        assert (second["engine"], second["parity"], second["chosen"]) == (
            "ONNXRuntime",
            "Same",
            True,
        )
    nobody_noticed(traffic.account)


def test_building_is_seen_while_it_lasts_and_a_second_rollout_of_the_model_builds_nothing(
    model: Model, tmp_path: Path
) -> None:
    path = slow(tmp_path / "slow.onnx")
    cache = {"name": "cache", "hostPath": {"path": str(tmp_path / "cache")}}
    (tmp_path / "cache").mkdir()

    def roll_out(version: str) -> str:
        """The one pod that serves it then."""
        container = {"name": "server", "env": [{"name": "VERSION", "value": version}]}
        model.apply(
            "v1",
            model={"uri": f"file://{path}"},
            engine={"type": "Auto"},
            replicas=1,
            keepWarm="0s",
            cohorts=[{"name": "everyone", "steps": [{"weight": 100}]}],
            template={"spec": {"volumes": [cache], "containers": [container]}},
        )
        if version == "first":
            until("it is seen building", lambda: model.status.get("phase") == "Compiling")
            progress = re.compile(r"Compiling \d+ %.*: \w")
            until("how far it is", lambda: progress.search(told(model)[1]))
        until("it serves", lambda: model.status.get("phase") == "Healthy" and desired(model))
        until("its engines are told", lambda: desired(model).get("engines"))
        until("one pod is left", lambda: len(model.pods()) == 1)
        (pod,) = model.pods().values()
        return str(model.kubectl("logs", pod))

    assert roll_out("first").count("INFO building") == 2
    built = {entry.name: entry.stat().st_ino for entry in (tmp_path / "cache/engines").iterdir()}
    first = desired(model)
    tried = first["engines"]["tried"]
    assert [(one["engine"], one["parity"]) for one in tried] == [
        ("ONNXRuntime", "Same"),
        ("OpenVINO", "Same"),
    ]
    assert sum(one.get("chosen", False) for one in tried) == 1
    assert first["engines"]["choice"]
    assert roll_out("second").count("INFO building") == 0
    assert desired(model)["name"] != first["name"]
    assert desired(model)["engines"] == first["engines"]
    assert built == {
        entry.name: entry.stat().st_ino for entry in (tmp_path / "cache/engines").iterdir()
    }
