"""How a cohort's clients are divided: fixed slots, and a salted order in which they become canary."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

from kohort.contract import SLOTS, UNITS_PER_SLOT, WEIGHT_UNITS


class Share(NamedTuple):
    """A run of weight units: which slot they belong to, and which arm serves them."""

    slot: int
    canary: bool
    units: int


@lru_cache(maxsize=128)
def canary_order(salt: str) -> tuple[int, ...]:
    """All slots in the order in which a rising weight makes them canary.

    They are sorted by 64 bits each of SHAKE128 of the salt: a permutation that every replica finds
    alike, and that has nothing to do with the one of another salt.
    """
    bits = hashlib.shake_128(salt.encode()).digest(SLOTS * 8)
    return tuple(sorted(range(SLOTS), key=lambda slot: bits[slot * 8 : slot * 8 + 8]))


@lru_cache(maxsize=128)
def split(weight: int, salt: str) -> tuple[Share, ...]:
    """The shares of a cohort in a rollout, in the order in which Envoy counts its units.

    The hash of a client's key modulo ``WEIGHT_UNITS`` picks a unit, and so its slot, the same one in
    every rollout. The first ``weight`` percent of the units, slots taken in ``canary_order``, are the
    canary's, so that a raised weight only adds clients; the slot in which the border lies appears
    twice, once for each arm.

    ``weight``: percentage of the clients on the canary, 0 to 100. ``salt``: the rollout's.
    """
    if not 0 <= weight <= 100:
        raise ValueError(f"weight must be a percentage between 0 and 100, not {weight}")
    whole, border = canary_slots(weight, salt)
    canary = dict.fromkeys(whole, UNITS_PER_SLOT)
    if border is not None:
        canary[border] = weight * WEIGHT_UNITS // 100 % UNITS_PER_SLOT
    shares = []
    for slot in range(SLOTS):
        units = canary.get(slot, 0)
        if units:
            shares.append(Share(slot, True, units))
        if units < UNITS_PER_SLOT:
            shares.append(Share(slot, False, UNITS_PER_SLOT - units))
    return tuple(shares)


def canary_slots(weight: int, salt: str) -> tuple[frozenset[int], int | None]:
    """The slots that are wholly the canary's at a weight, and the one that the border cuts, if any."""
    whole, part = divmod(weight * WEIGHT_UNITS // 100, UNITS_PER_SLOT)
    order = canary_order(salt)
    return frozenset(order[:whole]), order[whole] if part else None
