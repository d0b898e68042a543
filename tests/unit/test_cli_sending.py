"""What a ModelDeployment tells of a command: that it waits, what became of it, or that it was overtaken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from kohort.api.command import ANNOTATION_COMMAND, Command, Verb, parse_command
from kohort.cli.main import parser
from kohort.cli.sending import SendingError, answer
from kohort.cli.verbs import asked, outcome
from kohort.view.rollout import spoken, waiting
from tests.unit.cli_samples import RESOURCES

MINE = Command(verb=Verb.PAUSE, cohort="staff", by="anna", why="too early", id="1")
OTHER = Command(verb=Verb.RESUME, by="bob", id="2")


def resource(asked: Command | None, answered: Command | None, **status: Any) -> dict[str, Any]:
    """A ModelDeployment with a command in its annotation, and the one that was answered last."""
    told = {"id": answered.id, "line": answered.line(), **status} if answered else None
    return {
        "metadata": {
            "name": "m",
            "annotations": {ANNOTATION_COMMAND: asked.line()} if asked else {},
        },
        "status": {"command": told} if told else {},
    }


def test_a_command_waits_until_it_is_answered() -> None:
    assert waiting(resource(MINE, None)) == MINE.line()
    assert answer(resource(MINE, None), MINE) is None
    assert answer(resource(MINE, OTHER), MINE) is None
    assert waiting(resource(MINE, MINE)) == ""
    assert waiting(resource(None, None)) == ""


@pytest.mark.parametrize("accepted", [True, False])
def test_an_answer_tells_whether_it_was_carried_out_and_what_that_means(accepted: bool) -> None:
    told = answer(resource(MINE, MINE, accepted=accepted, message="so"), MINE)
    assert told
    assert (told.accepted, told.message) == (accepted, "so")


def test_an_answer_counts_also_when_another_command_waits_already() -> None:
    assert answer(resource(OTHER, MINE, accepted=True), MINE)


def test_a_command_in_its_place_overtakes_one_that_was_not_answered() -> None:
    for answered in (None, OTHER):
        with pytest.raises(SendingError, match="another command came before") as told:
            answer(resource(OTHER, answered), MINE)
        assert "kubectl kohort history m" in str(told.value)


def test_a_command_that_was_taken_back_is_told_so() -> None:
    with pytest.raises(SendingError, match="was taken back before Kohort answered"):
        answer(resource(None, None), MINE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pause staff by=anna why='too early' id=1", "pause staff"),
        ("promote to=next id=1", "promote"),
        ("promote staff to=all", "promote staff to all"),
        ("undo to=v2", "undo to v2"),
        ("dance  all\tnight", "dance all night"),
        ("pause why='open", "pause why='open"),
    ],
)
def test_a_command_is_spoken_without_its_record(line: str, said: str) -> None:
    assert spoken(line) == said


def test_an_outcome_says_what_was_done_where_cohorts_stand_and_how_to_follow() -> None:
    command = Command(verb=Verb.ABORT, cohort="aborted", by="anna", id="2")
    told = answer(RESOURCES["commanded"], command)
    assert told
    assert outcome(told, command) == [
        "aborted stays on v2 (asked for by anna).",
        "  aborted: RolledBack v2, v3 was aborted; on v2",
        "kubectl kohort get menu -w",
    ]


def test_what_concerns_no_cohort_alone_tells_of_all_of_them() -> None:
    command = Command(verb=Verb.RESTART, id="2")
    told = answer(RESOURCES["commanded"], command)
    assert told
    assert len(outcome(told, command)) == 1 + 4 + 1


def documented() -> list[tuple[str, str]]:
    """What docs/kubectl.md says of each verb: the plugin's words, and the annotation's."""
    text = (Path(__file__).parents[2] / "docs" / "kubectl.md").read_text()
    return re.findall(r'^\| `(.*?)` \| `say "(.*?)"` \|', text, re.MULTILINE)


def test_every_verb_is_documented() -> None:
    assert {line.split()[0] for _, line in documented()} == {verb.value for verb in Verb}


@pytest.mark.parametrize(("typed", "line"), documented())
@pytest.mark.parametrize("whole", [True, False])
def test_the_documented_ways_of_saying_it_mean_the_same(typed: str, line: str, whole: bool) -> None:
    def filled(text: str) -> str:
        chosen = re.sub(r"\[.*?\]", "", text) if whole else re.sub(r"[\[\]]", "", text)
        return chosen.replace("COHORT", "staff").replace(r"\|", "|")

    meant = asked(parser().parse_args(filled(typed).split()), by="anna")
    assert parse_command(meant.line()) == meant
    assert structs.replace(meant, by="", id="") == parse_command(filled(line))
