"""When a gateway's word about a route counts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.act.children import covers
from kohort.observe.acknowledged import behind, parent_names
from kohort.observe.objects import parse_owned

PARENTS = ("infra/public",)


def told(
    parent: dict[str, str], accepted: str = "True", resolved: str = "True", generation: int = 3
) -> dict[str, Any]:
    conditions = [
        {
            "type": kind,
            "status": status,
            "reason": "R",
            "message": "m",
            "observedGeneration": generation,
        }
        for kind, status in (("Accepted", accepted), ("ResolvedRefs", resolved))
    ]
    return {"parentRef": parent, "controllerName": "example.com/x", "conditions": conditions}


PUBLIC = {"name": "public", "namespace": "infra"}


def late(*statuses: dict[str, Any], parents: tuple[str, ...] = PARENTS) -> tuple[str, ...]:
    route = {
        "metadata": {"namespace": "infra", "name": "burger", "generation": 3},
        "spec": {},
        "status": {"parents": statuses},
    }
    return behind(parse_owned(msgspec.json.encode(route)), parents)


def test_a_parent_that_agrees_with_the_newest_generation_follows() -> None:
    assert late(told(PUBLIC)) == ()


def test_a_parent_without_a_namespace_is_in_the_routes() -> None:
    assert late(told({"name": "public"})) == ()


@pytest.mark.parametrize(
    "statuses",
    [
        (),
        (told({"name": "other", "namespace": "infra"}),),
        (told({**PUBLIC, "sectionName": "https"}),),
        (told({**PUBLIC, "kind": "Service"}),),
        (told(PUBLIC, generation=2),),
        (told(PUBLIC, accepted="False", generation=2),),
        ({**told(PUBLIC), "conditions": told(PUBLIC)["conditions"][:1]},),
    ],
    ids=["silent", "another", "a listener", "a mesh", "late", "late refusal", "half an answer"],
)
def test_a_parent_that_has_not_spoken_of_it_is_merely_late(statuses: tuple[Any, ...]) -> None:
    assert late(*statuses) == PARENTS


def test_a_refusal_is_told_in_the_gateways_words() -> None:
    assert late(told(PUBLIC, resolved="False")) == ("infra/public (ResolvedRefs is False: R: m)",)


def test_of_two_controllers_of_one_parent_none_may_disagree() -> None:
    assert late(told(PUBLIC), told(PUBLIC, accepted="Unknown")) == (
        "infra/public (Accepted is Unknown: R: m)",
    )


def test_every_parent_has_to_follow() -> None:
    assert late(told(PUBLIC), parents=("infra/public", "shop/inner")) == ("shop/inner",)


def test_parents_are_called_by_namespace_name_and_listener() -> None:
    references = [PUBLIC, {**PUBLIC, "sectionName": "https"}]
    assert parent_names(references) == ("infra/public", "infra/public:https")


values = st.recursive(
    st.one_of(st.integers(0, 3), st.sampled_from("ab")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_everything_covers_itself(value: Any) -> None:
    assert covers(value, value)


@given(st.dictionaries(st.sampled_from("xyz"), values), values)
def test_a_field_that_somebody_added_is_no_difference(wanted: dict[str, Any], more: Any) -> None:
    assert covers({**wanted, "added": more}, wanted)
    assert not covers(wanted, {**wanted, "added": more})


@given(st.lists(values), values)
def test_an_item_that_somebody_added_to_a_list_is_one(wanted: list[Any], more: Any) -> None:
    assert not covers([*wanted, more], wanted)
