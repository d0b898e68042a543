"""What tests of gateways share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.component.gateway_parts import (
    Fleet,
    ModelServer,
    fleet,
)


@pytest_asyncio.fixture(scope="module")
async def servers() -> AsyncIterator[dict[str, ModelServer]]:
    made = {revision: await ModelServer(revision).start() for revision in ("r1", "r2")}
    yield made
    for server in made.values():
        await server.stop()


@pytest_asyncio.fixture(scope="module")
async def two(
    servers: dict[str, ModelServer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path_factory.mktemp("fleet"), 2) as made:
        yield made
