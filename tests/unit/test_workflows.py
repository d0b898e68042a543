"""The workflows are what GitHub takes, may do no more than they must, and name what exists."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec.yaml
import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
STAGES = set(re.findall(r" AS ([\w-]+)$", (ROOT / "images" / "Dockerfile").read_text(), re.M))
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.dependabot": [ROOT / ".github" / "dependabot.yml"],
}
Json = dict[str, Any]

every = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def read(path: Path) -> Json:
    return dict(msgspec.yaml.decode(path.read_bytes()))


def steps(workflow: Json) -> Iterator[Json]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_are_of_githubs_own_schema(schema: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run(
        [*command, *map(str, SCHEMAS[schema])],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_issue_forms_ask_for_something() -> None:
    forms = [p for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if p.stem != "config"]
    assert forms
    for form in map(read, forms):
        assert form["name"]
        assert form["description"]
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
        assert any(field.get("validations", {}).get("required") for field in form["body"])


@every
def test_a_workflow_may_read_and_only_jobs_may_more(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job.get("permissions", {}).get("contents", "read") == "read"
        assert 0 < job["timeout-minutes"] < 360


@every
def test_a_workflow_keeps_no_credentials_and_runs_nobodys_words(path: Path) -> None:
    workflow = read(path)
    assert "pull_request_target" not in path.read_text()
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # What people write (titles, branches) must not become a command.
        assert "github.event" not in step.get("run", "")
        assert "head_ref" not in step.get("run", "")


@every
def test_a_workflow_names_targets_stages_and_scripts_that_exist(path: Path) -> None:
    workflow = read(path)
    text = "\n".join(step.get("run", "") for step in steps(workflow))
    assert set(re.findall(r"^make ([a-z-]+)", text, re.M)) <= TARGETS
    for script in re.findall(r"^(\.github/\S+)", text, re.M):
        assert (ROOT / script).stat().st_mode & 0o111, f"{script} cannot be run"
    for job in workflow["jobs"].values():
        images = job.get("strategy", {}).get("matrix", {}).get("image", [])
        assert set(images) <= STAGES


def test_what_is_released_has_an_origin_and_a_list_of_what_is_inside() -> None:
    jobs = read(ROOT / ".github/workflows/release.yml")["jobs"]
    (build,) = (s for s in jobs["images"]["steps"] if "build-push" in s.get("uses", ""))
    assert build["with"]["sbom"] is True
    assert build["with"]["provenance"] == "mode=max"
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
    for name in ("images", "chart"):
        assert any("attest-build-provenance" in s.get("uses", "") for s in jobs[name]["steps"])
        assert jobs[name]["permissions"]["id-token"] == "write"
    assert "password" not in str(jobs["wheel"]), "PyPI trusts the workflow, and needs no token"


def test_the_base_images_of_a_build_are_read_from_the_dockerfile(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/bash\necho sha256:$(echo -n $4 | sha256sum | cut -c1-8)\n")
    docker.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / ".github/bases.sh"), str(ROOT / "images/Dockerfile")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "RUN_IMAGE": "images.test/python3"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "arguments<<END"
    assert lines[-1] == "END"
    assert len({line for line in lines if "_DIGEST=sha256:" in line}) == 2
    assert "BUILD_IMAGE=python:3.13-slim-trixie" in lines
    assert "RUN_IMAGE=images.test/python3" in lines
