"""What clients of gRPC meet at a real gateway: the same cohorts and revisions, told by metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from kohort.analysis.split import canary_order
from kohort.contract import SLOTS
from kohort.observe.gateways import scrape
from kohort.route.table import Endpoint, ModelKey
from tests.client_slots import slot_of
from tests.component.gateway_parts import (
    LOCALHOST,
    Fleet,
    Gateway,
    fleet,
    free_port,
    table,
    until,
)

SERVICE = "inference.GRPCInferenceService"
KEY = ModelKey("shop", "remote")
HOST = "remote.shop"
Metadata = dict[str, str]


class GrpcServer:
    """A small gRPC server that says who it is and answers as it is told by metadata."""

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self.endpoint = Endpoint(LOCALHOST, free_port())
        self.arrived: list[Metadata] = []
        self._server = grpc.aio.server()
        handlers = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_insecure_port(f"{LOCALHOST}:{self.endpoint.port}")

    async def start(self) -> GrpcServer:
        await self._server.start()
        return self

    async def stop(self) -> None:
        await self._server.stop(0)

    async def _infer(self, _: bytes, context: Any) -> bytes:
        told = dict(context.invocation_metadata())
        self.arrived.append(told)
        await asyncio.sleep(float(told.get("x-wait", 0)))
        if status := int(told.get("x-status", 0)):
            await context.abort(STATUSES[status], "as asked")
        return self.revision.encode()

    async def _stream(self, requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield self.revision.encode() + request


STATUSES = {int(status.value[0]): status for status in grpc.StatusCode}


@pytest_asyncio.fixture(scope="module")
async def servers() -> AsyncIterator[dict[str, GrpcServer]]:
    made = {revision: await GrpcServer(revision).start() for revision in ("r1", "r2")}
    yield made
    for server in made.values():
        await server.stop()


@pytest_asyncio.fixture(scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("grpc"), 2) as made:
        yield made


async def serve(made: Fleet, servers: dict[str, GrpcServer], weight: int, **options: Any) -> None:
    wanted = table(weight, **{"key": KEY, **options})
    made.server.publish(wanted, {name: (server.endpoint,) for name, server in servers.items()})
    await made.effective(wanted)


def channel(gateway: Gateway, host: str = HOST) -> Any:
    """A client's connection: it calls the model by its host."""
    return grpc.aio.insecure_channel(
        f"{LOCALHOST}:{gateway.address.port}", options=[("grpc.default_authority", host)]
    )


async def infer(on: Any, seconds: float = 30, **metadata: str) -> tuple[Metadata, bytes]:
    """The metadata and the body of an answer; raises grpc.RpcError."""
    sent = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
    call = on.unary_unary(f"/{SERVICE}/ModelInfer")(b"", metadata=sent, timeout=seconds)
    body = await call
    return dict(await call.initial_metadata()), body


async def test_metadata_tells_cohort_and_revision_both_ways_and_cannot_be_faked(
    two: Fleet, servers: dict[str, GrpcServer]
) -> None:
    await serve(two, servers, 0, canary="", staff="r2")
    async with channel(two.gateways[0]) as on:
        told, body = await infer(on, x_kohort_cohort="staff", x_kohort_revision="r2")
        assert body == b"r1"
        assert (told["x-kohort-cohort"], told["x-kohort-revision"]) == ("everyone", "r1")
        arrived = servers["r1"].arrived[-1]
        ours = {k: v for k, v in arrived.items() if k.startswith("x-kohort")}
        assert ours == {"x-kohort-cohort": "everyone", "x-kohort-revision": "r1"}

        told, body = await infer(on, x_org="acme")
        assert body == b"r2"
        assert (told["x-kohort-cohort"], told["x-kohort-revision"]) == ("staff", "r2")


async def test_a_client_keeps_its_revision_over_gateways_calls_and_streams(
    two: Fleet, servers: dict[str, GrpcServer]
) -> None:
    await serve(two, servers, 25)
    canary = canary_order("salt")[: SLOTS // 4]
    arms = set()
    for gateway in two.gateways:
        async with channel(gateway) as on:
            for number in range(40):
                client = f"client-{number}"
                expected = b"r2" if slot_of(client) in canary else b"r1"
                _, body = await infer(on, x_client_id=client)
                assert body == expected
                arms.add(expected)
                stream = on.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
                    metadata=(("x-client-id", client),), timeout=30
                )
                for message in (b"1", b"2"):
                    await stream.write(message)
                    assert await stream.read() == expected + message
                await stream.done_writing()
                assert await stream.read() is grpc.aio.EOF
                assert await stream.code() is grpc.StatusCode.OK
    assert arms == {b"r1", b"r2"}


async def test_an_open_stream_stays_on_its_revision_while_weights_change(
    two: Fleet, servers: dict[str, GrpcServer]
) -> None:
    await serve(two, servers, 0)
    async with channel(two.gateways[0]) as on:
        stream = on.stream_stream(f"/{SERVICE}/ModelStreamInfer")(timeout=60)
        await stream.write(b"1")
        assert await stream.read() == b"r11"
        await serve(two, servers, 100)
        assert (await infer(on))[1] == b"r2"
        await stream.write(b"2")
        assert await stream.read() == b"r12"
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK


async def failure(on: Any, seconds: float = 30, **metadata: str) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await infer(on, seconds, **metadata)
    code = told.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


async def test_every_status_is_counted_and_those_that_a_working_model_gives_are_no_failures(
    two: Fleet, servers: dict[str, GrpcServer]
) -> None:
    key = ModelKey("shop", "statuses")
    await serve(two, servers, 0, key=key, canary="", staff="gone")
    counted: dict[str, list[int]] = {"everyone": [0, 0], "staff": [0, 0]}

    def expect(cohort: str, failed: bool) -> None:
        counted[cohort][0] += 1
        counted[cohort][1] += failed

    async with channel(two.gateways[0], "statuses.shop") as on:
        for number, status in STATUSES.items():
            if number == 0:
                await infer(on)
            else:
                assert await failure(on, x_status=str(number)) is status
            expect("everyone", number not in (0, 5, 7, 8, 16))
        # Deadlines are kept by the client, who goes away.
        assert await failure(on, 0.3, x_wait="60") is grpc.StatusCode.DEADLINE_EXCEEDED
        expect("everyone", True)
        assert await failure(on, x_org="acme") is grpc.StatusCode.UNAVAILABLE  # there is no pod
        expect("staff", True)

    async def read() -> dict[str, list[int]]:
        seen = await scrape(two.session, [two.gateways[0].address])
        found = {
            cohort: [c for arms in reading.sources.values() for c in arms.values()]
            for (model, cohort), reading in seen.items()
            if model == key
        }
        return {
            cohort: [sum(c.requests for c in counts), sum(c.failed for c in counts)]
            for cohort, counts in found.items()
        }

    async def as_expected() -> bool:
        return await read() == counted

    await until(as_expected)


async def test_a_model_that_is_not_there_is_told_in_words(
    two: Fleet, servers: dict[str, GrpcServer]
) -> None:
    await serve(two, servers, 0)
    async with channel(two.gateways[0], "nobody.shop") as on:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await infer(on)
    assert told.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert (told.value.details() or "").startswith("no model here")


async def test_a_model_without_pods_is_told_in_words(
    two: Fleet, servers: dict[str, GrpcServer]
) -> None:
    await serve(two, servers, 0, key=ModelKey("shop", "empty"), stable="gone", canary="")
    async with channel(two.gateways[0], "empty.shop") as on:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await infer(on)
    assert told.value.code() is grpc.StatusCode.UNAVAILABLE
    assert told.value.details() == "gateway: no healthy upstream (UH)"
