"""Commands in an annotation: what is understood, what is refused, and what counts as another one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.api.command import (
    FOR_ALL_COHORTS,
    LONGEST,
    Command,
    CommandError,
    Verb,
    command_id,
    parse_command,
)

TEXT = st.text(max_size=60)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    verb = draw(st.sampled_from(list(Verb)))
    to = {Verb.PROMOTE: st.sampled_from(["next", "all"]), Verb.UNDO: st.sampled_from(["", "v2"])}
    return Command(
        verb=verb,
        cohort="" if verb in FOR_ALL_COHORTS else draw(st.sampled_from(["", "eu-shops", "a"])),
        to=draw(to.get(verb, st.just(""))),
        by=draw(TEXT),
        why=draw(TEXT),
        id=draw(TEXT),
    )


@given(commands())
def test_a_command_comes_back_as_it_was_written(command: Command) -> None:
    assert parse_command(command.line()) == command


@given(st.text(max_size=LONGEST + 10))
def test_any_text_is_a_command_or_is_refused_with_a_reason(line: str) -> None:
    told = ""
    try:
        told = parse_command(line).verb
    except CommandError as error:
        told = str(error)
    assert told


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "is no command; there is: pause"),
        ("promot", "there is: pause, resume, promote, abort, retry, undo, restart"),
        ("promote everyone eu", '"eu" is not understood'),
        ("promote Everyone", '"Everyone" is not understood'),
        ("promote to=full", '"next" or "all"'),
        ("abort to=v2", "abort takes no to="),
        ("undo everyone", "leave out everyone"),
        ("promote who=me", '"who" is no key; there is: to, by, why, id'),
        ("promote by=a by=b", '"by" stands twice'),
        ("promote why='because", "close every quote"),
        ("promote " + "x" * LONGEST, "at most"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_what_to_write(line: str, told: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_command(line)
    assert told in str(refused.value)


def test_promote_means_the_next_step() -> None:
    assert parse_command("promote").to == "next"


def test_equal_lines_are_one_command_and_an_id_tells_them_apart() -> None:
    assert command_id("abort") == command_id("abort")
    assert command_id("abort") != command_id("abort everyone")
    assert command_id("abort id=1") == "1"
    assert command_id("nonsense") != ""
    assert command_id("  ") == ""
