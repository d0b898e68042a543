"""Counters of gateways, understood."""

from __future__ import annotations

import aiohttp
from hypothesis import given
from hypothesis import strategies as st

from kohort.analysis.reading import Count
from kohort.contract import METRIC_MIRRORED, METRIC_REQUESTS, TOOK_MS, Outcome
from kohort.observe import mirrors
from kohort.observe.counters import Cell, parse
from kohort.observe.gateways import GatewayAddress, Scrape, Unknown, table_versions
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
        st.sampled_from(TOOK_MS),
    ),
    st.integers(0, 10**12),
)


@given(counters)
def test_every_request_is_counted_once_by_arm_slot_and_ending(
    counted: dict[tuple[str, int | None, str, str, int], int],
) -> None:
    lines = [
        f'{METRIC_REQUESTS}{{arm="shop/burger/{revision}",cohort="everyone",'
        f'code="{code}/{flags}/{took}/{"-" if slot is None else slot}"}} {number}'
        for (revision, slot, code, flags, took), number in counted.items()
    ]
    text = "\n".join(["# TYPE x counter", *lines, "envoy_server_uptime{} 1", ""]).encode()
    expected: dict[Cell, int] = {}
    for (revision, slot, code, _, took), number in counted.items():
        cell = Cell(revision, slot, None if code in FAILED else TOOK_MS.index(took))
        expected[cell] = expected.get(cell, 0) + number
    assert parse(text).get((KEY, "everyone"), {}) == expected


def test_a_request_that_a_canary_did_not_take_failed_there_though_the_fallback_answered() -> None:
    text = "".join(
        f'{METRIC_REQUESTS}{{arm="{arm}",cohort="everyone",code="{http}/-/-/8/3/{by}"}} {number}\n'
        for arm, http, by, number in (
            ("shop/burger/r2/r1", 200, "r2", 120),
            ("shop/burger/r2/r1", 200, "r1", 7),
            ("shop/burger/r2/r1", 503, "r1", 2),
            ("shop/burger/r1", 200, "r1", 9),
        )
    )
    assert parse(text.encode()) == {
        (KEY, "everyone"): {
            Cell("r2", 3, 4): 120,
            Cell("r2", 3, None, fell_back=True): 7,
            Cell("r2", 3, None): 2,
            Cell("r1", 3, 4): 9,
        }
    }


def test_a_client_that_gives_up_waiting_counts_as_failed() -> None:
    text = "".join(
        f'{METRIC_REQUESTS}{{arm="shop/burger/r1",cohort="everyone",'
        f'code="{code}/{flags}/{took}/1"}} {number}\n'
        for code, flags, took, number in (
            ("0/-", "DC", 20000, 7),
            ("200/-", "DC", 8, 5),
            ("0/-", "UC", 0, 2),
        )
    )
    assert parse(text.encode()) == {
        (KEY, "everyone"): {Cell("r1", 1, None): 9, Cell("r1", 1, 4): 5}
    }


def test_requests_that_reached_no_model_are_passed_over() -> None:
    line = f'{METRIC_REQUESTS}{{arm="",cohort="",code="404/-/NR/0/-"}} 3\n'
    assert parse(line.encode()) == {}


async def test_a_gateway_is_not_asked_for_a_model_that_no_gateway_can_serve() -> None:
    gateway = GatewayAddress("a", "127.0.0.1", 9, 9)
    async with aiohttp.ClientSession() as session:
        told = await table_versions(session, [gateway], ModelKey("v2", "burger.king"))
    assert told == {"a": Unknown("it can serve this model neither by path nor by host")}


def test_a_gateway_that_counted_nothing_is_still_a_source() -> None:
    one = {Cell("r1", 1, None): 1, Cell("r1", 1, 3): 2, Cell("r1", None, 0): 2}
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
            Cell("r1", None, 0): pairs - counted.get(Outcome.STABLE_FAILED, 0),
            Cell("r1", None, None): counted.get(Outcome.STABLE_FAILED, 0),
            Cell("r2", None, 0): pairs - counted.get(Outcome.CANARY_FAILED, 0),
            Cell("r2", None, None): counted.get(Outcome.CANARY_FAILED, 0),
            Cell("different", None, 0): counted.get(Outcome.DIFFERENT, 0),
            Cell("different", None, None): 0,
        }
    }
