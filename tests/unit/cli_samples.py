"""Hand-written rollouts and pods that the tests of the kubectl plugin look at."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import yaml
from rich.console import Console, RenderableType

from kohort.contract import LABEL_REVISION
from kohort.view.rollout import ModelView, model_view

NOW = datetime(2026, 11, 24, 10, 42, tzinfo=UTC)
RESOURCES: dict[str, Any] = yaml.decode(Path(__file__).with_suffix(".yaml").read_bytes())


def pod(
    name: str, revision: str, ready: bool = True, restarts: int = 0, waiting: str = ""
) -> dict[str, Any]:
    """A pod as the API shows it."""
    state = {"waiting": {"reason": waiting}} if waiting else {"running": {}}
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "labels": {LABEL_REVISION: revision},
            "creationTimestamp": "2026-11-24T10:40:02Z",
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"restartCount": restarts, "state": state}],
        },
    }


def view_of(sample: str, *pods: dict[str, Any]) -> ModelView:
    """The view of a sample with the given pods."""
    return model_view(RESOURCES[sample], pods, NOW)


def printed(renderable: RenderableType, width: int, encoding: str = "utf-8") -> str:
    """What stands in a pipe of that width; trailing blanks of a line do not count."""
    console = Console(width=width, color_system=None, force_terminal=False)
    options = console.options.update(width=width)
    options.encoding = encoding
    lines = console.render_lines(renderable, options, pad=False)
    return "\n".join("".join(s.text for s in line).rstrip() for line in lines)
