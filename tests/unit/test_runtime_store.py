"""Caches of objects: late news never overrides later news, and lists tell of missed deletions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kohort.observe.objects import Record
from kohort.observe.store import Store
from kohort.route.table import ModelKey

KEY = ModelKey("shop", "burger")


def item(name: str, version: int, number: int = 0, namespace: str = "shop") -> Record:
    return Record(namespace, name, f"uid-{name}", "burger", number, version)


class World:
    """A store, and the models that it woke."""

    def __init__(self) -> None:
        self.woken: list[ModelKey] = []
        self.store: Store[Record] = Store(self.woken.append)


def test_a_new_object_wakes_its_model_and_the_same_again_does_not() -> None:
    world = World()
    world.store.put(item("a", 1))
    world.store.put(item("a", 2))
    assert world.woken == [KEY]
    assert world.store.of(KEY).keys() == {"a"}


def test_an_older_state_that_comes_late_is_ignored() -> None:
    world = World()
    world.store.put(item("a", 5, number=2))
    world.store.put(item("a", 4, number=1))
    known = world.store.get("shop", "a")
    assert known is not None
    assert known.number == 2


def test_a_list_without_an_object_means_that_it_was_deleted() -> None:
    world = World()
    world.store.put(item("a", 1))
    world.store.put(item("b", 2))
    world.woken.clear()
    world.store.replace([item("b", 2)], version=10)
    assert world.store.of(KEY).keys() == {"b"}
    assert world.woken == [KEY]


def test_a_list_of_one_namespace_says_nothing_about_another() -> None:
    world = World()
    world.store.put(item("a", 1, namespace="elsewhere"))
    world.store.replace([], version=10, namespace="shop")
    assert world.store.get("elsewhere", "a") is not None


def test_a_list_that_is_older_than_an_object_does_not_remove_it() -> None:
    world = World()
    world.store.put(item("a", 12))
    world.store.replace([], version=10)
    assert world.store.get("shop", "a") is not None


def test_the_answer_to_a_write_does_not_bring_back_what_was_deleted_since() -> None:
    world = World()
    world.store.put(item("a", 1))
    world.store.remove("shop", "a", version=8)
    world.store.put_answer(item("a", 7))
    assert world.store.get("shop", "a") is None


def test_the_answer_to_a_write_counts_before_the_watch_tells_of_it() -> None:
    world = World()
    world.store.put(item("a", 1))
    world.store.put_answer(item("b", 2))
    assert world.store.of(KEY).keys() == {"a", "b"}


def test_the_late_news_of_a_deletion_spares_an_object_that_was_made_anew() -> None:
    world = World()
    world.store.put(item("a", 1))
    world.store.put_answer(item("a", 9, number=2))
    world.store.remove("shop", "a", version=8)
    assert world.store.get("shop", "a") is not None


events = st.lists(
    st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 3)), min_size=1, max_size=20
)


@given(events, st.data())
def test_however_news_is_ordered_the_last_state_of_each_object_wins(
    history: list[tuple[str, bool, int]], data: st.DataObject
) -> None:
    """Deletions come in order (only answers to writes overtake the watch), repeated puts anyhow."""
    world = World()
    truth: dict[str, Record] = {}
    for version, (name, exists, number) in enumerate(history, 1):
        if exists:
            truth[name] = item(name, version, number)
            world.store.put(truth[name])
            stale = data.draw(st.integers(0, version - 1))
            if stale:
                world.store.put(item(name, stale, 99))
        else:
            truth.pop(name, None)
            world.store.remove("shop", name, version)
    assert dict(world.store.of(KEY)) == truth
    assert len(world.store) == len(truth)
