"""A cache of one kind of object, indexed by model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic

from kohort.observe.objects import T, key_of, same
from kohort.route.table import ModelKey


class Store(Generic[T]):
    """Objects as last seen; ``on_change`` is called with the model of each that really changed."""

    def __init__(self, on_change: Callable[[ModelKey], None]) -> None:
        self._on_change = on_change
        self._by_model: dict[ModelKey, dict[str, T]] = {}
        self._model_of: dict[tuple[str, str], ModelKey] = {}
        self._latest = 0

    def __len__(self) -> int:
        return len(self._model_of)

    def __iter__(self) -> Iterator[T]:
        for objects in self._by_model.values():
            yield from objects.values()

    def of(self, key: ModelKey) -> Mapping[str, T]:
        """A model's objects by name."""
        return self._by_model.get(key) or {}

    def get(self, namespace: str, name: str) -> T | None:
        """One object."""
        key = self._model_of.get((namespace, name))
        return self._by_model[key].get(name) if key else None

    def put(self, new: T) -> None:
        """Takes what a watch or a list said, unless something later is known already."""
        self._latest = max(self._latest, new.version)
        old = self.get(new.namespace, new.name)
        if old is None or old.version <= new.version:
            self._set(old, new)

    def put_answer(self, new: T) -> None:
        """Takes the answer to a write, unless the watch has gone past it.

        An object that is unknown although the watch has seen later versions has been deleted since.
        """
        if self.get(new.namespace, new.name) is not None or new.version > self._latest:
            latest = self._latest
            self.put(new)
            self._latest = latest

    def remove(self, namespace: str, name: str, version: int = 0) -> None:
        """Forgets an object that was deleted at ``version``, unless it has been made anew since."""
        self._latest = max(self._latest, version)
        known = self.get(namespace, name)
        if known is None or (version and known.version > version):
            return
        key = self._model_of.pop((namespace, name))
        objects = self._by_model[key]
        del objects[name]
        if not objects:
            del self._by_model[key]
        self._on_change(key)

    def replace(self, objects: Iterable[T], version: int, namespace: str = "") -> None:
        """Takes a complete list (of one namespace, if given); what it lacks was deleted meanwhile."""
        listed = {(o.namespace, o.name): o for o in objects}
        gone = [
            known for known in self._model_of if known not in listed and namespace in ("", known[0])
        ]
        for known in gone:
            stale = self.get(*known)
            if stale is not None and stale.version <= version:
                self.remove(*known)
        for each in listed.values():
            self.put(each)
        self._latest = max(self._latest, version)

    def _set(self, old: T | None, new: T) -> None:
        key = key_of(new)
        if old is not None and key_of(old) != key:
            self.remove(old.namespace, old.name)
        self._by_model.setdefault(key, {})[new.name] = new
        self._model_of[new.namespace, new.name] = key
        if not same(old, new):
            self._on_change(key)
