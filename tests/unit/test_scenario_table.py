"""The table of scenarios names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "scenarios.md"


def named() -> set[tuple[str, str]]:
    return set(re.findall(r"`([\w/]+\.py)::(\w+)`", TABLE.read_text()))


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_row_names_a_test_that_exists() -> None:
    missing = [f"{file}::{name}" for file, name in named() if name not in functions(TESTS / file)]
    assert not missing


def test_every_row_has_a_test() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    assert all(re.search(r"::test_\w+`", row) for row in rows)


def test_what_is_called_live_is_an_end_to_end_test() -> None:
    for row in TABLE.read_text().splitlines():
        if "::" in row:
            _, _, how, test, _ = row.split("|")
            assert how.strip() == ("live" if "`e2e/" in test else "simulated"), row
