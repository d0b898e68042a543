"""What differs between two files, and what applying one over the other changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.cli.differences import differences, three_way_patch

JSON = st.recursive(
    st.integers(0, 3) | st.sampled_from(["a", "b"]),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner) | st.lists(inner, max_size=2),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON)


def merged(present: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(present) if isinstance(present, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), value)
    return out


@given(OBJECTS, OBJECTS)
def test_applying_over_what_the_file_said_before_gives_what_it_says_now(
    original: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert merged(original, three_way_patch(original, wanted, original)) == wanted


@given(OBJECTS, OBJECTS)
def test_applying_leaves_what_others_have_set(
    wanted: dict[str, Any], of_others: dict[str, Any]
) -> None:
    present = {"others": of_others, **wanted}
    assert three_way_patch(wanted, wanted, present) == {}


@given(OBJECTS, OBJECTS)
def test_there_is_a_difference_exactly_where_two_values_differ(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    found = list(differences(before, after, "spec"))
    assert bool(found) == (before != after)
    assert all(each.before != each.after for each in found)
    assert all(each.path.startswith("spec") for each in found)


@pytest.mark.parametrize(
    ("before", "after"),
    [({"a": {}}, {"a": []}), ([{"name": "a"}], [{"name": "a"}, {"name": "a"}]), ([], [{}])],
)
def test_what_only_looks_alike_differs(before: Any, after: Any) -> None:
    assert list(differences(before, after, "spec")) != []


def test_items_of_a_list_are_told_by_name_and_in_their_order() -> None:
    before = {"cohorts": [{"name": "a", "w": 1}, {"name": "b"}]}
    after = {"cohorts": [{"name": "b"}, {"name": "a", "w": 2}, {"name": "c"}]}
    assert [str(each) for each in differences(before, after, "spec")] == [
        "spec.cohorts[a].w: 1 -> 2",
        'spec.cohorts[c]: (default) -> {"name":"c"}',
        'spec.cohorts in order: ["a","b"] -> ["b","a","c"]',
    ]
