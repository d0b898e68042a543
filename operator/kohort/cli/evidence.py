"""``evidence``: how far each metric of each cohort is from its two borders, and how it got there."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from kohort.analysis.trail import BORDER
from kohort.cli.cluster import not_found
from kohort.cli.options import add_command, connect
from kohort.cli.terminal import print_data, show
from kohort.cli.tree import STYLES
from kohort.view.borders import Line, Row, rows
from kohort.view.rollout import ViewError, read_status
from kohort.view.words import clean

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-:=+*#"
ROOM = 42
"""Columns beside a line of points."""


@dataclass(frozen=True)
class Sheet:
    """All rows, for a console of any width and encoding."""

    rows: tuple[Row, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = ASCII if options.ascii_only else BLOCKS
        cohort = ""
        for row in self.rows:
            if row.cohort != cohort:
                cohort = row.cohort
                yield Text(cohort, "bold")
            verdict = Text(row.evidence.verdict, STYLES.get(row.evidence.verdict, ""))
            role = "  (watched: decides nothing)" if row.evidence.watched else ""
            yield Text(f"  {row.evidence.metric}  ").append_text(verdict).append(role, "dim")
            for line in row.lines:
                yield _drawn(line, glyphs, max(8, options.max_width - ROOM))
            yield Text(f"    {clean(row.evidence.message)}", "dim")


def _drawn(line: Line, glyphs: str, width: int) -> Text:
    """``    harm   ▁▁▂▃▅▇  71% of what accuses it``."""
    text = Text(f"    {line.kind:<6} ")
    if not line.points:
        return text.append("nothing counted yet", "dim")
    scale = len(glyphs) - 1
    drawn = "".join(glyphs[point * scale // BORDER] for point in line.points[-width:])
    last = line.points[-1]
    style = "cyan" if line.kind == "proof" else "red" if last >= BORDER else ""
    border = "of what accuses it" if line.kind == "harm" else "of what proves it"
    return text.append(drawn, style).append(f"  {last}% {border}")


def add_commands(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    """Adds ``evidence``."""
    parser = add_command(
        commands,
        shared,
        "evidence",
        _evidence,
        help="show how each metric has come towards its borders",
        description="For each metric of each cohort: how far evidence of harm is from accusing the canary,\n"
        "and a proof from being one, from the beginning to now. Client slots have to bear out\n"
        "either before anything is decided; the sentence below says what they say.",
        examples=(
            "kubectl kohort evidence burger",
            "kubectl kohort evidence burger eu-shops -o json",
        ),
    )
    parser.add_argument("name", metavar="NAME", help="name of a ModelDeployment")
    parser.add_argument("cohort", nargs="?", default="", metavar="COHORT", help="only this cohort")
    parser.add_argument("-o", "--output", choices=["json", "yaml"], help="print it for programs")


def _evidence(options: argparse.Namespace) -> int:
    status = read_status(connect(options).get(options.name))
    names = [cohort.name for cohort in status.cohorts]
    if options.cohort and options.cohort not in names:
        raise ViewError(not_found("cohort", options.cohort, names, options.name))
    found = tuple(rows(status, options.cohort))
    if options.output:
        print_data([row.data() for row in found], options.output)
    elif found:
        show(Sheet(found))
    else:
        print("No rollout has been analysed yet.")
    return 0
