"""What can be told of images without building them: what the file says, and what would be inside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    packages_distributions,
)
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "images" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST_OPERATOR = 120_000_000  # bytes

# Extras, the module that is run, its packages, and what is imported only where an engine asks for it.
OPERATOR_ROOMS = ("api", "analysis", "plan", "route", "observe", "act", "runtime")
IMAGES = {
    "operator": (
        ("operator",),
        "kohort.runtime.main",
        tuple(f"kohort.{room}" for room in OPERATOR_ROOMS),
    ),
    "gateway": (("gateway",), "kohort.gateway", ("kohort.gateway",)),
    "server": (("server", "openvino"), "kohort_server", ("kohort_server",)),
}
NEEDS_TORCH = {"kohort_server.model.torch_export"}


class Stage(NamedTuple):
    base: str
    name: str
    lines: tuple[str, ...]


def stages() -> dict[str, Stage]:
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M))
    found: dict[str, Stage] = {}
    for part in re.split(r"^FROM ", text, flags=re.M)[1:]:
        head, *lines = [line.strip() for line in part.splitlines() if line.strip()]
        base, name = head.split(" AS ")
        found[name] = Stage(base, name, tuple(lines))
    return found


def arguments() -> dict[str, str | None]:
    """Arguments of the whole file, with their defaults."""
    head = DOCKERFILE.split("\nFROM ")[0]
    found = re.findall(r"^ARG (\w+)(?:=(\S+))?$", head, re.M)
    return {name: default or None for name, default in found}


def instructions(stage: Stage, name: str) -> list[str]:
    return [line.removeprefix(name).strip() for line in stage.lines if line.startswith(name + " ")]


def test_every_base_is_a_stage_or_is_named_by_a_digest_that_must_be_given() -> None:
    known, given = stages(), arguments()
    for stage in known.values():
        if stage.base in known:
            continue
        pinned = re.fullmatch(r"\$\{(\w+_IMAGE)\}@\$\{(\w+_DIGEST)\}", stage.base)
        assert pinned, f"{stage.name} is made from {stage.base}"
        assert pinned[1] in given
        assert given[pinned[2]] is None, "a default would be out of date, and nobody would see it"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_a_tree_in_what_runs_and_nothing_is_run_to_make_it(name: str) -> None:
    last = stages()[name]
    run = stages()[last.base]
    assert last.base == "run"
    assert run.base == "${RUN_IMAGE}@${RUN_DIGEST}", "not the one that has a compiler"
    for stage in (last, run):
        assert not instructions(stage, "RUN")
        assert not instructions(stage, "ADD")
    assert instructions(last, "COPY") == [f"--from={name}-tree /app /app"]
    assert instructions(run, "COPY") == []


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_a_number_that_is_not_root_and_writes_nothing(name: str) -> None:
    run = stages()["run"]
    assert instructions(stages()[name], "USER") == []
    (user,) = instructions(run, "USER")
    assert all(int(number) > 0 for number in user.split(":"))
    (environment,) = instructions(run, "ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in environment.split()


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_installs_its_extras_and_runs_its_module(name: str) -> None:
    extras, module, _ = IMAGES[name]
    (command,) = instructions(stages()[f"{name}-tree"], "RUN")
    assert f"'.[{','.join(extras)}]'" in command
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    (entry,) = instructions(stages()[name], "ENTRYPOINT")
    assert json.loads(entry) == ["/usr/bin/python3", "-m", module]


def test_what_is_copied_is_there_and_not_left_out_of_the_build() -> None:
    copied = [w for line in instructions(stages()["source"], "COPY") for w in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for path in copied:
        assert (ROOT / path).exists()
        assert f"!{path}" in ignored
    assert {f"!{path}" for path in copied} == {line for line in ignored if line.startswith("!")}


def distributions(extras: Iterable[str]) -> dict[str, Distribution]:
    """All that pip installs for extras of Kohort, itself left out, by name."""
    roots = [*PROJECT["dependencies"]]
    roots += [r for extra in extras for r in PROJECT["optional-dependencies"][extra]]
    waiting, found = [(Requirement(r), "") for r in roots], dict[str, Distribution]()
    while waiting:
        wanted, _ = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        found[name] = distribution(name)
        for each in map(Requirement, found[name].requires or []):
            markers = [{"extra": extra} for extra in ("", *wanted.extras)]
            if each.marker is None or any(map(each.marker.evaluate, markers)):
                waiting.append((each, ""))
    return found


def size(of: Distribution) -> int:
    """Bytes of its files; bytecode, which is made later, takes about as much as what it is made from."""
    found = 0
    for file in of.files or []:
        path = Path(str(of.locate_file(file)))
        if path.is_file() and path.suffix != ".pyc":
            found += path.stat().st_size * (2 if path.suffix == ".py" else 1)
    return found


def test_what_the_operators_image_installs_is_small() -> None:
    parts = {name: size(found) for name, found in distributions(("operator",)).items()}
    own = sum(p.stat().st_size for p in (ROOT / "operator").rglob("*.py"))
    total = sum(parts.values()) + 2 * own
    assert 20_000_000 < total < LARGEST_OPERATOR, sorted(parts.items(), key=lambda item: -item[1])
    told = re.search(r"\| (\d+) MB of files, of which", (ROOT / "docs" / "images.md").read_text())
    assert told
    assert abs(total / 1e6 - int(told[1])) < 10


@pytest.mark.parametrize("name", IMAGES)
def test_no_image_installs_what_installs_or_compiles(name: str) -> None:
    found = distributions(IMAGES[name][0])
    assert (
        found.keys() & {"pip", "setuptools", "wheel", "cython", "cmake", "ninja", "kubernetes"}
        == set()
    )


ALONE = '''
import importlib, pkgutil, runpy, sys
allowed, missing, packages, module = {allowed!r}, {missing!r}, {packages!r}, {module!r}

class Inside:
    """Finds what the image holds."""

    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            return None
        specs = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in specs if spec), None)

    def find_distributions(self, *context):
        able = (f for f in self.finders if hasattr(f, "find_distributions"))
        return (found for finder in able for found in finder.find_distributions(*context))

sys.meta_path[:] = [Inside(list(sys.meta_path))]
for package in packages:
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if found.name not in allowed and not found.name.endswith("__main__"):
            importlib.import_module(found.name)
sys.argv = [module, "--help"]
sys.modules.pop(module, None)
runpy.run_module(module, run_name="__main__", alter_sys=True)
'''


@pytest.mark.parametrize("name", IMAGES)
def test_a_part_runs_with_what_its_image_holds_and_nothing_else(name: str) -> None:
    extras, module, packages = IMAGES[name]
    inside = {canonicalize_name(n) for n in distributions(extras)} | {"kohort"}
    missing = {
        top
        for top, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & inside
    }
    assert {"kubernetes", "rich", "pip"} <= missing
    code = ALONE.format(allowed=NEEDS_TORCH, missing=missing, packages=packages, module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


def test_every_extra_of_an_image_can_be_installed_here() -> None:
    for extras, _, _ in IMAGES.values():
        for requirement in (r for extra in extras for r in PROJECT["optional-dependencies"][extra]):
            try:
                distribution(Requirement(requirement).name)
            except PackageNotFoundError:
                pytest.fail(f"{requirement} is not installed")
