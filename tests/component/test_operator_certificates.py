"""The Secrets behind mutual TLS: made once whoever comes first, kept, renewed in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from kohort.act.permissions import AUTHORITY_SECRET, GATEWAY_SECRET, OPERATOR_SECRET
from kohort.kube import Kube, from_kubeconfig
from kohort.runtime.certificates import Secrets
from kohort_local.cluster import Cluster

NOW = datetime.now(UTC)
NAMESPACE = "certificates"
PATH = f"/api/v1/namespaces/{NAMESPACE}/secrets"


@pytest.fixture
async def kube(cluster: Cluster) -> AsyncIterator[Kube]:
    async with Kube(from_kubeconfig(cluster.kubeconfig)) as connection:
        yield connection


@pytest.fixture
async def secrets(kube: Kube) -> AsyncIterator[Secrets]:
    """The Secrets of an installation that has none yet."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await kube.call(
        "PATCH",
        f"/api/v1/namespaces/{NAMESPACE}",
        params={"fieldManager": "test"},
        body=body,
        content_type="application/apply-patch+yaml",
    )
    yield Secrets(kube, NAMESPACE)
    await kube.call("DELETE", PATH)


async def data(kube: Kube, name: str) -> dict[str, str]:
    secret: dict[str, Any] = msgspec.json.decode(await kube.call("GET", f"{PATH}/{name}"))
    found: dict[str, str] = secret["data"]
    return found


async def test_two_operators_that_start_at_once_agree(secrets: Secrets, kube: Kube) -> None:
    one, other = await asyncio.gather(secrets.ensure(NOW), secrets.ensure(NOW))
    assert one.authority == other.authority
    assert await secrets.ensure(NOW) == one or await secrets.ensure(NOW) == other
    gateway = await data(kube, GATEWAY_SECRET)
    own = await data(kube, OPERATOR_SECRET)
    assert gateway["ca.crt"] == own["ca.crt"]
    assert gateway["tls.crt"] != own["tls.crt"]


async def test_the_gateways_secret_does_not_hold_the_authoritys_key(
    secrets: Secrets, kube: Kube
) -> None:
    await secrets.ensure(NOW)
    authority = await data(kube, AUTHORITY_SECRET)
    assert authority["tls.key"] not in (await data(kube, GATEWAY_SECRET)).values()


async def test_certificates_stay_while_they_are_fresh(secrets: Secrets) -> None:
    first = await secrets.ensure(NOW)
    assert await secrets.ensure(NOW + timedelta(days=30)) == first


async def test_certificates_are_renewed_long_before_they_end(secrets: Secrets) -> None:
    first = await secrets.ensure(NOW)
    later = await secrets.ensure(NOW + timedelta(days=70))
    assert later.certificate != first.certificate
    assert later.authority == first.authority
    assert await secrets.ensure(NOW + timedelta(days=71)) == later


async def test_a_secret_that_somebody_deletes_is_made_anew(secrets: Secrets, kube: Kube) -> None:
    first = await secrets.ensure(NOW)
    await kube.call("DELETE", f"{PATH}/{GATEWAY_SECRET}")
    assert await secrets.ensure(NOW) == first
    assert (await data(kube, GATEWAY_SECRET))["tls.crt"]
