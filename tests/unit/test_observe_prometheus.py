"""Counters as Prometheus tells them: series by series, nothing twice, and nothing that was not meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kohort.analysis.reading import Count
from kohort.api.prometheus import Counts
from kohort.contract import METRIC_REQUESTS, METRIC_UPTIME
from kohort.observe.counter_queries import filled, queries, reading
from kohort.observe.gateway_series import ArmLedger, Heard, question, scraped
from kohort.observe.gateways import GatewayAddress
from kohort.observe.prometheus import Answer, Point, PrometheusError, Question, cut, together
from kohort.route.table import ModelKey

KEY = ModelKey("shop", "burger")
COHORT = (KEY, "everyone")
GATEWAYS = [GatewayAddress(name, f"10.0.0.{n}", 8080, 8081) for n, name in enumerate("ab", 1)]
NOW = 1_000_000.0


def point(value: float, **labels: str) -> Point:
    name = labels.pop("name", "")
    metric = {**labels, **({"__name__": name} if name else {})}
    return Point(metric, (NOW, repr(value)))


def requests(pod: str, arm: str, code: str, value: float) -> Point:
    labels = {"pod": pod, "arm": f"shop/burger/{arm}", "cohort": "everyone", "code": code}
    return point(value, name=METRIC_REQUESTS, **labels)


def alive(pod: str, age: float = 1, uptime: float = 100, **labels: str) -> tuple[Point, Point]:
    """That a gateway was scraped so long ago: what it said, and when."""
    said = point(uptime, name=METRIC_UPTIME, pod=pod, **labels)
    return said, point(NOW - age, pod=pod, **labels)


def test_every_placeholder_is_filled() -> None:
    told = filled("{{namespace}} {{name}} {{cohort}} {{revision}}", KEY, "everyone", "burger-1")
    assert told == "shop burger everyone burger-1"


def test_all_is_asked_at_once_and_told_apart() -> None:
    told = together([Question.of("a"), Question.of("b{c='d'}")])
    assert told == (
        'label_replace(a,"kohort_query","v0","","") or '
        'label_replace(timestamp(a),"kohort_query","t0","","") or '
        'label_replace(b{c=\'d\'},"kohort_query","v1","","") or '
        'label_replace(timestamp(b{c=\'d\'}),"kohort_query","t1","","")'
    )


def test_gateways_are_asked_for_by_name_and_by_address() -> None:
    asked = question(KEY, GATEWAYS)
    assert f'{METRIC_REQUESTS}{{arm=~"shop/burger/.+"}}' in asked.values
    assert 'pod=~"a|b"' in asked.times
    assert 'instance=~"10\\\\.0\\\\.0\\\\.1:8081|10\\\\.0\\\\.0\\\\.2:8081"' in asked.times


def test_what_gateways_counted_is_told_by_gateway_and_cell() -> None:
    (said, when), (said_b, when_b) = alive("a", 3), alive("b", 7)
    values = [
        said,
        said_b,
        requests("a", "r1", "200/-/-/5/9", 4),
        requests("a", "r2", "503/-/UF/0/9", 2),
        requests("gone", "r1", "200/-/-/5/9", 99),
    ]
    scrape, heard = scraped(Answer(values, [when, when_b]), GATEWAYS, NOW, 60)
    assert scrape.errors == ()
    assert scrape.processes == ("a", "b")
    assert scrape.at == NOW - 7
    assert scrape[COHORT].sources == {"a": {"r1": Count(4, 0), "r2": Count(2, 2)}, "b": {}}
    assert heard["a"] == Heard(NOW - 3, 100)


def test_a_gateway_is_known_by_its_address_where_nobody_names_its_pod() -> None:
    said = Point({"__name__": METRIC_UPTIME, "instance": "10.0.0.1:8081"}, (NOW, "5"))
    when = Point({"instance": "10.0.0.1:8081"}, (NOW, repr(NOW)))
    scrape, _ = scraped(Answer([said], [when]), GATEWAYS[:1], NOW, 60)
    assert (scrape.processes, scrape.errors) == (("a",), ())


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ([], "of gateway a is not in Prometheus, by pod=a or instance=10.0.0.1:8081"),
        ([alive("a", 61)[1]], "stale: gateway a was scraped 61 s ago"),
        ([alive("a", -31)[1]], "stale: gateway a was scraped -31 s ago"),
        (
            [alive("a", replica="x")[1], alive("a", replica="y")[1]],
            "2 series of gateway a where one was meant; they differ in replica",
        ),
    ],
)
def test_a_gateway_that_is_not_scraped_as_it_should_is_an_error(
    times: list[Point], told: str
) -> None:
    scrape, _ = scraped(Answer([], times), GATEWAYS[:1], NOW, 60)
    assert scrape.processes == ()
    assert told in scrape.errors[0]


@dataclass
class Pod:
    """A gateway's counters as they are, and what it has counted in all its starts."""

    cells: dict[str, int] = field(default_factory=dict)
    all: dict[str, int] = field(default_factory=dict)
    uptime: float = 50


codes = st.sampled_from(["200/-/-/5/1", "200/-/-/5/2", "503/-/-/0/1"])
events = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.sampled_from("ab"), st.sampled_from(["r1", "r2"]), codes),
        st.tuples(st.just("restart"), st.sampled_from("ab")),
        st.tuples(st.just("look"), st.sets(st.sampled_from("ab"))),
        st.tuples(st.just("lag")),
    ),
    max_size=40,
)


@given(events)
@example(
    [
        ("restart", "b"),
        ("count", "b", "r1", "200/-/-/5/2"),
        ("restart", "b"),
        ("lag",),
        ("count", "b", "r1", "200/-/-/5/2"),
    ]
)
def test_arms_gain_what_was_counted_however_often_anybody_looks_restarts_or_lags(
    happened: list[tuple[object, ...]],
) -> None:
    pods = {"a": Pod(cells={"r1|200/-/-/5/1": 1000}), "b": Pod()}
    ledger, clock = ArmLedger(), NOW
    told: list[Answer] = []

    def look(answer: Answer) -> Mapping[str, Count]:
        scrape, heard = scraped(answer, GATEWAYS, clock, 60)
        _, arms, _ = ledger.take(COHORT, "salt", scrape, heard)
        return arms

    def answer(missing: set[str]) -> Answer:
        seen = {name: pod for name, pod in pods.items() if name not in missing}
        values = [point(pod.uptime, name=METRIC_UPTIME, pod=name) for name, pod in seen.items()]
        for name, pod in seen.items():
            for cell, number in pod.cells.items():
                arm, _, code = cell.partition("|")
                values.append(requests(name, arm, code, number))
        return Answer(values, [point(clock, pod=name) for name in seen])

    look(answer(set()))
    for each in happened:
        clock += 1
        for pod in pods.values():
            pod.uptime += 1
        match each:
            case ("count", str(name), str(arm), str(code)):
                cell = f"{arm}|{code}"
                pods[name].cells[cell] = pods[name].cells.get(cell, 0) + 1
                pods[name].all[cell] = pods[name].all.get(cell, 0) + 1
            case ("restart", str(name)):
                # What a process counted after it was last read is lost with it.
                look(answer(set()))
                pods[name].cells, pods[name].uptime = {}, 0
            case ("look", set() as missing):
                told.append(answer({str(name) for name in missing}))
                look(told[-1])
            case _:
                if told:
                    look(told[-1])
    clock += 1
    arms = look(answer(set()))
    for arm in ("r1", "r2"):
        counted = [
            (number, code)
            for pod in pods.values()
            for (of, _, code), number in ((c.partition("|"), n) for c, n in pod.all.items())
            if of == arm
        ]
        expected = Count(
            sum(n for n, _ in counted), sum(n for n, code in counted if code.startswith("503"))
        )
        assert arms.get(arm, Count(0, 0)) == expected


ASKED = queries(Counts(total="t{{revision}}", bad="b{{revision}}"), KEY, "everyone", ["r2", "r1"])


def answered(value: float = 5, age: float = 1, **labels: str) -> Answer:
    return Answer([point(value, name="x", **labels)], [point(NOW - age, **labels)])


def test_a_reading_is_as_old_as_its_oldest_sample() -> None:
    answers = [answered(age=age) for age in (4, 9, 2, 3)]
    told = reading(ASKED, answers, Counts(total="t", bad="b"), NOW, 60)
    assert told.errors == ()
    assert told.at == NOW - 9
    assert [s.value for s in told.series.values()] == [5] * 4


@pytest.mark.parametrize("wrong", range(4))
def test_one_answer_that_counts_for_nothing_spoils_the_reading(wrong: int) -> None:
    answers: list[Answer | PrometheusError] = [answered() for _ in ASKED]
    answers[wrong] = PrometheusError("away")
    told = reading(ASKED, answers, Counts(total="t", bad="b"), NOW, 60)
    assert (told.errors, told.series) == (("away",), {})


@given(st.text(max_size=400), st.integers(1, 80))
def test_what_others_say_is_told_on_one_short_line(text: str, length: int) -> None:
    told = cut(text, length)
    assert len(told) <= length
    assert told.isprintable()
