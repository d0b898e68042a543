"""How a rollout looks on a terminal: a tree of cohorts, revisions and pods, and the list of all rollouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kohort.analysis.mirroring import METRIC as MIRROR
from kohort.analysis.wording import figures
from kohort.api.status import Evidence
from kohort.view.figures import counted
from kohort.view.notes import Tone, notes
from kohort.view.rollout import CohortView, ModelView, PodView, RevisionView, distinct
from kohort.view.words import age, asked_by, clock, parse_time, plural, uri_tail

WIDTH_OF_MESSAGES = 100  # a list has messages from this width on
MOST_PODS = 8  # of one revision; those that are not ready come first

STYLES = {
    "Healthy": "bold green",
    "Stable": "green",
    "Ready": "green",
    "Pass": "green",
    "Analyzing": "bold cyan",
    "Progressing": "cyan",
    "Promoting": "cyan",
    "HoldingBack": "green",
    "Preparing": "cyan",
    "Insufficient": "cyan",
    "Running": "yellow",
    "Pending": "yellow",
    "WaitingForGPU": "bold yellow",
    "Compiling": "bold cyan",
    "Downloading": "cyan",
    "Waiting": "dim",
    "Terminating": "dim",
    "Paused": "bold yellow",
    "MetricsError": "yellow",
    "RollingBack": "bold red",
    "RolledBack": "bold red",
    "Degraded": "bold red",
    "Fail": "bold red",
}


TONES = {
    Tone.PLAIN: "",
    Tone.ASIDE: "dim",
    Tone.CARE: "yellow",
    Tone.HELD: "bold yellow",
    Tone.REFUSED: "red",
}


@dataclass(frozen=True)
class Glyphs:
    """The characters that a terminal's encoding allows."""

    full: str
    empty: str
    arrow: str
    ready: str
    unready: str


UNICODE = Glyphs(full="█", empty="░", arrow="→", ready="●", unready="○")
ASCII = Glyphs(full="#", empty=".", arrow="->", ready="+", unready="-")


def tree(view: ModelView, width: int | None = None) -> RenderableType:
    """The whole rollout, for a console of any encoding; at most ``width`` columns wide."""
    return ModelTree(view, width)


@dataclass(frozen=True)
class ModelTree:
    """A rollout that lays itself out for the console it is printed on."""

    view: ModelView
    width: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, self.width or options.max_width)
        layout = Layout(width, ASCII if options.ascii_only else UNICODE)
        yield from console.render(layout.model(self.view), options.update_width(width))


@dataclass(frozen=True)
class Layout:
    """Builds the tree's lines for one width and one set of glyphs."""

    width: int
    glyphs: Glyphs

    def model(self, view: ModelView) -> Tree:
        """The root: phase and message; under it the cohorts, then the revisions with their pods."""
        head = Text.assemble((view.name, "bold"), "  ", _word(view.phase))
        if view.wanted:
            head.append(f"  {view.ready}/{view.wanted} pods ready", "dim")
        root = Tree(Group(head, *_notes(view)), guide_style="dim")
        names = _column((c.name for c in view.cohorts), self.width // 3)
        phases = _column((c.phase for c in view.cohorts), self.width // 4)
        arms = _column((self._arms(c) for c in view.cohorts), self.width // 3)
        for cohort in view.cohorts:
            root.add(self.cohort(cohort, view.now, names, phases, arms))
        shown = [r for r in view.revisions if r.roles or r.pods or r.wanted]
        for revision in shown:
            branch = root.add(self.revision(revision))
            pods = _column((p.name for p in revision.pods[:MOST_PODS]), self.width // 2)
            states = _column((_state(p) for p in revision.pods[:MOST_PODS]), self.width // 4)
            for pod in revision.pods[:MOST_PODS]:
                branch.add(self.pod(pod, view, pods, states))
            if len(revision.pods) > MOST_PODS:
                branch.add(Text(_more(revision.pods[MOST_PODS:]), "dim"))
        if former := len(view.revisions) - len(shown):
            root.add(Text(f"and {plural(former, 'former revision')} without pods", "dim"))
        return root

    def cohort(
        self, cohort: CohortView, now: datetime, names: int, phases: int, arms: int
    ) -> RenderableType:
        """One cohort: its place on the first line, evidence and what is awaited below."""
        line = Text.assemble(
            (_pad(cohort.name, names), "bold"), "  ", _word(cohort.phase, phases), "  "
        )
        line.append(_pad(self._arms(cohort), arms))
        if cohort.canary:
            line.append_text(self._bar(cohort.weight))
            line.append(f"  step {cohort.step_text}" if cohort.step_text else "")
        elif cohort.rejected:
            line.append(f"  {cohort.rejected} rejected", "red")
        if cohort.held:
            line.append("  held", "bold yellow")
        below = [self.evidence(e) for e in cohort.evidence]
        if message := _without_figures(cohort):
            below.append(Text(message, "italic"))
        return _indented(line, below + _last_wish(cohort, now))

    def evidence(self, evidence: Evidence) -> Text:
        """``errors  11/402 vs 9/3,611 failed (2.7% vs 0.25%)  Insufficient``."""
        line = Text(f"{evidence.metric}  ")
        if evidence.metric == MIRROR:
            # Both arms have the same requests: what counts is on which of them one failed alone.
            return line.append(f"{evidence.message}  ").append_text(_word(evidence.verdict))
        told = counted(evidence)
        if told.canary:
            line.append(told.canary, "bold").append(f" vs {told.stable}")
        else:
            line.append("no request counted yet", "dim")
        if told.shares:
            line.append(f" ({told.shares})", "dim")
        line.append("  ").append_text(_word(evidence.verdict))
        return line.append("  watched", "dim") if evidence.watched else line

    def revision(self, revision: RevisionView) -> RenderableType:
        """One revision: number, model, pods; its problem below."""
        ready = f"{revision.ready}/{revision.wanted} ready"
        roles = ", ".join(revision.roles)
        fixed = cell_len(revision.label + ready + roles) + 20
        style = "green" if revision.ready >= revision.wanted else "yellow"
        line = Text.assemble(
            ("revision ", "dim"),
            (revision.label, "bold"),
            f"  {uri_tail(revision.uri, max(16, self.width - fixed))}  ",
            (ready, style),
            ("  " + roles if roles else "", "dim"),
        )
        style = STYLES.get(revision.reason, "red")
        return _indented(line, [Text(revision.problem, style)] if revision.problem else [])

    def pod(self, pod: PodView, view: ModelView, names: int, states: int) -> Text:
        """One pod: name, ready or why not, restarts, age."""
        glyph = self.glyphs.ready if pod.ready else self.glyphs.unready
        line = Text.assemble(
            (glyph, "green" if pod.ready else "yellow"),
            f" {_pad(pod.name, names)}  ",
            _word(_state(pod), states),
        )
        line.append(f"  {plural(pod.restarts, 'restart')}", "yellow" if pod.restarts else "dim")
        if pod.created:
            line.append(f"  {age((view.now - pod.created).total_seconds())}", "dim")
        return line

    def _arms(self, cohort: CohortView) -> str:
        stable = cohort.stable or "no revision"
        return f"{stable} {self.glyphs.arrow} {cohort.canary}" if cohort.canary else stable

    def _bar(self, weight: int) -> Text:
        length = 10 if self.width < 100 else 20
        full = min(length, max(1 if weight > 0 else 0, round(length * weight / 100)))
        return Text.assemble(
            "  ",
            (self.glyphs.full * full, "cyan"),
            (self.glyphs.empty * (length - full), "dim"),
            f" {weight:>3}%",
        )


@dataclass(frozen=True)
class ModelList:
    """All rollouts of one or of every namespace, one a line; with messages where there is room."""

    views: Sequence[ModelView]
    with_namespace: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = [_row(view) for view in self.views]
        columns = [
            "NAMESPACE",
            "NAME",
            "PHASE",
            "STABLE",
            "CANARY",
            "WEIGHT",
            "STEP",
            "PODS",
            "AGE",
        ]
        first = 0 if self.with_namespace else 1
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for column in columns[first:]:
            table.add_column(column, no_wrap=True)
        if options.max_width >= WIDTH_OF_MESSAGES:
            table.add_column("MESSAGE")
        for row in rows:
            table.add_row(*row[first : first + len(table.columns)])
        yield table


def _row(view: ModelView) -> list[Text]:
    return [
        Text(view.namespace),
        Text(view.name),
        _word(view.phase),
        Text(distinct(c.stable for c in view.cohorts)),
        Text(distinct(c.canary for c in view.rolling)),
        Text(distinct(f"{c.weight}%" for c in view.rolling)),
        Text(distinct(c.step_text for c in view.rolling)),
        Text(f"{view.ready}/{view.wanted}"),
        Text(age((view.now - view.created).total_seconds()) if view.created else ""),
        Text(view.message, no_wrap=True, overflow="ellipsis"),
    ]


def _without_figures(cohort: CohortView) -> str:
    """The cohort's message without the tallies that stand on the lines of evidence."""
    message = cohort.message
    for evidence in cohort.evidence:
        seen = figures(evidence.canary, evidence.stable)
        if evidence.metric == MIRROR and evidence.message:
            seen = evidence.message
        message = message.replace(f"{seen}; ", "").replace(f"; {seen}", "").replace(seen, "")
    return message


def _notes(view: ModelView) -> list[Text]:
    return [Text(note.text, TONES[note.tone]) for note in notes(view)]


def _last_wish(cohort: CohortView, now: datetime) -> list[Text]:
    """The newest decision, if a person took it."""
    newest = cohort.decisions[0] if cohort.decisions else None
    if newest is None or not (newest.by or newest.why):
        return []
    at = parse_time(newest.at)
    told = f"{newest.action}{f' at {clock(at, now)}' if at else ''}"
    return [Text(f"{told}{asked_by(newest.by, newest.why)}", "dim")]


def _state(pod: PodView) -> str:
    return "Ready" if pod.ready else pod.state


def _more(pods: Sequence[PodView]) -> str:
    unready = sum(not pod.ready for pod in pods)
    return f"and {len(pods):,} more, " + (f"{unready:,} not ready" if unready else "all ready")


def _word(word: str, width: int = 0) -> Text:
    return Text(_pad(word, width), STYLES.get(word, ""))


def _column(texts: Iterable[str], most: int) -> int:
    return min(most, max(chain([0], map(cell_len, texts))))


def _pad(text: str, width: int) -> str:
    return text + " " * max(0, width - cell_len(text))


def _indented(line: Text, below: Sequence[Text]) -> RenderableType:
    """A line, and what belongs to it indented, also where it wraps."""
    line.rstrip()
    return Group(line, *(Padding(text, (0, 0, 0, 2), expand=False) for text in below))
