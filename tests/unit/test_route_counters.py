"""Counters of gateways, understood."""

from __future__ import annotations

import aiohttp
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.reading import Count
from kohort.contract import METRIC_MIRRORED, METRIC_REQUESTS, Outcome
from kohort.observe import mirrors
from kohort.observe.gateways import (
    GatewayAddress,
    Scrape,
    Slot,
    Unknown,
    parse,
    table_versions,
)
from kohort.route.table import ModelKey

KEY = ModelKey("shop", "burger")

FAILED = ("0/-", "422/-", "500/-", "200/13", "0/2")
counters = st.dictionaries(
    st.tuples(
        st.sampled_from(("r1", "r2")),
        st.one_of(st.none(), st.integers(0, 255)),
        st.sampled_from(
            ("0/-", "200/-", "404/-", "422/-", "500/-", "200/0", "200/13", "0/2", "200/5")
        ),
        st.sampled_from(("-", "UC", "UF,URX", "DC", "UPE,DC")),
    ),
    st.integers(0, 10**12),
)


@given(counters)
def test_every_request_is_counted_once_by_arm_and_slot(
    counted: dict[tuple[str, int | None, str, str], int],
) -> None:
    lines = [
        f'{METRIC_REQUESTS}{{arm="shop/burger/{revision}",cohort="everyone",'
        f'slot="{"" if slot is None else slot}",code="{code}/{flags}"}} {number}'
        for (revision, slot, code, flags), number in counted.items()
    ]
    text = "\n".join(["# TYPE x counter", *lines, "envoy_server_uptime{} 1", ""]).encode()
    slots = parse(text).get((KEY, "everyone"), {})
    assert set(slots) == {Slot(revision, slot) for revision, slot, _, _ in counted}
    for found, count in slots.items():
        mine = {k: n for k, n in counted.items() if Slot(k[0], k[1]) == found}
        assert count.requests == sum(mine.values())
        assert count.failed == sum(n for (_, _, code, _), n in mine.items() if code in FAILED)


def test_a_client_that_gives_up_waiting_counts_as_failed() -> None:
    text = "".join(
        f'{METRIC_REQUESTS}{{arm="shop/burger/r1",cohort="everyone",slot="1",'
        f'code="{code}/{flags}"}} {number}\n'
        for code, flags, number in (("0/-", "DC", 7), ("200/-", "DC", 5), ("0/-", "UC", 2))
    )
    assert parse(text.encode()) == {(KEY, "everyone"): {Slot("r1", 1): Count(14, 9)}}


def test_requests_that_reached_no_model_are_passed_over() -> None:
    line = f'{METRIC_REQUESTS}{{arm="",cohort="",slot="",code="404/-/NR"}} 3\n'
    assert parse(line.encode()) == {}


async def test_a_gateway_is_not_asked_for_a_model_that_no_gateway_can_serve() -> None:
    gateway = GatewayAddress("a", "127.0.0.1", 9, 9)
    async with aiohttp.ClientSession() as session:
        told = await table_versions(session, [gateway], ModelKey("v2", "burger.king"))
    assert told == {"a": Unknown("it can serve this model neither by path nor by host")}


def test_a_gateway_that_counted_nothing_is_still_a_source() -> None:
    one = {Slot("r1", 1): Count(3, 1), Slot("r1", None): Count(2, 0)}
    seen = Scrape(1.0, {(KEY, "everyone"): {"a/1": one}}, ("a/1", "b/1"), ("c: gone",))
    reading = seen[(KEY, "everyone")]
    assert reading.sources == {"a/1": {"r1": Count(5, 1)}, "b/1": {}}
    assert reading.errors == ("c: gone",)
    assert seen[(KEY, "nobody")].sources == {"a/1": {}, "b/1": {}}
    assert list(seen) == [(KEY, "everyone")]


@given(st.dictionaries(st.sampled_from(Outcome), st.integers(0, 10**9)))
def test_mirrored_requests_are_pairs_of_both_revisions_and_what_was_dropped_is_none(
    counted: dict[Outcome, int],
) -> None:
    arms = 'stable="shop/burger/r1",canary="shop/burger/r2",cohort="everyone"'
    lines = [
        f'{METRIC_MIRRORED}{{{arms},outcome="{outcome}"}} {n}' for outcome, n in counted.items()
    ]
    slots = mirrors.parse("\n".join(["# TYPE x counter", *lines, ""]).encode())
    if not counted.keys() - {Outcome.DROPPED}:
        assert slots == {}
        return
    pairs = sum(n for outcome, n in counted.items() if outcome != "dropped")
    assert slots == {
        (KEY, "everyone/mirror"): {
            Slot("r1", None): Count(pairs, counted.get(Outcome.STABLE_FAILED, 0)),
            Slot("r2", None): Count(pairs, counted.get(Outcome.CANARY_FAILED, 0)),
            Slot("different", None): Count(counted.get(Outcome.DIFFERENT, 0), 0),
        }
    }
