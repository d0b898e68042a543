"""Hand route tables to gateways: delta ADS over mutual TLS, one conversation for each stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from kohort.route.envoy.catalogue import Catalogue
from kohort.route.envoy.exchange import Exchange, Request, Response
from kohort.route.envoy.identity import Identity
from kohort.route.table import Endpoints, ModelKey, RouteTable

log = logging.getLogger(__name__)

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"
# A gateway that comes back names everything that it has.
MAX_REQUEST_BYTES = 64 << 20
# A gateway whose machine vanished is noticed, so that its stream does not pile up changes.
KEEPALIVE_MS = 10_000

Refused = Callable[[ModelKey, str, str], None]
"""Told the model, the version of the route table, and what a gateway says against it."""


class Stream:
    """One gateway's stream: its conversation, and the models that it is to be told about."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.exchange = Exchange(catalogue)
        self.gateway = ""
        self._due: dict[ModelKey, None] = {}
        self._answers: list[Response] = []
        self._something = asyncio.Event()

    def touch(self, key: ModelKey) -> None:
        """Something about a model changed; several changes before the next look are one."""
        self._due[key] = None
        self._something.set()

    async def listen(self, requests: AsyncIterator[Request]) -> None:
        """Take what the gateway says until it closes the stream."""
        async for request in requests:
            self.gateway = self.gateway or request.node.id
            self._answers.extend(self.exchange.receive(request))
            if self._answers or self.exchange.refusals:
                self._something.set()

    async def responses(self) -> AsyncIterator[list[Response]]:
        """What is to be sent, in order, for ever."""
        while True:
            await self._something.wait()
            self._something.clear()
            # The gateway's own questions first: answers to them were made before what is due now.
            answers, self._answers = self._answers, []
            yield answers
            due, self._due = self._due, {}
            for key in due:
                yield [*self._taken(), *self.exchange.update(key)]

    def _taken(self) -> list[Response]:
        answers, self._answers = self._answers, []
        return answers


class RouteServer:
    """Serves every published model to every gateway that connects.

    Publish all models before ``start``: a gateway that returns is taken away what is not published.
    All methods belong to the event loop's thread.
    """

    def __init__(self, on_refused: Refused | None = None) -> None:
        """``on_refused``: told each time when a gateway does not take a model's configuration."""
        self._catalogue = Catalogue()
        self._on_refused = on_refused
        self._streams: set[Stream] = set()
        self._server: grpc.aio.Server | None = None
        self._identity: Identity | None = None

    @property
    def gateways(self) -> tuple[str, ...]:
        """Names of the connected gateways."""
        return tuple(sorted(stream.gateway for stream in self._streams if stream.gateway))

    def publish(self, table: RouteTable, endpoints: Endpoints) -> None:
        """Serve a model by this table and these ready endpoints from now on.

        Cheap, and free when nothing is new. ``endpoints`` of revisions that the table does not name
        are ignored; a revision without endpoints answers 503. A gateway changes to the table once it has
        it whole: at once when it was prepared. What was prepared and is something else is dropped.
        """
        if self._catalogue.publish(table, endpoints):
            self._touch(table.key)

    def prepare(self, table: RouteTable, endpoints: Endpoints) -> None:
        """Let gateways fetch what is published next, so that it then has effect at once.

        Changes nothing for clients. It is for the next ``publish`` of the model and replaces what was
        prepared before; that of the table that is published takes it back. A model that is not
        published has nothing to prepare.
        """
        if self._catalogue.prepare(table, endpoints):
            self._touch(table.key)

    def withdraw(self, key: ModelKey) -> None:
        """Serve a model no more."""
        if self._catalogue.withdraw(key):
            self._touch(key)

    def _touch(self, key: ModelKey) -> None:
        for stream in self._streams:
            stream.touch(key)

    def renew(self, identity: Identity) -> None:
        """Show and trust something else on connections from now on; open ones stay."""
        self._identity = identity

    async def start(self, address: str, port: int, tls: Identity) -> int:
        """Listen; returns the port, of the system's choice for 0.

        Raises RuntimeError when the address cannot be listened on.
        """
        self._identity = tls
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
                ("grpc.http2.max_pings_without_data", 0),
                # Envoy asks often whether we are alive.
                ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
                ("grpc.so_reuseport", 0),
            ]
        )
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
        )
        host = f"[{address}]" if ":" in address else address
        bound = server.add_secure_port(f"{host}:{port}", self._credentials())
        await server.start()
        self._server = server
        return int(bound)

    async def stop(self, grace: float) -> None:
        """Close all streams, after at most ``grace`` seconds. Gateways go on with what they have."""
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None

    def _credentials(self) -> Any:
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration, require_client_authentication=True
        )

    def _configuration(self) -> Any:
        """Asked for on each new connection, so that a renewed identity needs no restart."""
        if self._identity is None:
            raise RuntimeError("the route server was not started")
        return grpc.ssl_server_certificate_configuration(
            [(self._identity.key, self._identity.certificate)],
            root_certificates=self._identity.authority,
        )

    async def _stream(self, requests: AsyncIterator[Request], context: Any) -> None:
        stream = Stream(self._catalogue)
        self._streams.add(stream)
        listening = asyncio.create_task(stream.listen(requests))
        talking = asyncio.create_task(self._talk(stream, context))
        try:
            done, _ = await asyncio.wait((listening, talking), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._streams.discard(stream)
            for task in (listening, talking):
                task.cancel()
            await asyncio.gather(listening, talking, return_exceptions=True)

    async def _talk(self, stream: Stream, context: Any) -> None:
        async for responses in stream.responses():
            self._report(stream)
            for response in responses:
                await context.write(response)

    def _report(self, stream: Stream) -> None:
        refusals, stream.exchange.refusals = stream.exchange.refusals, []
        for refusal in refusals:
            log.error(
                "gateway %s refuses the routes of %s: %s",
                stream.gateway,
                refusal.key,
                refusal.message,
            )
            if self._on_refused is not None:
                self._on_refused(refusal.key, refusal.version, refusal.message)
