"""Credentials for a Prometheus: only where the installation allows, and told where they are of no use."""

from __future__ import annotations

import msgspec
import pytest

from kohort.api.base import SecretRef
from kohort.api.prometheus import Prometheus
from kohort.kube import ApiError
from kohort.observe.prometheus import PrometheusError
from kohort.runtime.credentials import Credentials, access_of

URL = "https://prometheus.monitoring:9090"
OPEN = Prometheus(url=URL)
NAMED = Prometheus(url=URL, secret_ref=SecretRef(name="reader"), tenant_header="THANOS-TENANT")


class Cluster:
    """An API server with one Secret, or without the permission to read it."""

    def __init__(self, token: str = "t", status: int = 200) -> None:
        self.token, self.status, self.reads = token, status, 0

    async def call(self, method: str, path: str, **_: object) -> bytes:
        self.reads += 1
        if self.status != 200:
            raise ApiError(self.status, "No", "the server said so", path)
        return msgspec.json.encode({"data": {"token": self.token.encode()}})


async def test_an_address_that_the_installation_does_not_allow_is_never_asked() -> None:
    for allowed in ([], ["http://prometheus.monitoring:9090"], [URL + "/other"]):
        with pytest.raises(PrometheusError, match=r"add it to the chart's value prometheus\.urls"):
            await Credentials(Cluster(), allowed).access("shop", OPEN)
    found = await Credentials(Cluster(), [URL + "/"]).access("shop", OPEN)
    assert (found.url, found.timeout, found.headers, found.tls) == (URL, 5.0, {}, None)


async def test_a_secret_is_kept_for_a_while_and_read_again_when_it_was_refused() -> None:
    cluster = Cluster()
    credentials = Credentials(cluster, [URL])
    for _ in range(3):
        found = await credentials.access("shop", NAMED)
        assert found.headers == {"Authorization": "Bearer t"}
    assert cluster.reads == 1
    cluster.token = "other"
    credentials.refused("shop", NAMED)
    found = await credentials.access("shop", NAMED)
    assert found.headers == {"Authorization": "Bearer other"}
    await credentials.access("search", NAMED)
    assert cluster.reads == 3


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, "there is none of this name in the model's namespace"),
        (403, "add its name to the chart's value prometheus.secretNames"),
        (503, "the server said so"),
    ],
)
async def test_a_secret_that_cannot_be_read_is_told(status: int, told: str) -> None:
    with pytest.raises(PrometheusError, match=told):
        await Credentials(Cluster(status=status), [URL]).access("shop", NAMED)


def test_what_a_secret_holds_is_shown_to_nobody_but_the_api() -> None:
    secret = {"username": b"me", "password": b"hush", "tenant": b"shop"}
    found = access_of(NAMED, secret)
    assert found.headers == {"Authorization": "Basic bWU6aHVzaA==", "THANOS-TENANT": "shop"}
    assert "bWU6" not in repr(found)


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ({}, "has none of the keys"),
        ({"Token": b"t"}, "has none of the keys"),
        ({"token": b"t", "username": b"me"}, "leave out one"),
        ({"token": b"\xff"}, "is no text"),
        ({"token": b"a\r\nX-Other: b"}, "holds what no header can"),
        ({"tls.crt": b"c"}, "both of tls.crt and tls.key"),
        ({"ca.crt": b"no certificate"}, "no certificates that fit"),
        ({"tls.crt": b"c", "tls.key": b"k"}, "no certificates that fit"),
    ],
)
def test_a_secret_of_no_use_is_told(secret: dict[str, bytes], told: str) -> None:
    with pytest.raises(PrometheusError, match=told):
        access_of(NAMED, secret)
