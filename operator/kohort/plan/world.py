"""What the planner may know of the world: plain values, gathered by ``observe``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kohort.analysis.reading import Reading
from kohort.api.status import EngineTable
from kohort.contract import Stage

WAITING_FOR_GPU = "WaitingForGPU"
"""The reason of a problem that is over as soon as there is a GPU."""

PASSING = frozenset({WAITING_FOR_GPU, *Stage})
"""Reasons of what is no fault and goes by, and that phases are called after."""


@dataclass(frozen=True)
class Problem:
    """Why pods of a revision do not become ready: a reason, and a message that says what to do."""

    reason: str
    message: str


@dataclass(frozen=True)
class Capacity:
    """A revision's Deployment as last seen.

    ``wanted``: replicas in its spec. ``ready``: pods that can be routed to now. ``pods``: all that
    exist, terminating ones included. ``problem``: also what they do that takes long. ``engines``: what a
    pod has found out about them, when one has told it.
    """

    wanted: int
    ready: int
    pods: int
    problem: Problem | None = None
    engines: EngineTable | None = None


@dataclass(frozen=True)
class Gateways:
    """The gateways of a model: Kohort's fleet, or those that the spec names.

    ``ready``: names of ready gateways. ``behind``: those of them that do not yet serve the route
    table that the *persisted* status implies, with why. ``refused``: why no gateway can be given that
    table at all, and what to do; empty when it can.
    """

    ready: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    refused: str = ""

    @property
    def in_effect(self) -> bool:
        """Whether what status intends is what every client meets."""
        return bool(self.ready) and not self.behind and not self.refused


@dataclass(frozen=True)
class World:
    """Everything outside spec and status that a decision may rest on.

    ``recorded``: numbers of revisions that have a ControllerRevision, by revision name.
    ``capacity``: by revision name, for those that have a Deployment. ``readings``: by cohort name, or
    COHORT/METRIC where a metric has counters of its own; only what was read since the last pass.
    ``shares``: of the model's requests, by cohort name, as last measured; empty while not known.
    ``command``: what a person asks for, as it stands in the annotation. ``name_taken``: why in-cluster
    clients cannot use the model's name.
    """

    recorded: Mapping[str, int] = field(default_factory=dict)
    capacity: Mapping[str, Capacity] = field(default_factory=dict)
    gateways: Gateways = field(default_factory=Gateways)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    command: str = ""
    name_taken: str = ""
    shares: Mapping[str, float] = field(default_factory=dict)
