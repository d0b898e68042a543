"""The cache of ModelDeployments."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kohort.api.status import CohortStatus, Status
from kohort.route.table import ModelKey
from kohort.runtime.models import Models, convert_model, parse_model

KEY = ModelKey("shop", "burger")


def content(version: int, uid: str = "u1", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "shop",
            "name": "burger",
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
        },
        "spec": {"model": {"uri": "file:///m.onnx"}, **spec},
        "status": {"observedGeneration": 1},
    }


class World:
    """A cache, and the keys that it woke."""

    def __init__(self) -> None:
        self.woken: list[ModelKey] = []
        self.models = Models(self.woken.append)

    def version(self) -> int:
        model = self.models.get(KEY)
        return model.version if model else 0


def test_a_spec_of_another_version_of_kohort_is_told_and_not_fatal() -> None:
    model = convert_model(content(1, somethingNew={"a": 1}))
    assert model.spec is None
    assert "somethingNew" in model.invalid
    assert model.status.observed_generation == 1


def test_a_status_comes_back_as_it_was_written() -> None:
    status = Status(observed_generation=3, cohorts=(CohortStatus(name="everyone", weight=5),))
    written = content(1) | {"status": msgspec.json.decode(msgspec.json.encode(status))}
    assert convert_model(written).status == status
    assert parse_model(msgspec.json.encode(written)).status == status


def test_the_answer_to_our_own_write_counts_before_the_watch_tells_of_it() -> None:
    world = World()
    world.models.put(convert_model(content(5)))
    world.models.put_answer(convert_model(content(7)))
    world.models.put(convert_model(content(6)))
    assert world.version() == 7


def test_the_answer_to_a_write_does_not_bring_back_a_deleted_model() -> None:
    world = World()
    world.models.put(convert_model(content(5)))
    world.models.remove(convert_model(content(8)))
    world.models.put_answer(convert_model(content(7)))
    assert world.models.get(KEY) is None


def test_the_answer_to_a_write_does_not_replace_a_model_that_was_made_anew() -> None:
    world = World()
    world.models.put(convert_model(content(9, uid="u2")))
    world.models.put_answer(convert_model(content(10, uid="u1")))
    assert world.version() == 9


def test_a_deletion_that_was_missed_is_found_by_the_next_list() -> None:
    world = World()
    world.models.put(convert_model(content(5)))
    world.woken.clear()
    world.models.replace([], version=6)
    assert world.models.get(KEY) is None
    assert world.woken == [KEY]


def test_a_list_that_is_older_than_a_model_does_not_remove_it() -> None:
    world = World()
    world.models.put(convert_model(content(9)))
    world.models.replace([], version=6)
    assert world.version() == 9


def test_a_watch_that_tells_what_is_known_has_no_lag() -> None:
    world = World()
    world.models.put(convert_model(content(5)))
    world.models.put_answer(convert_model(content(7)))
    assert world.models.watch_lag() > 0
    world.models.put(convert_model(content(6)))
    assert world.models.watch_lag() > 0
    world.models.put(convert_model(content(7)))
    assert world.models.watch_lag() == 0


def test_a_watch_that_does_not_tell_what_a_list_has_told_lags() -> None:
    world = World()
    world.models.replace([parse_model(msgspec.json.encode(content(5)))], version=6)
    assert world.models.watch_lag() > 0
    world.models.remove(convert_model(content(8)))
    assert world.models.watch_lag() == 0


def test_a_list_reads_again_only_what_has_changed() -> None:
    world = World()
    world.models.put(convert_model(content(5)))
    known = world.models.get(KEY)
    assert world.models.parse(msgspec.json.encode(content(5))) is known
    assert world.models.parse(msgspec.json.encode(content(6))).version == 6


WITH_CANARY = {"cohorts": [{"name": "everyone", "stable": "burger-1", "canary": "burger-2"}]}
WITH_PODS_AWAITED = {
    "revisions": [
        {
            "name": "burger-1",
            "number": 1,
            "uri": "file:///m.onnx",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "preparingSince": "2026-01-01T00:00:00.000Z",
        }
    ]
}


@pytest.mark.parametrize(
    ("changes", "busy"),
    [
        ({}, False),
        ({"status": {"cohorts": [{"name": "everyone", "stable": "burger-1"}]}}, False),
        ({"status": WITH_CANARY}, True),
        ({"status": WITH_PODS_AWAITED}, True),
        ({"spec": {"model": {"uri": "file:///m.onnx"}, "engine": {"type": "Auto"}}}, True),
    ],
)
def test_only_models_of_which_something_is_asked_are_busy(
    changes: dict[str, object], busy: bool
) -> None:
    world = World()
    world.models.put(convert_model(content(1)))
    world.models.put(convert_model(content(2) | changes))
    assert bool(world.models.busy) == busy
    world.models.put(convert_model(content(3)))
    assert not world.models.busy
    world.models.put_answer(convert_model(content(4) | changes))
    world.models.remove(convert_model(content(5)))
    assert not world.models.busy
