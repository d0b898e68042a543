"""The connection to the API server: keys stay out of files, and only a leader may write."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from kohort.kube import JSON, ApiError, Fenced, from_kubeconfig, resource_of
from kohort.route.envoy.certificates import authority


class Recording:
    """An API server that takes everything."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
    ) -> bytes:
        self.calls.append(f"{method} {path}")
        return b"{}"


async def test_a_call_is_made_only_while_it_is_allowed() -> None:
    server, leads = Recording(), True
    fenced = Fenced(server, lambda: leads)
    assert await fenced.call("PATCH", "/a") == b"{}"
    leads = False
    with pytest.raises(ApiError):
        await fenced.call("PATCH", "/b")
    assert server.calls == ["PATCH /a"]


def test_embedded_keys_leave_no_file_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority(None, datetime.now(UTC))
    certificate, key = files["tls.crt"], files["tls.key"]
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": "https://h:1",
                    "certificate-authority-data": b64encode(certificate).decode(),
                },
            }
        ],
        "users": [
            {
                "name": "u",
                "user": {
                    "client-certificate-data": b64encode(certificate).decode(),
                    "client-key-data": b64encode(key).decode(),
                },
            }
        ],
    }
    path = tmp_path / "kubeconfig"
    path.write_bytes(msgspec.json.encode(config))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    server = from_kubeconfig(path)
    assert server.tls().get_ca_certs()
    assert not list(scratch.iterdir())
    assert key.decode() not in repr(server)


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/namespaces/shop", "namespaces"),
        ("/api/v1/namespaces/shop/pods/a-1", "pods"),
        ("/apis/apps/v1/deployments", "deployments"),
        ("/apis/kohort.dev/v1alpha1/namespaces/shop/modeldeployments/x", "modeldeployments"),
        (
            "/apis/kohort.dev/v1alpha1/namespaces/shop/modeldeployments/x/status",
            "modeldeployments/status",
        ),
    ],
)
def test_calls_are_counted_by_resource_and_subresource(path: str, resource: str) -> None:
    assert resource_of(path) == resource
