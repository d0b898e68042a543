"""The work queue: nothing is lost, nothing is worked on twice at a time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.runtime.queue import FIRST_RETRY, WorkQueue


async def test_a_key_that_is_added_twice_is_worked_on_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_key_that_changes_while_it_is_worked_on_comes_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    assert len(queue) == 0
    queue.done(key)
    assert await queue.get() == "a"


async def test_keys_are_worked_on_in_the_order_in_which_they_came() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "cab":
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == ["c", "a", "b"]


async def test_what_failed_need_not_wait_when_the_reason_is_over() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in "ab":
        queue.add(key)
    failed, well = await queue.get(), await queue.get()
    for _ in range(12):  # the next one would be minutes later
        queue.retry(failed, at_least=3600)
    queue.succeeded(well)
    queue.done(failed)
    queue.done(well)
    queue.retry_now()
    assert await queue.get() == failed
    assert len(queue) == 0
    assert queue.retry(failed) == FIRST_RETRY


async def test_the_earliest_of_several_later_wishes_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 3600)
    queue.add_after("a", 0.01)
    queue.add_after("a", 7200)
    assert await asyncio.wait_for(queue.get(), 5) == "a"


async def test_a_wish_for_later_wakes_a_worker_that_already_waits() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after("a", 0.01)
    assert await asyncio.wait_for(waiting, 5) == "a"


async def test_a_key_that_fails_is_retried_ever_later_until_it_succeeds() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delays = [queue.retry("a") for _ in range(4)]
    assert delays == [FIRST_RETRY * 2**n for n in range(4)]
    queue.succeeded("a")
    assert queue.retry("a") == FIRST_RETRY


async def test_an_idle_queue_has_no_age() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert queue.age() == 0
    queue.add("a")
    queue.done(await queue.get())
    assert queue.age() == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["now", "soon"])), max_size=30),
    st.integers(1, 4),
)
def test_every_wish_is_followed_by_work_and_no_key_has_two_workers(
    wishes: list[tuple[str, str]], workers: int
) -> None:
    async def world() -> None:
        queue: WorkQueue[str] = WorkQueue()
        working: set[str] = set()
        wished: dict[str, int] = {}
        seen: dict[str, int] = {}

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in working
                working.add(key)
                seen[key] = wished.get(key, 0)
                await asyncio.sleep(0)
                working.discard(key)
                queue.done(key)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        for number, (key, when) in enumerate(wishes, 1):
            wished[key] = number
            if when == "now":
                queue.add(key)
            else:
                queue.add_after(key, 0.001)
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while seen != wished:  # noqa: ASYNC110 — several workers have to finish
                await asyncio.sleep(0.001)
        for task in tasks:
            assert not task.done()
            task.cancel()

    asyncio.run(world())


async def test_finishing_what_nobody_took_is_a_mistake() -> None:
    queue: WorkQueue[str] = WorkQueue()
    with pytest.raises(KeyError):
        queue.done("a")
