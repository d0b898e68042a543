"""How many pods a load takes, and how few pods are shared out: plain arithmetic of whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEADROOM = 2
"""Requests of one cohort may cost so many times as much as the average request of the model."""

FEW = 4
"""Of so many pods, one may be on its way at a time: what a Deployment's own update allows."""


@dataclass(frozen=True)
class Part:
    """Clients of one cohort on a revision.

    ``share``: percentage of the model's requests that the cohort sends, None while it is not known.
    ``weight``: percentage of the cohort's clients that the revision has.
    """

    share: int | None
    weight: int


def pods_needed(replicas: int, parts: Sequence[Part], whole: int | None) -> int:
    """Pods for these clients, of a revision that would have ``replicas`` for all: at least one.

    ``whole``: the shares of all cohorts together, None while one is not known. The greatest weight is
    enough for all parts together, whatever the cohorts' shares and whatever their requests cost; where
    all shares are known, less may do. They are less than a hundred together when a cohort has gone
    since they were measured: then those that are left carry its clients.
    """
    enough = _ceiling(replicas * max((p.weight for p in parts), default=0), 100)
    if whole:
        carried = sum((p.share or 0) * p.weight for p in parts)
        enough = min(enough, _ceiling(replicas * HEADROOM * carried, 100 * min(100, whole)))
    return max(1, enough)


def pods_of_few(replicas: int, now: Mapping[str, int], then: Mapping[str, int]) -> dict[str, int]:
    """Pods by revision where there are ``replicas`` in all and no spare ones.

    ``now``, ``then``: the load of each revision at present and as it is to become, in any unit. A
    revision that gets more is given a few pods beyond its present load, which the others give up;
    with every client that follows them it is given more. Whoever has clients keeps at least one pod,
    so that the sum is greater than ``replicas`` where those are too few for that.
    """
    whole = max(1, sum(now.values()))
    pods: dict[str, int] = {}
    left, waiting = replicas, sum(1 for r in then if now.get(r) or then[r])
    for revision in sorted(r for r in then if then[r] > now.get(r, 0)):
        waiting -= 1
        pods[revision] = max(
            1,
            min(
                _ceiling(replicas * then[revision], whole),
                _ceiling(replicas * now.get(revision, 0), whole) + max(1, replicas // FEW),
                left - waiting,
            ),
        )
        left -= pods[revision]
    return pods | apportion(left, {r: now[r] for r in now if now[r] and r not in pods})


def carried_by(replicas: int, load: int, whole: int, others: int) -> int:
    """Pods for a load where there are ``replicas`` in all and ``others`` must keep one each."""
    return max(1, min(_ceiling(replicas * load, whole), replicas - others))


def apportion(total: int, loads: Mapping[str, int]) -> dict[str, int]:
    """``total`` pods shared out by load, each one who has a load getting at least one.

    By odd divisors (Webster, Sainte-Laguë): nobody loses by a greater total.
    """
    pods = dict.fromkeys(loads, 1)
    for _ in range(total - len(pods) if pods else 0):
        neediest = max(loads, key=lambda name: (loads[name] / (2 * pods[name] + 1), name))
        pods[neediest] += 1
    return pods


def _ceiling(number: int, divisor: int) -> int:
    return -(-number // divisor)
