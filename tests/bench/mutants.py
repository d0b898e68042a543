"""Whether a wrong decision would be noticed: ``python -m tests.bench.mutants [--sample 60] [--seed 1]``.

Each mutant is the planner with one thing wrong: a rule or phase left out, a condition turned round, a
comparison shifted, ``and`` for ``or``. The planner's unit tests run against each; a mutant under which
all of them pass is printed as a survivor.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLAN = Path("operator/kohort/plan")
TESTS = sorted(str(path) for path in (ROOT / "tests/unit").glob("test_plan_*.py"))
ORDERED_LISTS = frozenset({"RULES", "PHASES"})
SHIFTED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True)
class Mutant:
    """A file with one thing wrong."""

    path: Path
    line: int
    what: str
    text: str


def mutants(path: Path) -> Iterator[Mutant]:
    """Every mutant of a file."""
    source = (ROOT / path).read_text()
    for index in range(sum(1 for _ in ast.walk(ast.parse(source)))):
        for way in count():
            tree = ast.parse(source)
            node = list(ast.walk(tree))[index]
            what = _mutated(node, way)
            if what is None:
                break
            yield Mutant(path, getattr(node, "lineno", 0), what, ast.unparse(tree))


def _mutated(node: ast.AST, way: int) -> str | None:
    """Make one thing wrong; says what, or None where nothing is left to do wrong in this way."""
    if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(node.value, ast.Tuple):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
        named = any(isinstance(t, ast.Name) and t.id in ORDERED_LISTS for t in targets)
        if named and way < len(node.value.elts):
            return f"without {ast.unparse(node.value.elts.pop(way))}"
        return None
    if way:
        return None
    if isinstance(node, ast.If | ast.IfExp):
        before = ast.unparse(node.test)
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return f"not ({before})"
    if isinstance(node, ast.BoolOp):
        before = ast.unparse(node)
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return f"{before} -> {ast.unparse(node)}"
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SHIFTED:
        before = ast.unparse(node)
        node.ops[0] = SHIFTED[type(node.ops[0])]()
        return f"{before} -> {ast.unparse(node)}"
    return None


def survives(mutant: Mutant) -> bool:
    """Whether all tests pass with the mutant in the planner's place."""
    with tempfile.TemporaryDirectory() as made:
        copy = Path(made) / "operator"
        shutil.copytree(ROOT / "operator", copy)
        (copy / mutant.path.relative_to("operator")).write_text(mutant.text)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, timeout=300, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=60, help="mutants to try; 0: all of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    files = sorted(p.relative_to(ROOT) for p in (ROOT / PLAN).glob("*.py"))
    every = [m for path in files for m in mutants(path)]
    tried = every
    if options.sample and options.sample < len(every):
        tried = random.Random(options.seed).sample(every, options.sample)
    with ThreadPoolExecutor(options.jobs) as pool:
        survived = [m for m, alive in zip(tried, pool.map(survives, tried), strict=True) if alive]
    for mutant in sorted(survived, key=lambda m: (m.path, m.line)):
        print(f"{mutant.path.name}:{mutant.line}: {mutant.what}")
    print(f"{len(tried)} of {len(every)} mutants tried, {len(survived)} survived")


if __name__ == "__main__":
    main()
