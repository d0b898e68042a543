"""Which requests belong to a cohort, in matches that a Gateway API route can hold.

A gateway takes the match with the most headers, and of equal ones the first in the route. A table takes
the first cohort that matches. Both must mean the same for every request, or the table is refused.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod

from kohort.route.table import CohortRoute, HeaderMatch

RULES, MATCHES_PER_RULE, MATCHES = 16, 64, 128
"""Limits of HTTPRoute and GRPCRoute."""

Exact = tuple[tuple[str, str], ...]
"""Headers that must all have exactly these values, by name."""

_ELSEWHERE = "or use route.type Envoy, which has no such limit"


class NotExpressible(ValueError):
    """A route table means something that the Gateway API has no words for; says what to do."""


Rule = tuple[CohortRoute, tuple[Exact, ...]]
"""A cohort, and alternatives by which a request belongs to it."""


def rules(cohorts: tuple[CohortRoute, ...], *, one_match_each: bool) -> tuple[Rule, ...]:
    """The rules of a route, in the cohorts' order.

    ``one_match_each``: rules that rewrite a path may have no more, so a cohort has several.

    Raises:
        NotExpressible: they are too many, or a gateway would prefer a later cohort's.
    """
    found = _exact_matches(tuple((cohort.name, cohort.matches) for cohort in cohorts))
    each = zip(cohorts, found, strict=True)
    if not one_match_each:
        # A rule without matches would match everything.
        return tuple((cohort, alternatives) for cohort, alternatives in each if alternatives)
    single = tuple(
        (cohort, (alternative,)) for cohort, alternatives in each for alternative in alternatives
    )
    if len(single) > RULES:
        raise NotExpressible(
            f"the cohorts need {len(single)} matches, and a Gateway API route that is called by path takes "
            f"{RULES}: set route.gatewayAPI.hostnames, with which it takes {MATCHES}, "
            f"list fewer values, {_ELSEWHERE}"
        )
    return single


@lru_cache(maxsize=1024)
def _exact_matches(
    cohorts: tuple[tuple[str, tuple[tuple[HeaderMatch, ...], ...]], ...],
) -> tuple[tuple[Exact, ...], ...]:
    if len(cohorts) > RULES:
        raise NotExpressible(
            f"{len(cohorts)} cohorts are more than the {RULES} rules of a Gateway API route: "
            f"merge some, {_ELSEWHERE}"
        )
    found = tuple(_alternatives(name, matches) for name, matches in cohorts)
    total = sum(map(len, found))
    if total > MATCHES:
        raise NotExpressible(
            f"the cohorts need {total} matches and a Gateway API route takes {MATCHES}: "
            f"list fewer values, {_ELSEWHERE}"
        )
    names = [name for name, _ in cohorts]
    for earlier, (name, alternatives) in enumerate(zip(names, found, strict=True)):
        for later in range(earlier + 1, len(found)):
            for one, other in product(alternatives, found[later]):
                if len(other) > len(one) and _compatible(one, other):
                    raise NotExpressible(
                        f"a request with {_told((*one, *other))} belongs to cohort {name}, but a gateway "
                        f"prefers the match with more headers, that of {names[later]}: "
                        f"put {names[later]} before {name}, give {name} as many headers, {_ELSEWHERE}"
                    )
    return found


def _alternatives(cohort: str, matches: tuple[tuple[HeaderMatch, ...], ...]) -> tuple[Exact, ...]:
    """One exact match for each combination of values, each once; the empty one when all belong."""
    if not matches:
        return ((),)
    accepted = [_accepted(match) for match in matches]
    needed = sum(prod(map(len, headers.values())) for headers in accepted)
    if needed > MATCHES_PER_RULE:
        raise NotExpressible(
            f"cohort {cohort} needs {needed} matches, one for each combination of its headers' values, "
            f"and a Gateway API rule takes {MATCHES_PER_RULE}: list fewer values, {_ELSEWHERE}"
        )
    return tuple(
        dict.fromkeys(
            tuple(zip(headers, values, strict=True))
            for headers in accepted
            for values in product(*headers.values())
        )
    )


def _accepted(match: tuple[HeaderMatch, ...]) -> dict[str, tuple[str, ...]]:
    """The values that each header may have; one that is named twice must satisfy both."""
    values: dict[str, tuple[str, ...]] = {}
    for header in sorted(match, key=lambda header: header.name):
        former = values.get(header.name, header.values)
        both = tuple(value for value in former if value in header.values)
        values[header.name] = tuple(dict.fromkeys(both))
    return values


def _compatible(one: Exact, other: Exact) -> bool:
    """Whether a request can match both."""
    values = dict(one)
    return all(values.get(name, value) == value for name, value in other)


def _told(headers: Exact) -> str:
    return ", ".join(f"{name}: {value}" for name, value in dict(headers).items())
