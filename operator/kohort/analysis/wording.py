"""What the evidence says, in one sentence with figures."""

from __future__ import annotations

import math

from kohort.analysis.betting import Batch, requests_to_tell
from kohort.analysis.durations import quantile
from kohort.analysis.reading import Row
from kohort.api.status import Tally

MESSAGE_LENGTH = 512

LONGEST_ODDS = 1_000_000_000
"""Beyond it a figure says nothing more to anybody."""


def figures(canary: Tally, stable: Tally) -> str:
    """Both arms side by side."""
    return (
        f"{canary.failed:,} of {canary.requests:,} canary requests failed "
        f"against {stable.failed:,} of {stable.requests:,} of stable"
    )


def durations(canary: Row, stable: Row) -> str:
    """How long answers of both arms took; rows are by class of duration."""
    arms = [
        f"{milliseconds(quantile(row, 0.5))} at the median and {milliseconds(quantile(row, 0.95))} at the "
        "95th percentile"
        for row in (canary, stable)
    ]
    counted = f"({sum(canary):,} and {sum(stable):,} requests)"
    return f"canary answers took {arms[0]}, those of stable {arms[1]} {counted}"


def milliseconds(duration: float) -> str:
    """A duration with two leading figures."""
    if duration >= 1000:
        return f"{duration / 1000:.2g} s"
    return f"{float(f'{duration:.2g}'):g} ms"


UNREADABLE = (
    "what was counted before was kept by another version of Kohort and cannot be read; the analysis "
    "started anew"
)

NO_PAIRS = "no mirrored request was compared yet"


def pairs_message(canary: Tally, stable: Tally, different: int) -> str:
    """What became of mirrored requests."""
    if not canary.requests:
        return NO_PAIRS
    return (
        f"of {canary.requests:,} mirrored requests {canary.failed:,} failed on the canary alone and "
        f"{stable.failed:,} on stable alone; {different:,} answers differ"
    )


def counter_figures(canary: Tally, stable: Tally, *, more: bool) -> str:
    """Two counters of both arms; ``more``: whether they are of good ones, which tallies tell less."""

    def told(tally: Tally) -> str:
        events = tally.requests - tally.failed if more else tally.failed
        share = events / tally.requests if tally.requests else 0.0
        return f"{events:,} of {tally.requests:,} ({share:.3g})"

    kind = "good" if more else "bad"
    return f"{told(canary)} of the canary were {kind} against {told(stable)} of stable"


def chance(log_capital: float) -> str:
    """The greatest chance of so much evidence if the hypothesis were true."""
    return f"chance under {one_in(math.exp(-log_capital))}"


def one_in(share: float) -> str:
    """A small chance as people say it."""
    odds = LONGEST_ODDS if share * LONGEST_ODDS <= 1 else math.floor(1 / share)
    return f"1 in {odds:,}"


def failed_message(told: str, log_capital: float, slots: str) -> str:
    """Why a canary goes back; ``told``: both arms' figures; ``slots``: what client slots say to it."""
    return cut(f"{told}; {chance(log_capital)}; {slots}")


def accused_message(told: str, log_capital: float, slots: str) -> str:
    """Why a canary that single requests speak against does not go back yet."""
    return cut(f"{told}; {chance(log_capital)} if requests were independent, but {slots}")


def passed_message(canary: Tally, stable: Tally, log_capital: float, margin: str) -> str:
    """Why a canary is taken to be not worse than the margin allows."""
    return cut(
        f"{figures(canary, stable)}; not worse by {margin} of requests, {chance(log_capital)} otherwise"
    )


def doubted_message(told: str, slots: str) -> str:
    """Why a proof by single requests is none yet; ``told``: both arms' figures, and what is proven."""
    return cut(f"{told} if requests were independent, but client slots do not bear it out: {slots}")


def undecided_message(told: str, log_capital: float) -> str:
    """Why counters that accuse a canary do not send it back: it may be a few clients."""
    return cut(
        f"{told}; {chance(log_capital)} if requests were independent; these counters tell no client slots "
        "(slotLabel), so that it may be a few clients and not the revision: this holds the step and "
        "decides nothing"
    )


def guarded_message(told: str, log_capital: float, allowed: float) -> str:
    """Why counters that speak for a canary are no proof yet: it may be a few clients."""
    return cut(
        f"{told}; {chance(log_capital)} if requests were independent; these counters tell no client slots, "
        f"so that chance {one_in(allowed)} is needed"
    )


def unread_message(told: str, errors: tuple[str, ...]) -> str:
    """Why counters say nothing for now."""
    return cut(f"counters cannot be used: {'; '.join(errors)}", f"; {told}")


def unseen_message(arms: tuple[str, ...]) -> str:
    """Which arm has had no request, of ``canary`` and ``stable``."""
    return f"no request of {' or '.join(_THE[arm] for arm in arms)} was seen yet"


def idle_message(canary: Tally, stable: Tally) -> str:
    """Which arm has had no request; empty when both had."""
    arms = (("canary", canary), ("stable", stable))
    unseen = tuple(arm for arm, tally in arms if not tally.requests)
    return unseen_message(unseen) if unseen else ""


_THE = {"canary": "the canary", "stable": "stable"}


def insufficient_message(
    canary: Tally, stable: Tally, batch: Batch, alpha: float, elapsed: float
) -> str:
    """What was seen, and what a decision still takes; ``elapsed`` in seconds since the beginning."""
    if idle := idle_message(canary, stable):
        return idle
    silent = tuple(
        arm
        for arm, count in (("canary", batch.canary), ("stable", batch.stable))
        if not count.requests
    )
    no_news = f"; no new request of {' or '.join(_THE[arm] for arm in silent)}" if silent else ""
    return cut(
        f"{figures(canary, stable)}; {_still_needed(canary, stable, alpha, elapsed)}{no_news}"
    )


def _still_needed(canary: Tally, stable: Tally, alpha: float, elapsed: float) -> str:
    """How far it is to the point where a doubled failure rate could be told from chance."""
    seen = canary.requests + stable.requests
    rate = (stable.failed + 0.5) / (stable.requests + 1)
    needed = requests_to_tell(canary.requests / seen, rate, min(1.0, 2 * rate), alpha) - seen
    if needed <= 0:
        return "enough requests to show a doubled failure rate"
    told = f"to show a doubled failure rate takes at least {math.ceil(needed):,} more requests"
    if elapsed <= 0:
        return told
    return f"{told}, {_minutes(needed * elapsed / seen)} at this traffic"


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if seconds < 5400:
        return f"{math.ceil(seconds / 60)} min"
    return f"{math.ceil(seconds / 3600):,} h"


def cut(text: str, ending: str = "", length: int = MESSAGE_LENGTH) -> str:
    """The text, shortened so that it fits with its ending into ``length`` characters."""
    room = length - len(ending)
    return (text if len(text) <= room else text[: room - 1] + "…") + ending
