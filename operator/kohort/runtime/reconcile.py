"""One pass over one model: observe, plan, persist what is intended, then act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from kohort.act.apply import Applied, Writer
from kohort.act.manifests import Scale
from kohort.analysis.reading import Reading
from kohort.api.status import Condition, Phase, Status
from kohort.kube import ApiError
from kohort.observe.capacity import capacity, serving
from kohort.observe.objects import (
    Deployment,
    Pod,
    Record,
    parse_deployment,
    parse_record,
)
from kohort.observe.starts import Started
from kohort.observe.store import Store
from kohort.plan.capacity import awaits_gateways
from kohort.plan.outcome import (
    Action,
    EnsureDeployment,
    Outcome,
    RecordRevision,
    RemoveDeployment,
    RemoveRecord,
)
from kohort.plan.planner import Identity, plan
from kohort.plan.revisions import revision_data
from kohort.plan.world import Capacity, Gateways, Problem, World
from kohort.route.table import ModelKey, RouteTable, route_table, with_fallback
from kohort.runtime.addresses import Addresses
from kohort.runtime.fleet import Fleet
from kohort.runtime.herald import Herald
from kohort.runtime.lag import Lag, may_lag
from kohort.runtime.models import Model, Models, parse_model
from kohort.runtime.routes import Publisher

MESSAGE_LENGTH = 1024
# Answers that mean that trying the same again at once is of no use.
REFUSED = frozenset({400, 403, 422})
REFUSED_SECONDS = 30.0
BROKEN = 500


def _applied(seen: Deployment) -> Applied:
    return Applied(seen.applied, seen.generation, seen.wanted, seen.revision, seen.component)


def invalid_status(model: Model, now: datetime) -> Status:
    """The status of a model whose spec cannot be read: all that was known, and why it stands still."""
    time = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    known = {c.type: c for c in model.status.conditions}

    def condition(kind: str, status: str) -> Condition:
        old = known.get(kind)
        return Condition(
            type=kind,
            status=status,
            reason="InvalidSpec",
            message=model.invalid[:MESSAGE_LENGTH],
            last_transition_time=old.last_transition_time if old and old.status == status else time,
            observed_generation=model.generation,
        )

    others = tuple(
        c for c in model.status.conditions if c.type not in ("Ready", "Stalled", "Reconciling")
    )
    return msgspec.structs.replace(
        model.status,
        observed_generation=model.generation,
        phase=Phase.DEGRADED,
        message=model.invalid[:MESSAGE_LENGTH],
        conditions=(condition("Ready", "False"), condition("Stalled", "True"), *others),
    )


class Reconciler:
    """Brings one model at a time nearer to what its spec asks for."""

    def __init__(
        self,
        *,
        models: Models,
        pods: Store[Pod],
        deployments: Store[Deployment],
        records: Store[Record],
        fleet: Fleet,
        publisher: Publisher,
        writer: Writer,
        herald: Herald,
        addresses: Addresses,
        wake: Callable[[ModelKey, float], None],
    ) -> None:
        self._models = models
        self._pods = pods
        self._deployments = deployments
        self._records = records
        self._fleet = fleet
        self._publisher = publisher
        self._writer = writer
        self._herald = herald
        self._addresses = addresses
        self._wake = wake
        self._readings: dict[ModelKey, Mapping[str, Reading]] = {}
        self._shares: dict[ModelKey, Mapping[str, float]] = {}
        self._started: dict[ModelKey, Mapping[str, Started]] = {}
        self._refused: dict[ModelKey, dict[str, Problem]] = {}
        self._lag = Lag(wake)
        # Written perhaps: the answer was lost. What a pass did is told when the status turns up.
        self._unanswered: dict[ModelKey, Outcome] = {}

    def take_readings(self, key: ModelKey, readings: Mapping[str, Reading]) -> None:
        """Keeps the newest counters of a model's cohorts for its next pass."""
        self._readings[key] = {**self._readings.get(key, {}), **readings}

    def take_shares(self, key: ModelKey, shares: Mapping[str, float]) -> None:
        """Keeps the cohorts' shares of a model's requests until they are measured again."""
        if shares:
            self._shares[key] = shares

    def take_starts(self, key: ModelKey, started: Mapping[str, Started]) -> None:
        """Keeps what pods tell of their start, by revision, until something else is told."""
        if started:
            self._started[key] = started
        else:
            self._started.pop(key, None)

    async def reconcile(self, key: ModelKey) -> None:
        """Brings a model as far as it can be brought without waiting.

        Raises:
            ApiError: a write was not taken; another pass will want the same again.
        """
        readings = self._readings.pop(key, {})
        # Pods follow their record at once, while its pod template is still at hand.
        if await self._pass(key, readings):
            await self._pass(key, {})

    async def _pass(self, key: ModelKey, readings: Mapping[str, Reading]) -> bool:
        """One pass; returns whether it recorded a revision."""
        model = self._models.get(key)
        if model is None or model.deleting:
            self._forget(key)
            return False
        now = datetime.now(UTC)
        self._hear(model)
        if model.spec is None:
            await self._persist(model, Outcome(invalid_status(model, now)))
            return False
        gateways = await self._gateways(model)
        identity = Identity(key.namespace, key.name, model.uid, model.generation)
        world = World(
            recorded={name: record.number for name, record in self._records.of(key).items()},
            capacity=self._capacity(key),
            gateways=gateways,
            readings=readings,
            command=model.command,
            name_taken=self._addresses.name_taken(model),
            shares=self._shares.get(key, {}),
        )
        outcome = plan(identity, model.spec, model.status, world, now)
        # What lags, and its events, comes again with the next pass.
        if not self._lags(model, outcome):
            await self._persist(model, outcome)
        # Before acting, which may fail: a deadline has to be seen all the same.
        if outcome.wake_after is not None:
            self._wake(key, outcome.wake_after)
        if gateways.behind and model.own_gateways:
            self._wake(key, self._fleet.patience(key))
        await self._addresses.follow(model, self._intended(model))
        for action in outcome.actions:
            await self._act(model, action)
        return any(isinstance(action, RecordRevision) for action in outcome.actions)

    def _forget(self, key: ModelKey) -> None:
        """Drops what is remembered of a model that is gone."""
        self._fleet.forget(key)
        self._herald.forget(key)
        self._unanswered.pop(key, None)
        self._addresses.forget(key)
        self._shares.pop(key, None)
        self._started.pop(key, None)
        self._refused.pop(key, None)
        self._lag.end(key)

    def _lags(self, model: Model, outcome: Outcome) -> bool:
        """Whether the write of this status has to wait."""
        if outcome.status != model.status and may_lag(model.status, outcome):
            return self._lag.wait(model.key)
        self._lag.end(model.key)
        return False

    def _intended(self, model: Model) -> RouteTable | None:
        """The routes that the status intends as it was last written, as far as there are pods."""
        known = self._models.get(model.key)
        if known is None or known.uid != model.uid or known.spec is None:
            return None
        table = route_table(model.key, known.spec, known.status, known.uid)
        return table and with_fallback(table, serving(self._pods.of(model.key).values()))

    async def _gateways(self, model: Model) -> Gateways:
        if not model.own_gateways:
            pods = self._pods.of(model.key).values()
            return self._addresses.look(model, self._intended(model), serving(pods))
        if awaits_gateways(model.status):
            return await self._fleet.look(model.key, self._publisher.table(model.key))
        self._fleet.forget(model.key)
        return self._fleet.names()

    def _hear(self, model: Model) -> None:
        """Tells of what has come to stand in a model's status."""
        self._herald.see(model)
        doubtful = self._unanswered.get(model.key)
        if doubtful and doubtful.status == model.status:
            self._herald.tell(model, doubtful.events)
            del self._unanswered[model.key]

    async def _persist(self, model: Model, outcome: Outcome) -> None:
        """Writes a status that differs; routes follow as soon as it is written.

        Gateways fetch the new routes meanwhile; they are of no effect before they are published.
        """
        key, status = model.key, outcome.status
        if status == model.status:
            self._herald.tell(model, outcome.events)
            return
        self._lag.end(key)
        self._publisher.prepare(key, status)
        try:
            answer = await self._writer.write_status(model.owner, model.version, status)
        except ApiError as error:
            if error.status == 0 or error.status >= BROKEN:
                self._unanswered[key] = outcome
            raise
        written = parse_model(answer)
        self._models.put_answer(written)
        if awaits_gateways(written.status):
            self._fleet.intended(key, self._publisher.table(key))
        self._unanswered.pop(key, None)
        self._hear(written)
        self._herald.tell(written, outcome.events)

    async def _act(self, model: Model, action: Action) -> None:
        owner, name = model.owner, action.revision
        if isinstance(action, RecordRevision):
            await self._record(model, action)
        elif isinstance(action, EnsureDeployment):
            await self._ensure(model, action)
        elif isinstance(action, RemoveDeployment):
            self._refused.get(model.key, {}).pop(name, None)
            deployment = self._deployments.get(owner.namespace, name)
            if deployment and not deployment.deleting:
                await self._writer.remove(owner, "deployments", name, deployment.uid)
                self._deployments.remove(owner.namespace, name)
        elif isinstance(action, RemoveRecord):
            record = self._records.get(owner.namespace, name)
            if record:
                await self._writer.remove(owner, "controllerrevisions", name, record.uid)
                self._records.remove(owner.namespace, name)

    def _capacity(self, key: ModelKey) -> dict[str, Capacity]:
        pods, started = self._pods.of(key).values(), self._started.get(key, {})
        found = capacity(self._deployments.of(key), pods, started)
        for revision, problem in self._refused.get(key, {}).items():
            known = found.get(revision, Capacity(wanted=0, ready=0, pods=0))
            found[revision] = replace(known, problem=problem)
        return found

    async def _ensure(self, model: Model, action: EnsureDeployment) -> None:
        deployment = self._deployments.get(model.key.namespace, action.revision)
        known = _applied(deployment) if deployment else None
        refused = self._refused.setdefault(model.key, {})
        before = refused.pop(action.revision, None)
        try:
            answer = await self._writer.ensure_deployment(
                model.owner,
                action.revision,
                Scale(action.replicas, action.restarted_at, action.spare),
                known,
            )
        except ApiError as error:
            if error.status not in REFUSED:
                raise
            problem = Problem("DeploymentRefused", f"{error.message}; check template"[:900])
            refused[action.revision] = problem
            self._wake(model.key, 0.0 if problem != before else REFUSED_SECONDS)
            return
        finally:
            if not refused:
                self._refused.pop(model.key, None)
        if before:
            self._wake(model.key, 0.0)
        if answer is not None:
            self._deployments.put_answer(parse_deployment(answer))

    async def _record(self, model: Model, action: RecordRevision) -> None:
        if model.spec is None or self._records.get(model.key.namespace, action.revision):
            return
        answer = await self._writer.record_revision(
            model.owner, action.revision, action.number, model.spec, revision_data(model.spec)
        )
        self._records.put_answer(parse_record(answer))
