"""How an analysis reads a Prometheus-compatible API, and metrics that are two counters there."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from kohort.api.base import SecretRef, SpecStruct, rules
from kohort.api.quantity import Duration

PLACEHOLDERS = ("namespace", "name", "cohort", "revision")
"""What ``{{…}}`` in a query stands for."""


class Source(StrEnum):
    """Who is asked what the gateways counted."""

    GATEWAYS = "Gateways"
    PROMETHEUS = "Prometheus"


class MarginType(StrEnum):
    """What a margin is a share of."""

    ABSOLUTE = "Absolute"  # of all: percentage points
    RELATIVE = "Relative"  # of stable's share


class Prometheus(SpecStruct, frozen=True):
    """A Prometheus-compatible HTTP API."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=1024,
            description="Where /api/v1/query is, such as http://prometheus.monitoring:9090. One of those "
            "that the installation allows (the chart's value prometheus.urls).",
            extra_json_schema=rules(
                (
                    "self.matches('^https?://[^/?#@]+(/[^?#@]*)?$')",
                    "url must be http(s)://HOST or http(s)://HOST/PATH, without user, query and fragment: "
                    "credentials belong into secretRef",
                ),
                (
                    "!self.endsWith('/api/v1/query')",
                    "leave out /api/v1/query: it is put behind url",
                ),
            ),
        ),
    ]
    secret_ref: Annotated[
        SecretRef | None,
        Meta(
            description="Credentials, by key: token; or username and password; tls.crt and tls.key; ca.crt; "
            "tenant. The installation must allow the Secret's name (prometheus.secretNames)."
        ),
    ] = None
    tenant_header: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9-]+$",
            min_length=1,
            max_length=64,
            description="Header that the Secret's tenant is sent in.",
        ),
    ] = "X-Scope-OrgID"
    timeout: Annotated[
        Duration,
        Meta(
            description="How long an answer may take.",
            extra_json_schema=rules(
                ("self.matches('^([1-9]|[12][0-9]|30)s$')", "timeout must be between 1s and 30s")
            ),
        ),
    ] = "5s"
    stale_after: Annotated[
        Duration,
        Meta(
            description="How old a sample may be: two or three of its scrape intervals.",
            extra_json_schema=rules(
                (
                    "self.matches('^([1-9][0-9]?|[1-5][0-9][0-9]|600)s$') || "
                    "self.matches('^([1-9]|10)m$')",
                    "staleAfter must be between 1s and 10m",
                )
            ),
        ),
    ] = "1m"


_FUNCTION = (
    "(^|[^A-Za-z0-9_:])(rate|irate|increase|delta|idelta|sum|avg|min|max|count|group|topk|bottomk)"
    "[ ]*((by|without)[ ]*)?[(]"
)
_KNOWN = "".join(f".replace('{{{{{name}}}}}', '')" for name in PLACEHOLDERS)

Query = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        extra_json_schema=rules(
            (
                "self.contains('{{revision}}')",
                "a query must tell revisions apart: put {{revision}} where the value of such a label stands",
            ),
            (
                f"!self{_KNOWN}.contains('{{{{')",
                "a query may contain {{namespace}}, {{name}}, {{cohort}} and {{revision}}, no other {{…}}",
            ),
            (
                f"!self.matches('{_FUNCTION}')",
                "a query selects counters as they are, without rate(), sum() and the like: Kohort takes "
                "differences itself, series by series, and adds up those that differ in sumOver",
            ),
        ),
    ),
]


Label = Annotated[str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]*$", min_length=1, max_length=128)]


SumOver = Annotated[
    tuple[Label, ...],
    Meta(
        max_length=8,
        description="Labels in which series of a query may differ, such as pod: they are added up. "
        "Without any, each query must select one series.",
    ),
]
SlotLabel = Annotated[
    Label | None,
    Meta(
        description="Label that tells the client slot: what requests say in x-kohort-slot, empty where "
        "they do not. With it client slots have to bear out what single requests say; without it an "
        "accusation only holds the step."
    ),
]


class Counts(SpecStruct, frozen=True):
    """Two counters of each revision: how many there were, and how many of them were good, or bad."""

    total: Annotated[Query, Meta(description="PromQL selector of the counter of all.")]
    good: Annotated[
        Query | None,
        Meta(description="PromQL selector of the counter of good ones: more of them are better."),
    ] = None
    bad: Annotated[
        Query | None,
        Meta(description="Instead of good, the counter of bad ones: fewer of them are better."),
    ] = None
    sum_over: SumOver = ()
    slot_label: SlotLabel = None
    margin_type: Annotated[
        MarginType,
        Meta(
            description="Absolute: margin is in percentage points of total. Relative: it is relative to "
            "stable's share."
        ),
    ] = MarginType.ABSOLUTE

    @property
    def queries(self) -> tuple[str, ...]:
        """What is asked of each revision: all of them, then events."""
        return self.total, self.events

    @property
    def events(self) -> str:
        """The query that is not ``total``."""
        return self.good or self.bad or ""

    @property
    def wants_more(self) -> bool:
        """Whether more events are better."""
        return self.good is not None


class Better(StrEnum):
    """Which scores are better."""

    HIGHER = "Higher"
    LOWER = "Lower"


class Score(SpecStruct, frozen=True):
    """A histogram of a score of each revision, compared as a whole."""

    buckets: Annotated[
        Query,
        Meta(
            description="PromQL selector of a classic histogram's buckets (the series whose names end in "
            "_bucket), which differ in le: 2 to 15 bounds besides +Inf, the same of both revisions."
        ),
    ]
    better: Annotated[Better, Meta(description="Which scores are better.")] = Better.HIGHER
    sum_over: SumOver = ()
    slot_label: SlotLabel = None
    margin_type: Annotated[
        MarginType,
        Meta(
            description="Absolute: margin is in percentage points of all scores. Relative: it is relative to "
            "stable's share of scores that are worse than a bound."
        ),
    ] = MarginType.ABSOLUTE

    @property
    def queries(self) -> tuple[str, ...]:
        """What is asked of each revision."""
        return (self.buckets,)
