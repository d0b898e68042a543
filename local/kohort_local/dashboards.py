"""Grafana's boards of the chart, made from the table of panels: ``make generate`` writes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kohort_local.panels import BOARDS, Panel, Variable

Json = dict[str, Any]
COLUMNS, HEIGHT = 24, 8  # of Grafana's grid
SCHEMA = 41  # of Grafana 11 and newer, which migrate older ones too
SOURCE = {"type": "prometheus", "uid": "${source}"}


def board(name: str) -> Json:
    """One of BOARDS as Grafana takes it."""
    title, variables, panels = BOARDS[name]
    return {
        "uid": f"kohort-{name}",
        "title": title,
        "tags": ["kohort"],
        "schemaVersion": SCHEMA,
        "timezone": "browser",
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "title": "Kohort",
                "type": "dashboards",
                "tags": ["kohort"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": [_source(), *map(_variable, variables)]},
        "panels": _placed(panels),
    }


def _source() -> Json:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.title,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({variable.series}, {variable.label})", "refId": "values"},
        "regex": variable.regex,
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": variable.several,
        "includeAll": variable.several,
        **({"allValue": ".*"} if variable.several else {}),
    }


def _placed(panels: Sequence[Panel]) -> list[Json]:
    """Left to right, then down."""
    found, x, y = [], 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + HEIGHT
        found.append(_panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": HEIGHT}))
        x += panel.width
    return found


def _panel(number: int, panel: Panel, place: Json) -> Json:
    stacking = {"mode": "normal" if panel.stacked else "none"}
    lines = {"fillOpacity": 20 if panel.stacked else 0, "stacking": stacking, "showPoints": "never"}
    instant = panel.kind == "bargauge"
    return {
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "type": panel.kind,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {} if instant else lines,
            },
            "overrides": [],
        },
        "options": {"orientation": "horizontal", "displayMode": "basic"}
        if instant
        else {"legend": {"placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": instant,
                "range": not instant,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def render(name: str) -> str:
    """A board as JSON text."""
    return json.dumps(board(name), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(exist_ok=True)
    for each in BOARDS:
        (directory / f"{each}.json").write_text(render(each))
