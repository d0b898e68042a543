"""How commands print: for the terminal there is, or for a pipe of a fixed width."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console, RenderableType

PIPED_WIDTH = 160  # where no terminal says how wide it is
PROSE_WIDTH = 100  # longer lines are hard to read


def terminal() -> Console:
    """The console that commands print on."""
    known = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return Console(width=None if known else PIPED_WIDTH, highlight=False)


def show(*parts: RenderableType) -> None:
    """Prints what lays itself out; in a pipe without the blanks that fill up a line."""
    console = terminal()
    if console.is_terminal:
        console.print(*parts, sep="\n")
        return
    with console.capture() as captured:
        console.print(*parts, sep="\n")
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_prose(text: str) -> None:
    """Paragraphs, wrapped where a person reads them and whole lines in a pipe."""
    console = terminal()
    if console.is_terminal:
        console.print(text, markup=False, width=min(console.width, PROSE_WIDTH))
    else:
        print(text)


def print_data(value: Any, form: str) -> None:
    """A value for programs, as ``json`` or ``yaml``."""
    if form == "json":
        print(msgspec.json.format(msgspec.json.encode(value), indent=4).decode())
    else:
        print(msgspec.yaml.encode(value).decode(), end="")


def degrade(stream: Any) -> None:
    """Lets characters that a locale lacks become ``?`` instead of an error."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def now() -> datetime:
    """The time, in the reader's zone."""
    return datetime.now().astimezone()
