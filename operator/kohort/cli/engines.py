"""``engines``: which engines were tried for each revision, how right and how fast, and which one serves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from kohort.api.status import EngineStatus, EngineTable, ParityResult, Status
from kohort.cli.cluster import not_found
from kohort.cli.options import add_command, connect
from kohort.cli.terminal import print_data, show
from kohort.view.rollout import ViewError, read_status, roles
from kohort.view.words import clean, uri_tail

WIDE = 110  # columns from which on all figures are shown
_ANSWERS = {ParityResult.SAME: ("same", "green"), ParityResult.DIFFERS: ("differ", "bold red")}


@dataclass(frozen=True)
class Sheet:
    """One revision and the engines that were tried for it, for a console of any width and encoding."""

    label: str
    uri: str
    roles: Sequence[str]
    table: EngineTable

    def data(self) -> dict[str, Any]:
        """For programs: every field, also those that status leaves out."""
        tried = [
            {
                field.encode_name: getattr(one, field.name)
                for field in msgspec.structs.fields(EngineStatus)
            }
            for one in self.table.tried
        ]
        return {
            "revision": self.label,
            "uri": self.uri,
            "roles": list(self.roles),
            "machine": self.table.machine,
            "choice": self.table.choice,
            "tried": tried,
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        roles = f"  {', '.join(self.roles)}" if self.roles else ""
        tail = uri_tail(self.uri, max(16, width - len(self.label) - len(roles) - 2))
        yield Text.assemble((self.label, "bold"), f"  {tail}", (roles, "dim"))
        yield self._figures("*" if options.ascii_only else "●", wide=width >= WIDE)
        for one in self.table.tried:
            if one.problem:
                yield Text(f"{_name(one)}: {clean(one.problem)}", "red")
        if self.table.choice:
            chosen = next((_name(one) for one in self.table.tried if one.chosen), "it")
            yield Text(f"{chosen} serves: {clean(self.table.choice)}")
        if self.table.machine:
            yield Text(f"measured on {clean(self.table.machine)}", "dim")

    def _figures(self, mark: str, *, wide: bool) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column, right, always in _COLUMNS:
            if wide or always:
                table.add_column(column, no_wrap=True, justify="right" if right else "left")
        for one in self.table.tried:
            cells = zip(_COLUMNS, _cells(one, mark), strict=True)
            shown = [cell for (_, _, always), cell in cells if wide or always]
            table.add_row(*shown, style="bold" if one.chosen else "")
        return table


# Heading, whether it is a figure, whether it is shown where there is little room.
_COLUMNS = (
    ("", False, True),
    ("ENGINE", False, True),
    ("VERSION", False, False),
    ("PRECISION", False, True),
    ("ANSWERS", False, True),
    ("MAX ERROR", True, False),
    ("AT BATCH 1", True, True),
    ("BEST BATCH", True, True),
    ("ROWS/S", True, True),
    ("SIZE", True, False),
    ("BUILT IN", True, True),
)


def _cells(one: EngineStatus, mark: str) -> list[Text]:
    ran = one.parity is not None
    answers = _ANSWERS[one.parity] if one.parity is not None else ("never ran", "dim")
    return [
        Text(mark if one.chosen else ""),
        Text(clean(one.engine)),
        Text(clean(one.version)),
        Text(clean(one.precision)),
        Text(*answers),
        Text(clean(one.max_error)),
        Text(_time(one.latency_micros) if ran else ""),
        Text(f"{one.best_rows:,}" if ran else ""),
        Text(f"{one.rows_per_second:,}" if ran else ""),
        Text(_size(one.bytes) if ran else ""),
        Text((_time(one.build_millis * 1000) if one.build_millis else "kept") if ran else ""),
    ]


def _name(one: EngineStatus) -> str:
    return clean(f"{one.engine} {one.precision}")


def _time(micros: int) -> str:
    """Three leading figures: ``850 µs``, ``14.6 ms``, ``3.2 s``."""
    for size, unit in ((1_000_000, "s"), (1_000, "ms")):
        if micros >= size:
            value = micros / size
            return f"{value:.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
    return f"{micros} µs"


def _size(count: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):,.1f} {unit}"
    return f"{count} B"


def sheets(status: Status, revision: str = "") -> tuple[Sheet, ...]:
    """Each revision's engines, newest first; of ``revision`` (v2) alone if it is given."""
    return tuple(
        Sheet(f"v{each.number}", clean(each.uri), roles(status, each.name), each.engines)
        for each in sorted(status.revisions, key=lambda r: -r.number)
        if each.engines is not None and revision in ("", f"v{each.number}")
    )


def add_commands(commands: Any, shared: list[argparse.ArgumentParser]) -> None:
    """Adds ``engines``."""
    parser = add_command(
        commands,
        shared,
        "engines",
        _engines,
        help="show which engines were tried, and which one serves",
        description="The engines that a pod of each revision built, whether they give the model's own\n"
        "answers, how fast they are, and why one of them serves.",
        examples=("kubectl kohort engines burger", "kubectl kohort engines burger v3 -o json"),
    )
    parser.add_argument("name", metavar="NAME", help="name of a ModelDeployment")
    parser.add_argument(
        "revision", nargs="?", default="", metavar="REVISION", help="only this one, such as v3"
    )
    parser.add_argument("-o", "--output", choices=["json", "yaml"], help="print it for programs")


def _engines(options: argparse.Namespace) -> int:
    resource = connect(options).get(options.name)
    status = read_status(resource)
    labels = [f"v{revision.number}" for revision in status.revisions]
    if options.revision and options.revision not in labels:
        raise ViewError(not_found("revision", options.revision, labels, options.name))
    found = sheets(status, options.revision)
    if options.output:
        print_data([sheet.data() for sheet in found], options.output)
    elif found:
        show(*found)
    else:
        print(without(options.revision or options.name, resource.get("spec", {})))
    return 0


def without(name: str, spec: Any) -> str:
    """Why there is nothing to show."""
    kind = spec.get("engine", {}).get("type", "ONNXRuntime")
    if kind == "ONNXRuntime":
        return (
            f"{name}: ONNXRuntime runs the model as it is; nothing was built, measured or compared."
        )
    return f"{name}: no pod has told yet which engines it tried; see kubectl kohort get."
