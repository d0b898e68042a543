"""The worlds that ``tests.bench.statistics`` simulates, by the names they have in its tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from msgspec import structs

from kohort.api.analysis import Metric
from kohort.api.prometheus import Counts
from tests.bench.durations import Timing
from tests.bench.worlds import World, Worlds

CLUMPED = World(concentration=1)
RAMP = ((60, 5), (120, 25), (120, 50))
BURSTS = replace(CLUMPED, bursts=True)


def anything(random: np.random.Generator) -> World:
    """A world that can be everything at once, in the ranges for which false rollbacks are claimed."""

    def between(low: float, high: float) -> float:
        return float(low * (high / low) ** random.random())

    steps = ((600, round(between(1, 50))),)
    return World(
        clients=round(between(10, 100_000)),
        rate=between(5, 5000),
        base=between(0.001, 0.2),
        concentration=between(1, 20),
        zipf=random.uniform(0, 1.2),
        bursts=random.random() < 0.5,
        weights=RAMP if random.random() < 0.25 else steps,
        past=float(random.choice((0.0, 120.0, 600.0))),
        daily=random.uniform(0, 0.8),
        lost=float(random.choice((0.0, 0.3))),
        resets=float(random.choice((0.0, 0.1))),
    )


AGAINST_OTHERS: dict[str, World] = {
    "independent requests": World(),
    "clients that clump": CLUMPED,
    "clients that clump, in bursts": BURSTS,
    "weights 5, 25, 50 %": replace(CLUMPED, weights=RAMP),
    "base .1 %": replace(CLUMPED, base=0.001),
    "500 req/s": replace(CLUMPED, rate=500),
}
HEADLINE: dict[str, Worlds] = {
    "independent requests": World(),
    "clients that clump": CLUMPED,
    "50 % canary": replace(CLUMPED, weights=((600, 50),)),
    "clients that clump, in bursts": BURSTS,
    "2 % canary": replace(CLUMPED, weights=((600, 2),)),
    "whales (Zipf 1.2)": replace(CLUMPED, zipf=1.2),
    "weights 5, 25, 50 %": replace(CLUMPED, weights=RAMP),
    "daily swing": replace(CLUMPED, daily=0.8),
    "anything at once": anything,
}
"""The worst of all in a first thousand runs each, and what they are to be compared with."""

WIDE: dict[str, Worlds] = {
    "nothing known of before": replace(CLUMPED, past=0),
    "5 req/s": replace(CLUMPED, rate=5),
    "500 req/s": replace(CLUMPED, rate=500),
    "5,000 req/s": replace(CLUMPED, rate=5000),
    "base .1 %": replace(CLUMPED, base=0.001),
    "base 5 %": replace(CLUMPED, base=0.05),
    "base 20 %": replace(CLUMPED, base=0.2),
    "1 % canary": replace(CLUMPED, weights=((600, 1),)),
    "25 % canary": replace(CLUMPED, weights=((600, 25),)),
    "concentration 5": replace(CLUMPED, concentration=5),
    "concentration 20": replace(CLUMPED, concentration=20),
    "counter resets": replace(CLUMPED, resets=0.1),
    "lost scrapes": replace(CLUMPED, lost=0.3),
    "50 clients": replace(CLUMPED, clients=50),
    "100,000 clients": replace(CLUMPED, clients=100_000),
    "an hour": replace(CLUMPED, weights=((3600, 10),), scrape=10),
    "bursts, whales, 500 req/s, 25 %, nothing known": replace(
        BURSTS, zipf=1.2, rate=500, weights=((600, 25),), past=0
    ),
}
FEW: dict[str, Worlds] = {
    f"{clients} clients, {weight} %{burst}": replace(
        CLUMPED, clients=clients, weights=((600, weight),), bursts=bool(burst)
    )
    for clients in (3, 10, 20)
    for weight in (10, 50)
    for burst in ("", ", in bursts")
}
HARM: dict[str, World] = {
    "1 to 2 %": World(harm=2, weights=((3600, 10),)),
    "1 to 5 %": World(harm=5),
    "1 to 5 %, 50 % canary": World(harm=5, weights=((600, 50),)),
    "1 to 5 %, concentration 5": World(harm=5, concentration=5),
    "1 to 5 %, 2 % canary": World(harm=5, weights=((3600, 2),)),
    "1 to 3 %, weights 5, 25, 50 %": World(harm=3, weights=RAMP),
    "5 % of clients break": replace(CLUMPED, broken=0.05),
    "all clients break": replace(CLUMPED, broken=1),
    "50 clients, all break": replace(CLUMPED, clients=50, broken=1),
    "10 clients at 50 %, all break": replace(CLUMPED, clients=10, broken=1, weights=((600, 50),)),
}
HARM_AGAINST_OTHERS = ("1 to 2 %", "1 to 5 %", "1 to 5 %, concentration 5", "all clients break")

DIFFER = Timing(unlike=0.8)
EQUALLY_FAST: dict[str, Timing] = {
    "as fast, clients alike": Timing(),
    "as fast, clients differ": DIFFER,
    "as fast, clients differ, 500 req/s": replace(DIFFER, rate=500),
    "as fast, clients differ, 50 clients": replace(DIFFER, clients=50),
    "as fast, clients differ, 2 % canary": replace(DIFFER, weight=2),
    "as fast, clients differ, 50 % canary": replace(DIFFER, weight=50),
    "as fast, clients differ, with moods": replace(DIFFER, moods=0.8, clients=200),
}
WORST_LATENCY = "as fast, clients differ"
SLOWER: dict[str, Timing] = {
    "1.25 times as long": Timing(slower=1.25),
    "1.25 times as long, clients differ": replace(DIFFER, slower=1.25, seconds=1800),
    "1.5 times as long": Timing(slower=1.5),
    "1.5 times as long, clients differ": replace(DIFFER, slower=1.5),
    "twice as long beyond 60 ms": Timing(slower=2, beyond=60),
    "twice as long beyond 60 ms, clients differ": replace(DIFFER, slower=2, beyond=60),
}

PROOF = World(rate=200, weights=((1800, 25),), scrape=10)
PROOFS: dict[str, World] = {
    "independent requests": PROOF,
    "concentration 20": replace(PROOF, concentration=20),
    "concentration 5": replace(PROOF, concentration=5),
    "concentration 1": replace(PROOF, concentration=1),
    "concentration 1, in bursts": replace(PROOF, concentration=1, bursts=True),
    "concentration 5, 10 % canary": replace(PROOF, concentration=5, weights=((1800, 10),)),
    "whales (Zipf 1.2)": replace(PROOF, concentration=1, zipf=1.2),
    "50 % canary": replace(PROOF, concentration=5, weights=((1800, 50),)),
    "nothing known of before": replace(PROOF, concentration=5, past=0),
    "2,000 req/s": replace(PROOF, concentration=5, rate=2000),
    "base 5 %": replace(PROOF, concentration=5, base=0.05),
    "50 clients": replace(PROOF, concentration=5, clients=50),
}
MARGINS = (0.01, 0.005)
WORST_PROOFS = {
    ("nothing known of before", 0.01),
    ("50 % canary", 0.005),
    ("base 5 %", 0.01),
    ("concentration 20", 0.005),
}
"""Those with the most false proofs in first runs; the others are simulated less often."""

COMPLAINTS = Metric(name="complaints", counts=Counts(total="t", bad="e", slot_label="slot"))
CONVERSIONS = Metric(name="conversions", counts=Counts(total="t", good="e", slot_label="slot"))
EVENTS = replace(CLUMPED, scrape=15)
COUNTS: dict[str, tuple[Metric, World]] = {
    "1 % bad, independent requests": (COMPLAINTS, replace(EVENTS, concentration=0)),
    "1 % bad, clients that clump": (COMPLAINTS, EVENTS),
    "1 % bad, clients that clump, in bursts": (COMPLAINTS, replace(EVENTS, bursts=True)),
    "1 % bad, clients that clump, weights 5, 25, 50 %": (COMPLAINTS, replace(EVENTS, weights=RAMP)),
    "1 % bad, 50 clients that clump": (COMPLAINTS, replace(EVENTS, clients=50)),
    "5 % good, clients that clump": (CONVERSIONS, replace(EVENTS, base=0.05)),
    "60 % good, clients that clump": (CONVERSIONS, replace(EVENTS, base=0.6)),
    "1 % bad, 1.5 % on the canary, margin .5 %, clients that clump": (
        structs.replace(COMPLAINTS, margin="0.5%"),
        replace(EVENTS, added=0.005),
    ),
}
HARMFUL_COUNTS: dict[str, tuple[Metric, World]] = {
    "1 to 5 % bad, independent requests": (COMPLAINTS, replace(EVENTS, concentration=0, harm=5)),
    "1 to 5 % bad, concentration 5": (COMPLAINTS, replace(EVENTS, concentration=5, harm=5)),
    "5 to 2.5 % good, independent requests": (
        CONVERSIONS,
        replace(EVENTS, concentration=0, base=0.05, harm=0.5),
    ),
    "5 to 2.5 % good, concentration 20": (
        CONVERSIONS,
        replace(EVENTS, concentration=20, base=0.05, harm=0.5),
    ),
    "60 to 40 % good, clients that clump": (
        CONVERSIONS,
        replace(EVENTS, base=0.6, harm=2 / 3, weights=((600, 25),)),
    ),
}
