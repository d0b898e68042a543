"""What the repository says of itself is so: named tests, files and targets exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kohort_local.reference import PAGES as REFERENCE

ROOT = Path(__file__).parents[2]
TESTS = "\n".join(p.read_text() for p in sorted((ROOT / "tests").rglob("test_*.py")))
DEFINED = set(re.findall(r"def (test_\w+)\(", TESTS))
PAGES = {p.name: p.read_text() for p in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def test_what_is_stopped_is_shown_by_tests_that_exist() -> None:
    named = re.findall(r"`(test_\w+)`", PAGES["SECURITY.md"])
    assert len(named) > 35
    assert [name for name in named if name not in DEFINED] == []


def test_every_line_of_what_is_stopped_names_a_test_or_says_that_there_is_none() -> None:
    body = PAGES["SECURITY.md"].split("## What each can try")[1].split("## What is not stopped")[0]
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    silent = [r for r in rows if "`test_" not in r and "not tried" not in r and "shown by" not in r]
    assert len(rows) > 30
    assert silent == []


@pytest.mark.parametrize("name", PAGES)
def test_links_and_files_that_a_page_names_are_there(name: str) -> None:
    folder = ROOT if (ROOT / name).exists() else ROOT / "docs"
    linked = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]+)", PAGES[name])
    files = re.findall(
        r"`((?:tests|docs|operator|server|local|charts|examples|images)/[\w./-]+)`", PAGES[name]
    )
    made = {(ROOT / "docs" / path) for path in REFERENCE}
    missing = [
        link for link in linked if not (folder / link).exists() and folder / link not in made
    ]
    missing += [path for path in files if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_targets_of_make_that_a_page_names_are_there(name: str) -> None:
    named = set(re.findall(r"`make ([a-z][a-z-]*)", PAGES[name]))
    named |= set(re.findall(r"^make ([a-z][a-z-]*)", PAGES[name], re.M))
    assert named - TARGETS == set()


@pytest.mark.parametrize("name", PAGES)
def test_tests_that_a_page_has_run_are_there(name: str) -> None:
    run = re.findall(r"python -m pytest (tests/[\w./]+)", PAGES[name])
    assert [path for path in run if not (ROOT / path).exists()] == []


def test_the_map_of_rooms_has_every_room() -> None:
    rooms = {
        p.name for p in (ROOT / "operator" / "kohort").iterdir() if (p / "__init__.py").exists()
    }
    mapped = set(re.findall(r"`operator/kohort/(\w+)`", PAGES["CONTRIBUTING.md"]))
    assert mapped == rooms
