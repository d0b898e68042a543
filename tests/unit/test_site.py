"""The pages as a site: built without a warning, complete, and loading nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kohort.cli.main import parser
from kohort_local.reference import PAGES, command_page, resource_page

ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r"<(?:script|img|iframe|link(?=[^>]*stylesheet))[^>]*(?:src|href)=\"?(https?:[^\" >]+)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = [p.stem for p in (ROOT / "docs").glob("*.md")]
    made = [path.removesuffix(".md") for path in PAGES]
    for page in [*pages, *made]:
        path = site / "index.html" if page == "index" else site / page / "index.html"
        assert path.exists()


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert LOADED.findall(page.read_text()) == [], page.name


def test_every_field_is_in_the_reference_with_its_meaning() -> None:
    page = resource_page()
    rows = re.findall(r"^\| `((?:spec|status)\.[^`]+)` \| (.*?) \| (.*?) \| (.*) \|$", page, re.M)
    fields = {row[0]: row for row in rows}
    assert len(fields) == len(rows) > 150
    assert [name for name, row in fields.items() if not row[3]] == []
    assert fields["spec.replicas"][2] == "`1`"
    assert "spec.cohorts[].steps[].weight" in fields
    assert "status.conditions[].reason" in fields


def test_every_command_is_in_the_reference() -> None:
    text = parser().format_help()
    commands = re.findall(r"^    ([a-z]+) ", text, re.M)
    assert len(commands) > 12
    assert re.findall(r"^## (\w+)$", command_page(), re.M) == commands
