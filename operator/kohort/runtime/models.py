"""The ModelDeployments as last seen, decoded once per change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from kohort.act.manifests import Owner
from kohort.api.command import ANNOTATION_COMMAND
from kohort.api.engine import Engine
from kohort.api.routing import GatewayAPI
from kohort.api.spec import Spec
from kohort.api.status import Status
from kohort.observe.wire import Metadata
from kohort.route.table import ModelKey


class Model(msgspec.Struct, frozen=True):
    """A ModelDeployment; ``spec`` is None when it cannot be read, ``invalid`` then says why."""

    key: ModelKey
    uid: str
    generation: int
    version: int
    deleting: bool
    spec: Spec | None
    status: Status
    invalid: str = ""
    command: str = ""

    @property
    def owner(self) -> Owner:
        """What its children belong to."""
        return Owner(self.key.namespace, self.key.name, self.uid)

    @property
    def rolling(self) -> bool:
        """Whether there is a canary, so that counters matter: they judge it, and tell how large it must
        be."""
        return any(cohort.canary for cohort in self.status.cohorts)

    @property
    def starting(self) -> bool:
        """Whether pods could have something to tell: they are awaited, or have built engines."""
        if self.deleting or self.spec is None:
            return False
        return self.spec.engine != Engine() or any(r.preparing_since for r in self.status.revisions)

    @property
    def own_gateways(self) -> bool:
        """Whether clients come through Kohort's own gateways."""
        return self.spec is None or self.spec.route.gateway_api is None

    @property
    def gateway_api(self) -> GatewayAPI:
        """How a gateway of somebody else is asked.

        Raises:
            ValueError: clients come through Kohort's own.
        """
        if self.spec is None or self.spec.route.gateway_api is None:
            raise ValueError(f"{self.key} names no gateway")
        return self.spec.route.gateway_api


class _Wire(msgspec.Struct):
    """A ModelDeployment in JSON; spec and status are decoded apart, as either may be unreadable."""

    metadata: Metadata
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: msgspec.Raw = msgspec.Raw(b"{}")


_WIRE = msgspec.json.Decoder(_Wire)
_SPEC = msgspec.json.Decoder(Spec)
_STATUS = msgspec.json.Decoder(Status)


def parse_model(content: bytes | msgspec.Raw) -> Model:
    """A ModelDeployment out of its JSON."""
    return _read(_WIRE.decode(content))


def _read(wire: _Wire) -> Model:
    return _model(
        wire.metadata, lambda: _SPEC.decode(wire.spec), lambda: _STATUS.decode(wire.status)
    )


def convert_model(content: Mapping[str, Any]) -> Model:
    """A ModelDeployment out of its JSON-like value."""
    return _model(
        msgspec.convert(content["metadata"], Metadata),
        lambda: msgspec.convert(content.get("spec"), Spec),
        lambda: msgspec.convert(content.get("status") or {}, Status),
    )


def _model(
    meta: Metadata, read_spec: Callable[[], Spec], read_status: Callable[[], Status]
) -> Model:
    spec, status, invalid = None, Status(), ""
    try:
        status = read_status()
        spec = read_spec()
    except msgspec.ValidationError as error:
        invalid = f"{error}; apply the CRD of this version of Kohort"
    return Model(
        key=ModelKey(meta.namespace, meta.name),
        uid=meta.uid,
        generation=meta.generation,
        version=meta.version,
        deleting=bool(meta.deletion_timestamp),
        spec=spec,
        status=status,
        invalid=invalid,
        command=meta.annotations.get(ANNOTATION_COMMAND, ""),
    )


class Models:
    """A cache of models; ``on_change`` hears of each key that may have changed.

    ``busy``: those that are ``rolling`` or ``starting``, which others look through every few seconds;
    models at rest, however many, must cost nothing.
    """

    def __init__(self, on_change: Callable[[ModelKey], None]) -> None:
        self._on_change = on_change
        self._models: dict[ModelKey, Model] = {}
        self._busy: dict[ModelKey, Model] = {}
        self._unwatched: dict[ModelKey, tuple[int, float]] = {}  # version, since when

    def __len__(self) -> int:
        return len(self._models)

    def __iter__(self) -> Iterator[Model]:
        return iter(list(self._models.values()))

    @property
    def busy(self) -> tuple[Model, ...]:
        """The models of which something is asked now and then."""
        return tuple(self._busy.values())

    def get(self, key: ModelKey) -> Model | None:
        """The model as last seen."""
        return self._models.get(key)

    def parse(self, content: bytes | msgspec.Raw) -> Model:
        """As :func:`parse_model`; what is known as it is already is not read again."""
        wire = _WIRE.decode(content)
        known = self._models.get(ModelKey(wire.metadata.namespace, wire.metadata.name))
        return known if known and known.version == wire.metadata.version else _read(wire)

    def put(self, new: Model) -> None:
        """Takes a model from a watch, unless a later state is known."""
        if self._unwatched.get(new.key, (0, 0.0))[0] <= new.version:
            self._unwatched.pop(new.key, None)
        old = self._models.get(new.key)
        if old is None or old.version < new.version:
            self._keep(new)

    def watch_lag(self) -> float:
        """Seconds for which the watch has not told of a state that is known from elsewhere."""
        since = min((since for _, since in self._unwatched.values()), default=None)
        return 0.0 if since is None else time.monotonic() - since

    def put_answer(self, new: Model) -> None:
        """Takes the answer to our own write, unless the model has gone or moved on since."""
        old = self._models.get(new.key)
        if old is not None and old.uid == new.uid and old.version < new.version:
            self._put_early(new)

    def remove(self, gone: Model) -> None:
        """Forgets a deleted model, unless one of the same name has been made since."""
        old = self._models.get(gone.key)
        if old is not None and old.version <= gone.version:
            del self._models[gone.key]
            self._busy.pop(gone.key, None)
            self._unwatched.pop(gone.key, None)
            self._on_change(gone.key)

    def replace(self, models: Iterable[Model], version: int, namespace: str = "") -> None:
        """Takes a complete list (of one namespace, if given): a deletion may have gone unseen."""
        listed = {model.key: model for model in models}
        for model in self:
            known_then = model.version <= version and namespace in ("", model.key.namespace)
            if known_then and model.key not in listed:
                self.remove(model)
        for model in listed.values():
            old = self._models.get(model.key)
            if old is None or old.version < model.version:
                self._put_early(model)

    def _put_early(self, new: Model) -> None:
        """Takes a state that the watch has still to tell of."""
        _, since = self._unwatched.get(new.key, (0, time.monotonic()))
        self._unwatched[new.key] = (new.version, since)
        self._keep(new)

    def _keep(self, new: Model) -> None:
        self._models[new.key] = new
        if new.rolling or new.starting:
            self._busy[new.key] = new
        else:
            self._busy.pop(new.key, None)
        self._on_change(new.key)
