"""Reports of what gates found: for people (HTML, Markdown), for CI (JUnit XML), for programs (JSON)."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html import escape
from pathlib import Path
from string import Template

import msgspec

from kohort_server.gates.results import FailingSample, GateResult, GatesReport, Outcome
from kohort_server.gates.words import numbers_told

MARKS = {
    Outcome.PASSED: "✓",
    Outcome.FAILED: "✗",
    Outcome.INSUFFICIENT: "?",
    Outcome.INVALID: "!",
}

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Gates: $title</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: .5em 0 1em; }
td, th { text-align: left; padding: .2em .8em .2em 0; border-bottom: 1px solid #ddd; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; text-align: right; }
.Passed { color: #116b2c; } .Failed, .Invalid { color: #b00020; } .InsufficientSamples { color: #8a5a00; }
figure { display: inline-block; margin: 0 1.2em 1em 0; } figcaption { font-size: 13px; max-width: 22em; }
img { image-rendering: pixelated; margin-right: .4em; border: 1px solid #ccc; }
code { overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; }
.Passed { color: #6cc985; } .Failed, .Invalid { color: #ff7a85; } .InsufficientSamples { color: #e0b050; } }
</style></head><body>
$body
</body></html>
""")


def write(report: GatesReport, directory: Path) -> None:
    """Write report.html, report.md with its pictures, junit.xml and results.json; raises `OSError`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.html").write_text(html(report))
    (directory / "junit.xml").write_bytes(junit(report))
    (directory / "results.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(without_pictures(report)))
    )
    pictures = directory / "pictures"

    def keep(name: str, picture: bytes) -> str:
        pictures.mkdir(exist_ok=True)
        (pictures / name).write_bytes(picture)
        return f"pictures/{name}"

    (directory / "report.md").write_text(markdown(report, keep))


def without_pictures(report: GatesReport) -> GatesReport:
    """The report as programs want it."""
    replace = msgspec.structs.replace
    return replace(
        report,
        gates=[
            replace(
                gate,
                failing=[replace(one, picture=b"", picture_after=b"") for one in gate.failing],
            )
            for gate in report.gates
        ],
    )


def table(report: GatesReport) -> str:
    """What a person at a terminal reads: one line for each gate, and the findings that matter."""
    lines = []
    for gate in report.gates:
        told = gate.telling
        where = f"slice {told.slice}: " if told.slice else ""
        lines.append(
            f"{MARKS[gate.outcome]} {gate.name}: {gate.outcome.value}: {where}{told.message}"
        )
        if numbers := numbers_told(told):
            lines.append(f"    {numbers}")
    for mutant in report.mutants:
        how = ", ".join(mutant.killed_by) or survived_how(mutant.same_answers)
        lines.append(f"  {'survived' if mutant.survived else 'noticed '} {mutant.name}: {how}")
    score = report.mutation_score
    if score is not None:
        lines.append(f"mutation score {score:.2f}")
    verdict = "every gate passed" if report.passed else "no: not every gate passed"
    return "\n".join([*lines, verdict]) + "\n"


def survived_how(same_answers: bool) -> str:
    """Why nobody noticed."""
    return (
        "the same answers to every sample" if same_answers else "other answers, and no gate noticed"
    )


def html(report: GatesReport) -> str:
    """One page without anything from elsewhere."""
    verdict = "passed" if report.passed else "did not pass"
    parts = [
        f"<h1>The model {verdict}</h1>",
        f"<p><code>{escape(report.model)}</code><br><code>{report.model_digest}</code><br>"
        f"{escape(report.engine)}{escape(f', compared with {report.stable}' if report.stable else '')}</p>",
    ]
    for gate in report.gates:
        parts.append(
            f'<h2><span class="{gate.outcome.value}">{MARKS[gate.outcome]} {gate.outcome.value}</span> '
            f"{escape(gate.name)}</h2><p>{escape(gate.what)}<br>golden data <code>{gate.golden}</code></p>"
            f"{_html_findings(gate)}"
        )
        if gate.failing:
            parts.append(f"<p>{escape(failing_told(gate))}</p>")
            parts += [_html_sample(sample) for sample in gate.failing]
    if report.mutants:
        parts.append(_html_mutants(report))
    return PAGE.substitute(title=escape(report.model), body="\n".join(parts))


def failing_told(gate: GateResult) -> str:
    """How many samples it stumbled over."""
    shown = len(gate.failing)
    first = "" if shown == gate.failing_count else f", the first {shown}"
    return f"{gate.failing_count:,} samples that it stumbled over{first}:"


def _html_findings(gate: GateResult) -> str:
    rows = []
    for finding in gate.findings:
        numbers = "".join(
            f'<td class="number">{"" if value is None else f"{value:.4f}"}</td>'
            for value in (finding.value, finding.bound, finding.threshold)
        )
        rows.append(
            f'<tr><td class="{finding.outcome.value}">{MARKS[finding.outcome]}</td>'
            f'<td>{escape(finding.slice) or "all"}</td><td class="number">{finding.n:,}</td>{numbers}'
            f"<td>{escape(finding.message)}</td></tr>"
        )
    names = ("", "samples", "n", "value", "bound", "threshold", "")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _html_sample(sample: FailingSample) -> str:
    images = "".join(
        f'<img alt="" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        for picture in (sample.picture, sample.picture_after)
        if picture
    )
    inputs = "".join(
        f"<br><code>{escape(text)}</code>" for text in (sample.input, sample.input_after) if text
    )
    caption = f"<figcaption>{escape(sample_told(sample))}{inputs}</figcaption>"
    return f"<figure>{images}{caption}</figure>"


def sample_told(sample: FailingSample) -> str:
    """A sample in words."""
    told = f"sample {sample.sample}"
    if sample.slice:
        told += f" of {sample.slice}"
    if sample.expected:
        told += f", label {sample.expected}"
    return f"{told}: {sample.before}" + (f" → {sample.after}" if sample.after else "")


def _html_mutants(report: GatesReport) -> str:
    rows = "".join(
        f'<tr><td class="{"Failed" if one.survived else "Passed"}">'
        f"{'survived' if one.survived else 'noticed'}</td><td>{escape(one.name)}</td>"
        f"<td>{escape(', '.join(one.killed_by) or survived_how(one.same_answers))}</td></tr>"
        for one in report.mutants
    )
    score = report.mutation_score or 0.0
    return f"<h2>Broken models: mutation score {score:.2f}</h2><table>{rows}</table>"


def markdown(report: GatesReport, keep: Callable[[str, bytes], str]) -> str:
    """The same in Markdown; ``keep`` stores a picture by its name, and says where it is."""
    verdict = "passed" if report.passed else "did not pass"
    lines = [
        f"# The model {verdict}",
        "",
        f"`{report.model}` `{report.model_digest}`, {report.engine}",
    ]
    if report.stable:
        lines.append(f"compared with `{report.stable}`")
    for gate in report.gates:
        lines += [
            "",
            f"## {MARKS[gate.outcome]} {gate.name}: {gate.outcome.value}",
            "",
            f"{_md(gate.what)}; golden data `{gate.golden}`",
        ]
        lines += [
            "",
            "| | samples | n | value | bound | threshold | |",
            "|---|---|---|---|---|---|---|",
        ]
        for one in gate.findings:
            numbers = " | ".join(
                "" if value is None else f"{value:.4f}"
                for value in (one.value, one.bound, one.threshold)
            )
            lines.append(
                f"| {MARKS[one.outcome]} | {_md(one.slice) or 'all'} | {one.n:,} | {numbers} "
                f"| {_md(one.message)} |"
            )
        if gate.failing:
            lines += ["", failing_told(gate), ""]
            lines += [_md_sample(gate.name, sample, keep) for sample in gate.failing]
    if report.mutants:
        lines += ["", f"## Broken models: mutation score {report.mutation_score:.2f}", ""]
        lines += ["| | broken | noticed by |", "|---|---|---|"]
        for mutant in report.mutants:
            how = ", ".join(mutant.killed_by) or survived_how(mutant.same_answers)
            lines.append(
                f"| {'survived' if mutant.survived else 'noticed'} | {mutant.name} | {how} |"
            )
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    """Text that Markdown and HTML in it leave as it is."""
    for special in "\\`*_|<>[]":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _md_sample(gate: str, sample: FailingSample, keep: Callable[[str, bytes], str]) -> str:
    told = f"- {_md(sample_told(sample))}"
    for name, picture in (("before", sample.picture), ("after", sample.picture_after)):
        if picture:
            told += f" ![{name}]({keep(f'{gate}-{sample.sample}-{name}.png', picture)})"
    for text in (sample.input, sample.input_after):
        if text:
            told += f" · {_md(text)}"
    return told


def junit(report: GatesReport) -> bytes:
    """A test case for each gate."""
    failed = [gate for gate in report.gates if not gate.passed]
    errors = [gate for gate in failed if gate.outcome is Outcome.INVALID]
    suite = ET.Element(
        "testsuite",
        name="gates",
        tests=str(len(report.gates)),
        failures=str(len(failed) - len(errors)),
        errors=str(len(errors)),
        time=f"{report.seconds:.3f}",
    )
    for gate in report.gates:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"gates.{gate.kind}",
            name=gate.name,
            time=f"{gate.seconds:.3f}",
        )
        told = [
            f"{one.slice or 'all samples'}: {one.outcome.value}: {one.message} ({numbers_told(one)})"
            for one in gate.findings
        ]
        if not gate.passed:
            kind = "error" if gate.outcome is Outcome.INVALID else "failure"
            problem = ET.SubElement(
                case, kind, type=gate.outcome.value, message=_xml(gate.telling.message)
            )
            problem.text = _xml("\n".join(told))
        else:
            ET.SubElement(case, "system-out").text = _xml("\n".join(told))
    root = ET.Element("testsuites", name="kohort-server gates")
    root.append(suite)
    ET.indent(root)
    encoded: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return encoded


def _xml(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return "".join(
        one if one in "\t\n" or " " <= one <= "\ud7ff" or one > "\udfff" else "�" for one in text
    )
