"""What the page is fed by: models and pods that somebody keeps up to date, and word of what changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from kohort.view.rollout import Facts, PodView


class Source(Protocol):
    """The models as last seen; asking costs nobody a call."""

    def names(self, namespace: str) -> Iterable[tuple[str, str]]:
        """Namespaces and names of the models of a namespace; of all when it is empty."""

    def model(self, namespace: str, name: str) -> Facts | None:
        """One of them."""

    def pods(self, namespace: str, name: str) -> Mapping[str, list[PodView]]:
        """A model's pods, by the name of their revision."""

    def problems(self) -> list[str]:
        """Why what is shown may be old."""


class Topic(NamedTuple):
    """What a stream tells of: one model, or all of a namespace; empty names are for all there are."""

    namespace: str
    name: str = ""

    def covers(self, namespace: str, name: str) -> bool:
        """Whether a change of this model concerns it."""
        return self.namespace in ("", namespace) and self.name in ("", name)


class Feed:
    """Wakes streams when what they tell of has changed."""

    def __init__(self) -> None:
        self._streams: dict[asyncio.Event, Topic] = {}

    def changed(self, namespace: str, name: str) -> None:
        """A model or its pods are different now."""
        for event, topic in self._streams.items():
            if topic.covers(namespace, name):
                event.set()

    @contextlib.contextmanager
    def following(self, topic: Topic) -> Iterator[asyncio.Event]:
        """An event that is set at every change of a topic."""
        event = asyncio.Event()
        self._streams[event] = topic
        try:
            yield event
        finally:
            del self._streams[event]
