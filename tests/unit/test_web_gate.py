"""What the gate remembers and how much it asks: bounded, whatever comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kohort.web.gate import Budget, Memory, Wish


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 30), st.floats(0, 20))))
def test_memory_gives_the_last_value_for_its_time_and_never_an_old_one(
    steps: list[tuple[int, float, float]],
) -> None:
    now = 0.0
    memory: Memory[float] = Memory(lambda: now, most=4)
    written: dict[int, tuple[float, float]] = {}
    for key, seconds, pause in steps:
        memory.put(key, now, seconds)
        written[key] = (now, seconds)
        assert len(memory) <= 4
        now += pause
        for known, (at, lasts) in written.items():
            value = memory.get(known)
            assert value is None or (value == at and now < at + lasts)


@given(st.lists(st.floats(0, 3), max_size=200), st.floats(0.5, 50), st.integers(1, 60))
def test_no_more_is_asked_than_at_once_and_per_second_after_that(
    pauses: list[float], rate: float, most: int
) -> None:
    now = 0.0
    budget = Budget(lambda: now, rate, most)
    asked = 0
    for pause in pauses:
        now += pause
        asked += budget.take()
        assert asked <= most + rate * now + 1e-6
    now += 1 / rate + 1e-6
    assert budget.take()


def test_a_wish_says_what_it_asks_for() -> None:
    assert Wish("list", "").words() == "list modeldeployments in all namespaces"
    assert Wish("get", "shop", "x").words() == "get modeldeployments in namespace shop"
