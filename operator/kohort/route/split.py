"""How a cohort's clients are divided: exact shares of a constant total, in slots, canary first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from kohort.contract import SLOTS, UNITS_PER_SLOT, WEIGHT_UNITS


@dataclass(frozen=True)
class Share:
    """A run of weight units: which slot they belong to, and which arm serves them."""

    slot: int
    canary: bool
    units: int


@lru_cache(maxsize=101)
def split(weight: int) -> tuple[Share, ...]:
    """The shares of a cohort in a rollout, in the order in which Envoy counts its units.

    A client's hash modulo ``WEIGHT_UNITS`` picks a unit. Units below ``weight`` percent are the
    canary's, so that a raised weight only adds clients; the slot in which the border lies appears
    twice, once for each arm.

    ``weight``: percentage of the clients on the canary, 0 to 100.
    """
    if not 0 <= weight <= 100:
        raise ValueError(f"weight must be a percentage between 0 and 100, not {weight}")
    whole, part = divmod(weight * WEIGHT_UNITS // 100, UNITS_PER_SLOT)
    border = (Share(whole, True, part), Share(whole, False, UNITS_PER_SLOT - part)) if part else ()
    canary = tuple(Share(slot, True, UNITS_PER_SLOT) for slot in range(whole))
    stable = tuple(Share(slot, False, UNITS_PER_SLOT) for slot in range(whole + bool(part), SLOTS))
    return canary + border + stable
