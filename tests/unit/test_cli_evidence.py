"""``evidence``: metrics as lines towards their borders, good to read at any width and for programs."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec import structs
from rich.cells import cell_len

from kohort.api.status import CohortPhase, Status
from kohort.cli.evidence import ASCII, BLOCKS, Sheet
from kohort.view.borders import rows
from tests.unit.cli_samples import printed
from tests.unit.plan_simulation import model, serving


@pytest.fixture(scope="module")
def halfway() -> Status:
    """A rollout whose canary has had clients for a while."""
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.until(lambda c: c.cohort().weight == 25)
    for _ in range(6):
        cluster.tick()
    return cluster.status


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_of_points_is_wider_than_the_terminal(halfway: Status, width: int) -> None:
    told = printed(Sheet(tuple(rows(halfway))), width)
    assert max(map(cell_len, told.splitlines())) <= width


def test_each_metric_has_a_line_towards_each_of_its_borders(halfway: Status) -> None:
    told = printed(Sheet(tuple(rows(halfway))), 200).splitlines()
    assert told[0] == "everyone"
    assert told[1] == "  errors  Insufficient"
    assert told[2].startswith("    harm   ▁")
    assert told[2].endswith("% of what accuses it")
    assert told[3].startswith("    proof  ▁▁")
    assert told[3].endswith("% of what proves it")
    assert "canary requests failed against" in told[4]
    assert told[5] == "  latency  Insufficient"
    assert told[6].startswith("    harm   ")


def test_a_proof_that_grows_is_seen_to_grow(halfway: Status) -> None:
    (errors, _) = rows(halfway)
    proof = errors.lines[1].points
    assert proof[0] < proof[-1]
    line = printed(Sheet((errors,)), 200).splitlines()[3]
    drawn = [BLOCKS.index(glyph) for glyph in line if glyph in BLOCKS]
    assert drawn == sorted(drawn)


def test_a_terminal_without_unicode_has_lines_too(halfway: Status) -> None:
    told = printed(Sheet(tuple(rows(halfway))), 80, encoding="ascii")
    assert told.isascii()
    assert f"    harm   {ASCII[0]}" in told


def test_a_rollout_that_is_over_still_tells_its_sentences() -> None:
    cluster = serving(model(1))
    cluster.edit(model(2))
    cluster.bad.add(cluster.desired)
    cluster.until(lambda c: c.cohort().phase is CohortPhase.ROLLED_BACK)
    told = printed(Sheet(tuple(rows(cluster.status))), 200)
    assert "errors  Fail" in told
    assert "harm" not in told


def test_programs_get_points_and_figures_and_no_inner_state(halfway: Status) -> None:
    stored = msgspec.json.decode(msgspec.json.encode(halfway), type=Status)
    told = json.loads(msgspec.json.encode([row.data() for row in rows(stored)]))
    assert {row["verdict"] for row in told} == {"Insufficient"}
    assert [row["metric"] for row in told] == ["errors", "latency"]
    assert told[0]["borders"][1]["kind"] == "proof"
    assert told[0]["borders"][1]["percent"]
    assert told[1]["slowFrom"] == 150
    assert not {"state", "slots"} & told[0].keys()


def test_one_cohort_can_be_asked_for(halfway: Status) -> None:
    other = structs.replace(halfway.cohorts[0], name="other")
    both = structs.replace(halfway, cohorts=(*halfway.cohorts, other))
    assert {row.cohort for row in rows(both, "other")} == {"other"}
