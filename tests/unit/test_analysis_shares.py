"""Which share of a model's requests each cohort sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.reading import Count, Reading
from kohort.analysis.shares import ENOUGH, Requests, requests, shares


def counted(**cohorts: dict[str, int]) -> Requests:
    return dict(cohorts)


def test_requests_count_whichever_revision_answered() -> None:
    reading = Reading(at=0, sources={"g": {"v1": Count(90, 3), "v2": Count(10, 0)}, "h": {}})
    assert requests({"staff": reading}) == {"staff": {"g": 100, "h": 0}}


def test_the_first_look_tells_of_all_that_was_ever_counted() -> None:
    assert shares({}, counted(staff={"g": 20, "h": 30}, rest={"g": 950})) == {
        "staff": 0.05,
        "rest": 0.95,
    }


def test_later_looks_tell_of_what_came_since() -> None:
    before = counted(staff={"g": 5000}, rest={"g": 5000})
    after = counted(staff={"g": 5000}, rest={"g": 7000})
    assert shares(before, after) == {"staff": 0.0, "rest": 1.0}


def test_a_gateway_that_began_anew_counts_from_its_beginning() -> None:
    before = counted(staff={"g/1": 9000}, rest={"g/1": 1000})
    after = counted(staff={"g/2": 500}, rest={"g/2": 500})
    assert shares(before, after) == {"staff": 0.5, "rest": 0.5}


def test_a_gateway_that_was_not_read_takes_nothing_away() -> None:
    before = counted(staff={"g": 100, "h": 9000}, rest={"g": 100, "h": 9000})
    after = counted(staff={"g": 1100}, rest={"g": 3100})
    assert shares(before, after) == {"staff": 0.25, "rest": 0.75}


@pytest.mark.parametrize(("new", "known"), [(ENOUGH - 1, False), (ENOUGH, True)])
def test_few_requests_tell_nothing(new: int, known: bool) -> None:
    assert bool(shares({}, counted(staff={"g": new}, rest={"g": 0}))) is known


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10**9)))
def test_shares_add_up_to_all_requests(new: dict[str, int]) -> None:
    found = shares({}, {cohort: {"g": count} for cohort, count in new.items()})
    assert not found or sum(found.values()) == pytest.approx(1.0)
    assert bool(found) is (sum(new.values()) >= ENOUGH)
