"""One gateway's conversation: what it has, and what it may be sent next. No I/O.

The order keeps every request answered. New: clusters and endpoints, until the gateway has taken them,
then the next routes by way of the stage, until it has taken these too, then the scopes that lead clients
there. Gone: first what leads there, until the gateway has let go of it, then the clusters. Every model
is a conversation of its own: one that is refused holds up nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import TypeAlias

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from kohort.route.envoy.catalogue import Catalogue, Model
from kohort.route.envoy.known import GONE, Known, Refusal, Sent, note
from kohort.route.envoy.resource import Kind, Resource, owner
from kohort.route.table import ModelKey

Request: TypeAlias = discovery_pb2.DeltaDiscoveryRequest
Response: TypeAlias = discovery_pb2.DeltaDiscoveryResponse

WILDCARD = "*"
MAX_MESSAGE = 500
_WILD_KINDS = (Kind.CLUSTER, Kind.SCOPE)


class Exchange:
    """The conversation on one stream."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: dict[ModelKey, Known] = {}
        self._open: set[Kind] = set()
        self._names: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        # Tables that were sent right behind their stage, before the gateway could ask for them.
        self._unasked: set[str] = set()
        self._in_flight: dict[str, Sent] = {}
        self._nonces = count(1)
        # Whether the gateway came with what another stream had sent it.
        self._resumed = False
        # Models that the first answer about scopes waits for: a gateway that starts must not become
        # ready before it knows the way to all of them.
        self._first_scopes: set[ModelKey] | None = None
        self.refusals: list[Refusal] = []

    def receive(self, request: Request) -> list[Response]:
        """Take what the gateway says; what it is to be sent now."""
        try:
            kind = Kind(request.type_url)
        except ValueError:
            return []
        touched: dict[ModelKey, None] = {}
        again: list[Sent] = []
        if request.response_nonce:
            answered, refused = self._answered(request)
            touched.update(dict.fromkeys(answered))
            again.extend(refused)
        touched.update(dict.fromkeys(self._subscribe(kind, request)))
        responses = [r for sent in again for r in self._one_by_one(sent)]
        if kind not in self._open:
            self._open.add(kind)
            responses.extend(self._first(kind, fresh=not request.initial_resource_versions))
            self._resumed |= bool(request.initial_resource_versions)
            if self._resumed:
                touched.update(dict.fromkeys((*self._catalogue, *self._known)))
        elif kind is Kind.ENDPOINTS:
            responses.extend(self._endpoints(touched))
        for key in touched:
            responses.extend(self.update(key))
        return responses

    def update(self, key: ModelKey) -> list[Response]:
        """What the gateway is to be sent about one model now; nothing if it is up to date."""
        model = self._catalogue.get(key)
        known = self._known.get(key)
        if known is None:
            if model is None:
                return []
            known = self._known[key] = Known()
        if model is not None and not self._sound(key):
            responses = []
        else:
            responses = self._take_away(known) if model is None else self._bring(model, known)
        if self._first_scopes is not None:
            responses.extend(self._first_scopes_without(key))
        if model is None and known.empty:
            del self._known[key]
        return responses

    # What the gateway says.

    def _answered(self, request: Request) -> tuple[set[ModelKey], list[Sent]]:
        sent = self._in_flight.pop(request.response_nonce, None)
        if sent is None:
            return set(), []
        owners = sent.owners
        for key in owners:
            self._known[key].waiting[sent.kind] -= 1
        if not request.HasField("error_detail"):
            for name, version in sent.versions.items():
                known = self._known[owner(name)]
                # What was taken away or has to be asked for again since is not held any more.
                if version == GONE or name in known.sent[sent.kind]:
                    note(known.held[sent.kind], name, version)
            return owners, []
        if len(owners) > 1:
            return owners, [sent]
        # The whole resource comes first in the message, and the reason last.
        message = request.error_detail.message[-MAX_MESSAGE:]
        self.refusals.extend(Refusal(key, self._version(sent), message) for key in owners)
        return owners, []

    def _version(self, refused: Sent) -> str:
        """The route table that a response about one model is for: the newest, unless it tells."""
        (name, *_) = refused.versions
        if refused.kind is Kind.ROUTES:
            return name.rpartition("/")[2]
        key = owner(name)
        model = self._catalogue.prepared(key) or self._catalogue.get(key)
        return model.version if model is not None else ""

    def _subscribe(self, kind: Kind, request: Request) -> set[ModelKey]:
        """Note names; a name that is asked for (again) is sent, unless the gateway has it."""
        names = set(request.resource_names_subscribe) - {WILDCARD}
        gone = set(request.resource_names_unsubscribe) - {WILDCARD}
        self._names[kind] |= names
        self._names[kind] -= gone
        satisfied = names & self._unasked
        self._unasked -= names | gone
        for name in (names - satisfied) | gone:
            if known := self._known.get(owner(name)):
                known.sent[kind].pop(name, None)
                known.held[kind].pop(name, None)
        for name, version in request.initial_resource_versions.items():
            known = self._known.setdefault(owner(name), Known())
            known.sent[kind][name] = known.held[kind][name] = version
        return {owner(name) for name in names | gone | set(request.initial_resource_versions)}

    # What the gateway is sent.

    def _first(self, kind: Kind, fresh: bool) -> list[Response]:
        """The first answer about a kind that is sent unasked: everything at once, even if nothing."""
        if kind is Kind.CLUSTER:
            new = [resource for key in self._catalogue for resource in self._changed(key, kind)]
            return [self._response(kind, new)] if new or fresh else []
        if kind is Kind.SCOPE and fresh:
            self._first_scopes = set(self._catalogue)
            return self._first_scopes_without(None)
        if kind is Kind.ENDPOINTS:
            return self._endpoints({owner(name): None for name in self._names[kind]})
        return []

    def _first_scopes_without(self, key: ModelKey | None) -> list[Response]:
        """The first answer about scopes, once no model is left that it waits for."""
        waiting = self._first_scopes or set()
        candidates = set(waiting) if key is None else {key} & waiting
        for candidate in candidates:
            model, known = self._catalogue.get(candidate), self._known.get(candidate)
            if (
                model is None
                or known is None
                or model.defect
                or self._warm(model, known)
                or self._stuck(known)
            ):
                waiting.discard(candidate)
        if waiting:
            return []
        self._first_scopes = None
        new = []
        for candidate in self._catalogue:
            model, known = self._catalogue.get(candidate), self._known.get(candidate)
            if (
                model is not None
                and known is not None
                and not model.defect
                and self._warm(model, known)
            ):
                new.extend(self._changed(candidate, Kind.SCOPE))
        return [self._response(Kind.SCOPE, new)]

    def _endpoints(self, keys: Iterable[ModelKey]) -> list[Response]:
        """Many models' endpoints in one response: a gateway that starts asks for all at once."""
        new = [resource for key in keys for resource in self._changed(key, Kind.ENDPOINTS)]
        return [self._response(Kind.ENDPOINTS, new)] if new else []

    def _sound(self, key: ModelKey) -> bool:
        """Whether all of a model can be rendered; if not, a gateway keeps what it has of it.

        The stream is that of all models: a defect met by one must not end it.
        """
        for model in (self._catalogue.get(key), self._catalogue.prepared(key)):
            if model is not None and model.defect:
                self.refusals.append(Refusal(key, model.version, model.defect))
                return False
        return True

    def _bring(self, model: Model, known: Known) -> list[Response]:
        key = model.key
        responses = self._news(key, Kind.CLUSTER) + self._news(key, Kind.ENDPOINTS)
        if Kind.SCOPE in self._open and self._first_scopes is None:
            responses += self._lead(model, known)
            responses += self._set_stage(model, known)
            responses += self._tables(model, known)
        if self._lets_go(model, known):
            responses += self._remove(Kind.CLUSTER, known, self._catalogue.of(key, Kind.CLUSTER))
        return responses

    def _lead(self, model: Model, known: Known) -> list[Response]:
        """Lead clients to the model's table, if the gateway has it or they are led nowhere yet."""
        if not self._changed(model.key, Kind.SCOPE):
            return self._remove(Kind.SCOPE, known, keep=_ways(model))
        first = not known.sent[Kind.SCOPE]
        # A gateway that refused the stage takes no notice of the table, and does not ask for it either.
        arrived = (
            model.routes_name in known.held[Kind.ROUTES]
            and model.routes_name in self._names[Kind.ROUTES]
            and _reaches(known, model)
        )
        if not self._warm(model, known) or not (first or arrived):
            return []
        if first:
            self._forget_table(model, known)
        return self._news(model.key, Kind.SCOPE)

    def _set_stage(self, model: Model, known: Known) -> list[Response]:
        """Have the gateway fetch the table that is next, and let go of one that was never used."""
        led = not self._changed(model.key, Kind.SCOPE)
        following = self._catalogue.prepared(model.key) if led else model
        if following is None:
            # The table in force needs no stage, but one that shows another keeps that in memory.
            staged = known.sent[Kind.SCOPE].get(model.stage.name)
            idle = staged in (None, model.stage.version)
            return [] if idle else [self._response(Kind.SCOPE, [model.stage])]
        if _reaches(known, following) or not self._warm(following, known):
            return []
        self._forget_table(following, known)
        responses = [self._response(Kind.SCOPE, [following.stage])]
        if Kind.ROUTES in self._open:
            # The gateway asks for the table once it has the stage: by then this is there.
            self._unasked.add(following.routes_name)
            responses.append(self._response(Kind.ROUTES, [following.routes]))
        return responses

    def _forget_table(self, model: Model, known: Known) -> None:
        """Wait for the gateway to ask for a table that nothing led to: it let go of what it had."""
        known.sent[Kind.ROUTES].pop(model.routes_name, None)
        known.held[Kind.ROUTES].pop(model.routes_name, None)
        self._names[Kind.ROUTES].discard(model.routes_name)

    def _tables(self, model: Model, known: Known) -> list[Response]:
        """Tables that the gateway asks for, each alone: a bad one must not take down another."""
        prepared = self._catalogue.prepared(model.key)
        return [
            self._response(Kind.ROUTES, [table.routes])
            for table in (model, prepared)
            if table is not None
            and table.routes_name in self._names[Kind.ROUTES]
            and self._warm(table, known)
            and known.sent[Kind.ROUTES].get(table.routes_name) != table.routes.version
        ]

    def _news(self, key: ModelKey, kind: Kind) -> list[Response]:
        new = self._changed(key, kind)
        return [self._response(kind, new)] if new else []

    def _take_away(self, known: Known) -> list[Response]:
        responses = self._remove(Kind.SCOPE, known, keep={})
        led_here = known.held[Kind.SCOPE] or known.waiting[Kind.SCOPE]
        if not led_here and self._told_of(Kind.SCOPE):
            responses.extend(self._remove(Kind.CLUSTER, known, keep={}))
        for kind in (Kind.ENDPOINTS, Kind.ROUTES):
            known.sent[kind].clear()
        return responses

    def _warm(self, model: Model, known: Known) -> bool:
        """Whether the gateway has all clusters of a model, with endpoints (even if none is ready)."""
        return all(
            name in known.held[kind]
            for kind in (Kind.CLUSTER, Kind.ENDPOINTS)
            for name in model.clusters
        )

    def _stuck(self, known: Known) -> bool:
        """Whether a model cannot become warm, because the gateway refused a part of it."""
        return any(
            not known.waiting[kind] and known.sent[kind].keys() - known.held[kind].keys()
            for kind in (Kind.CLUSTER, Kind.ENDPOINTS)
        )

    def _told_of(self, kind: Kind) -> bool:
        """Whether we know what the gateway has of a kind; after a lost stream it has to say so."""
        return kind in self._open or not self._resumed

    def _lets_go(self, model: Model, known: Known) -> bool:
        """Whether all that leads clients anywhere leads them to the model's newest routes."""
        ways = _ways(model)
        routes = known.held[Kind.ROUTES].get(model.routes_name)
        return (
            all(self._told_of(kind) for kind in (Kind.SCOPE, Kind.ROUTES))
            and not known.waiting[Kind.SCOPE]
            and not known.waiting[Kind.ROUTES]
            and all(
                name == model.stage.name or (name in ways and version == ways[name].version)
                for name, version in known.held[Kind.SCOPE].items()
            )
            and (routes is None or routes == model.routes.version)
        )

    def _changed(self, key: ModelKey, kind: Kind) -> list[Resource]:
        """Resources that the gateway wants and was not sent in this version."""
        if not self._sound(key):
            return []
        wanted = self._catalogue.of(key, kind)
        if not wanted or kind not in self._open:
            return []
        known = self._known.setdefault(key, Known())
        if kind not in _WILD_KINDS:
            wanted = {n: r for n, r in wanted.items() if n in self._names[kind]}
        return [r for n, r in wanted.items() if known.sent[kind].get(n) != r.version]

    def _remove(self, kind: Kind, known: Known, keep: Mapping[str, Resource]) -> list[Response]:
        gone = [name for name in known.sent[kind] if name not in keep]
        return [self._response(kind, (), gone)] if gone and kind in self._open else []

    def _one_by_one(self, refused: Sent) -> list[Response]:
        """Send again model by model what was refused together: only one of them may be wrong."""
        responses = []
        for key in refused.owners:
            known = self._known[key]
            for name in refused.versions:
                if owner(name) == key:
                    known.sent[refused.kind].pop(name, None)
            responses.extend(self._news(key, refused.kind))
        return responses

    def _response(self, kind: Kind, new: Iterable[Resource], gone: Iterable[str] = ()) -> Response:
        nonce = str(next(self._nonces))
        response = Response(type_url=kind, nonce=nonce, removed_resources=list(gone))
        versions: dict[str, str] = {}
        for resource in new:
            versions[resource.name] = resource.version
            response.resources.add(
                name=resource.name,
                version=resource.version,
                resource=any_pb2.Any(type_url=kind, value=resource.content),
            )
        versions.update(dict.fromkeys(response.removed_resources, GONE))
        sent = Sent(kind, versions)
        self._in_flight[nonce] = sent
        for name, version in versions.items():
            known = self._known[owner(name)]
            note(known.sent[kind], name, version)
            if kind is Kind.CLUSTER:
                # A changed cluster waits for its endpoints without asking for them again, and one
                # that comes back is only warm when it was taken again.
                known.sent[Kind.ENDPOINTS].pop(name, None)
                if version == GONE:
                    known.held[kind].pop(name, None)
                    known.held[Kind.ENDPOINTS].pop(name, None)
        for key in sent.owners:
            self._known[key].waiting[kind] += 1
        return response


def _ways(model: Model) -> Mapping[str, Resource]:
    """All that can lead a gateway to a model's table, by name."""
    return {model.stage.name: model.stage, **model.scopes}


def _reaches(known: Known, model: Model) -> bool:
    """Whether anything that a gateway was sent leads it to a model's table, so that it keeps it."""
    sent = known.sent[Kind.SCOPE]
    return any(sent.get(name) == way.version for name, way in _ways(model).items())
