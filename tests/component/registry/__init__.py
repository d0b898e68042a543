"""A real OCI registry, built from its Go module, with users or with tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import urllib3
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509 import load_pem_x509_certificate

from kohort_local.pki import Authority
from kohort_local.tools import Tools
from tests.component.source_servers import send
from tests.component.tool_environments import listening, unused_port

REGISTRY = Tools(
    module=Path(__file__).parent,
    packages={"registry": "github.com/distribution/distribution/v3/cmd/registry"},
    flags=("-trimpath", "-ldflags", "-s -w"),
    takes="takes about 2 minutes",
)
USER, PASSWORD = "ada", "lovelace"
# bcrypt, the only form that the registry reads.
HTPASSWD = "ada:$2b$05$Uyw.N6dz9x8WBH33NGayd.6Gt2rdCh/tJjcX2YpoSFP7Li9R8NuyO\n"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def basic(user: str = USER, password: str = PASSWORD) -> str:
    """A header Authorization."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass
class Registry:
    """A registry that runs, with TLS of an authority of its own."""

    host: str
    directory: Path
    authorization: Callable[[str], str]  # by repository, for who may push there
    pools: urllib3.PoolManager = field(init=False)

    def __post_init__(self) -> None:
        self.pools = urllib3.PoolManager(ca_certs=str(self.directory / "ca.crt"))

    def _call(
        self, method: str, url: str, repository: str, **how: object
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": self.authorization(repository), **how.pop("headers", {})}  # type: ignore[dict-item]
        response = self.pools.request(method, url, headers=headers, redirect=False, **how)  # type: ignore[arg-type]
        assert response.status < 300, (url, response.status, response.data)
        return response

    def push_blob(self, repository: str, content: bytes) -> str:
        """Upload a blob; its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        base = f"https://{self.host}"
        begun = self._call("POST", f"{base}/v2/{repository}/blobs/uploads/", repository)
        location = begun.headers["Location"]
        url = location if "://" in location else base + location
        url += ("&" if "?" in url else "?") + f"digest={digest}"
        headers = {"Content-Type": "application/octet-stream"}
        self._call("PUT", url, repository, body=content, headers=headers)
        return digest

    def push(
        self, repository: str, tag: str, files: dict[str, bytes], **overlay: Mapping[str, object]
    ) -> str:
        """Publish files as `oras push` does; the digest of the manifest. `overlay`: layers by name."""
        layers = []
        for name, content in files.items():
            layer: dict[str, object] = {
                "mediaType": "application/octet-stream",
                "digest": self.push_blob(repository, content),
                "size": len(content),
                "annotations": {"org.opencontainers.image.title": name},
            }
            layers.append({**layer, **overlay.get(name.partition(".")[0], {})})
        config = self.push_blob(repository, b"{}")
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.kohort.model",
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": config,
                "size": 2,
            },
            "layers": layers,
        }
        body = json.dumps(manifest).encode()
        url = f"https://{self.host}/v2/{repository}/manifests/{tag}"
        self._call("PUT", url, repository, body=body, headers={"Content-Type": OCI_MANIFEST})
        return f"sha256:{hashlib.sha256(body).hexdigest()}"


@dataclass
class TokenService:
    """Who gives tokens for a registry: to whom it knows, for the time that it says."""

    certificate: bytes
    key: bytes
    seconds: float = 300.0
    given: int = 0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """To a request of a client."""
        if handler.headers.get("Authorization") != basic():
            send(handler, 401, b"{}")
            return
        scope = parse_qs(urlsplit(handler.path).query)["scope"][0]
        self.given += 1
        _, name, actions = scope.split(":")
        send(handler, 200, json.dumps({"token": self.token(name, actions.split(","))}).encode())

    def token(self, repository: str, actions: list[str]) -> str:
        """A token that the registry takes."""
        der = load_pem_x509_certificate(self.certificate).public_bytes(serialization.Encoding.DER)
        now = time.time()
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": "tokens",
            "sub": USER,
            "aud": "registry",
            "exp": int(now + self.seconds),
            "nbf": int(now - 10),
            "iat": int(now - 10),
            "jti": str(now),
            "access": [{"type": "repository", "name": repository, "actions": actions}],
        }
        told = ".".join(encoded(json.dumps(one).encode()) for one in (head, claims))
        key = serialization.load_pem_private_key(self.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        r, s = utils.decode_dss_signature(key.sign(told.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{told}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def encoded(content: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def prepared(directory: Path) -> Authority:
    """An authority and a certificate of 127.0.0.1 in a directory."""
    authority = Authority()
    certificate, key = authority.server("registry", ["127.0.0.1"])
    files = {"tls.crt": certificate, "tls.key": key, "ca.crt": authority.certificate}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    (directory / "htpasswd").write_text(HTPASSWD)
    return authority


@contextmanager
def running(
    directory: Path, auth: dict[str, object], authorization: Callable[[str], str]
) -> Iterator[Registry]:
    """A registry in a directory that is `prepared`."""
    port = unused_port()
    config = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
        "http": {
            "addr": f"127.0.0.1:{port}",
            "tls": {
                "certificate": str(directory / "tls.crt"),
                "key": str(directory / "tls.key"),
            },
        },
        "auth": auth,
    }
    (directory / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    program = REGISTRY.ensure(print) / "registry"
    command = [str(program), "serve", str(directory / "config.yml")]
    with listening(command, port, {"OTEL_TRACES_EXPORTER": "none"}, directory / "log"):
        yield Registry(f"127.0.0.1:{port}", directory, authorization)
