"""Figures, times and names as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.view.words import (
    age,
    clean,
    clock,
    duration,
    parse_time,
    plural,
    sentence,
    share,
    stopped,
    uri_tail,
)


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (-5, "0s", "0 s"),
        (0.4, "0s", "0.4 s"),
        (4, "4s", "4 s"),
        (63, "1m", "1 min 3 s"),
        (60, "1m", "1 min"),
        (7500, "2h", "2 h 5 min"),
        (7203, "2h", "2 h"),
        (360_000, "4d", "4 d 4 h"),
    ],
)
def test_a_span_of_time_has_one_figure_in_tables_and_two_in_sentences(
    seconds: float, short: str, long: str
) -> None:
    assert (age(seconds), duration(seconds)) == (short, long)


@pytest.mark.parametrize(
    ("failed", "requests", "text"),
    [(0, 0, ""), (0, 7, "0%"), (11, 402, "2.7%"), (9, 3611, "0.25%"), (38, 38, "100%")],
)
def test_a_share_has_two_leading_figures(failed: int, requests: int, text: str) -> None:
    assert share(failed, requests) == text


def test_a_time_is_told_in_the_zone_of_the_reader_and_with_its_date_on_another_day() -> None:
    evening = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)
    tokyo = timezone(timedelta(hours=9))
    assert clock(evening, evening) == "23:30:00"
    assert clock(evening, evening.astimezone(tokyo)) == "08:30:00"
    assert clock(evening, evening + timedelta(hours=1)) == "2026-11-24 23:30:00"


def test_what_is_no_time_is_none_and_a_time_without_a_zone_is_utc() -> None:
    assert [parse_time(text) for text in (None, "", "yesterday")] == [None, None, None]
    assert parse_time("2026-11-24T10:00:00") == datetime(2026, 11, 24, 10, tzinfo=UTC)
    assert parse_time("2026-11-24T10:00:00.5Z") == datetime(2026, 11, 24, 10, 0, 0, 500_000, UTC)


def test_a_sentence_begins_with_a_capital_unless_it_begins_with_a_name_or_figure() -> None:
    assert sentence("waits for pods") == "Waits for pods."
    assert sentence("kohort-gateway-0 is behind") == "kohort-gateway-0 is behind."
    assert sentence("v3 is tried") == "v3 is tried."
    assert sentence("") == ""
    assert stopped("all done!") == "all done!"


def test_one_is_singular_and_thousands_are_grouped() -> None:
    assert [plural(n, "pod") for n in (0, 1, 1200)] == ["0 pods", "1 pod", "1,200 pods"]


def test_a_long_uri_keeps_the_end_that_tells_versions_apart() -> None:
    uri = "s3://models/team/burger/7/model.onnx"
    assert uri_tail(uri, 80) == uri
    assert uri_tail(uri, 24) == "../burger/7/model.onnx"
    assert uri_tail("x" * 50, 10) == ".." + "x" * 8


@given(st.text(), st.integers(4, 100))
def test_the_tail_of_a_uri_fits(uri: str, width: int) -> None:
    assert len(uri_tail(uri, width)) <= width


@given(st.text())
def test_cleaned_text_is_one_printable_line(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(clean(text)) == clean(text)
