"""Other engines than the model's own: taken with the same answers, stopped before any client with others."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kohort_server.engine.kinds import openvino_precisions
from tests.component.engine_models import cancelling
from tests.e2e.world import Model, in_thread, nobody_noticed


def told(model: Model) -> tuple[str, str]:
    """The reason and message of the revision that the spec asks for."""
    status = model.status
    revision = next(r for r in status["revisions"] if r["name"] == status["desired"])
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
        engine = {"type": "OpenVINO", "precision": lowest or "BF16"}
        reason = "ParityFailed" if lowest else "EngineUnavailable"
        model.apply("v2", model={"uri": f"file://{breaking}"}, engine=engine, replicas=1)
        await in_thread("it is told", lambda: told(model)[0] == reason)
        if lowest:
            assert 'output "y"[' in told(model)[1]
        assert reason in str(model.condition("Ready"))
        # What is right is promoted.
        model.apply("v2", engine={"type": "Auto"}, replicas=1)
        await in_thread("v2 serves both", partial(model.serves, singles="v2", batchers="v2"))
    nobody_noticed(traffic.account)
