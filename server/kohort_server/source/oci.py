"""Artefacts in OCI registries: a manifest that lists files by their digests, and the files."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import msgspec
import urllib3

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.source.credentials import Credentials
from kohort_server.source.http import look, read
from kohort_server.source.interface import (
    Listing,
    RemoteFile,
    checked_digest,
    denied,
    failed,
    not_found,
)
from kohort_server.source.web import Web, basic, checked_header, decoded, shown

REFERENCE = re.compile(
    r"(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
ACCEPT = {"Accept": ", ".join((*MANIFESTS, *INDEXES))}
# Where publishing tools write a file's name: ORAS, and the CNCF's specification of models.
NAMES = ("org.opencontainers.image.title", "org.cncf.model.filepath")
UNPACK = "io.deis.oras.content.unpack"
ARCHIVE = re.compile(r"[.+](tar|gzip|zstd)$|\.tar\b|rootfs")


class Layer(msgspec.Struct, frozen=True, rename="camel"):
    """A file in a manifest."""

    digest: str
    size: int
    media_type: str = ""
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """What a registry says an artefact is."""

    layers: list[Layer] = []
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """What an oci:// URI names; `reference` is a tag or a digest."""

    host: str
    repository: str
    reference: str


def parse(uri: str) -> Address:
    """The address in a URI; raises for one that is none."""
    parts = urlsplit(uri)
    match = REFERENCE.fullmatch(parts.path.removeprefix("/"))
    if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment or match is None:
        raise not_found(
            f"{uri} is not of the form oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:DIGEST"
        )
    return Address(parts.netloc, match["repository"], match["digest"] or match["tag"] or "latest")


@dataclass
class Registry(Web):
    """A client that answers a registry's question who asks, and asks again when its token is over."""

    credentials: Credentials = field(default_factory=Credentials)
    address: Address = field(default_factory=lambda: Address("", "", ""))
    _authorization: str = ""
    _asking: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def get(
        self, url: str, headers: Mapping[str, str], authorized: str = ""
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """See `Web`; `authorized` is the registry's own business."""
        used = self._authorization
        with super().get(url, headers, used) as response:
            if response.status != 401:
                yield response
                return
            challenge = response.headers.get("WWW-Authenticate", "")
        with self._asking:
            if self._authorization == used:  # no other thread was faster
                self._authorization = self._answer(url, challenge)
        with super().get(url, headers, self._authorization) as response:
            yield response

    def _answer(self, url: str, challenge: str) -> str:
        kind, _, rest = challenge.partition(" ")
        username, password = login(self.credentials, self.address.host)
        if kind.lower() == "basic":
            if not username:
                raise denied(
                    f"{shown(url)}: the registry wants a user; name a Secret of type "
                    "kubernetes.io/dockerconfigjson in model.secretRef"
                )
            return basic(username, password)
        told = parse_keqv_list(parse_http_list(rest)) if kind.lower() == "bearer" else {}
        realm = str(told.get("realm", ""))
        if urlsplit(realm).scheme not in ("https", urlsplit(url).scheme):
            raise failed(
                f"{shown(url)}: the registry asks who we are in a way that is not known here, or not "
                "over https"
            )
        asked = {"scope": f"repository:{self.address.repository}:pull"}
        if "service" in told:
            asked["service"] = str(told["service"])
        # Whoever runs the registry says who gives its tokens; credentials of the registry are for that.
        given = basic(username, password) if username else ""
        web = Web(self.authorities)
        answer = decoded(
            realm, web.document(f"{realm}?{urlencode(asked)}", {}, given), dict[str, Any]
        )
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise failed(f"{shown(realm)}: the answer has no token")
        return checked_header(f"Bearer {token}")


def login(credentials: Credentials, host: str) -> tuple[str, str]:
    """Who we are to a registry: by a Secret for pulling images, or by a user and password."""
    config = credentials.get(".dockerconfigjson")
    if not config:
        return credentials.get("username"), credentials.get("password")
    try:
        told = msgspec.json.decode(config, type=dict[str, Any])["auths"]
        hosts = {
            urlsplit(key if "//" in key else f"//{key}").netloc: value
            for key, value in told.items()
        }
        entry = hosts.get(host, {})
        if "auth" in entry:
            username, _, password = (
                base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            )
            return username, password
        return str(entry.get("username", "")), str(entry.get("password", ""))
    except (ValueError, KeyError, AttributeError, TypeError):  # msgspec's errors are ValueErrors
        raise denied(
            ".dockerconfigjson in the Secret of secretRef is not what docker login writes; create it with "
            "kubectl create secret docker-registry"
        ) from None


@dataclass
class OciSource:
    """What an oci:// URI names."""

    uri: str
    credentials: Credentials
    endpoint: str = ""

    def __post_init__(self) -> None:
        self._address = parse(self.uri)
        self._web = Registry()

    def resolve(self) -> Listing:
        """The files of the artefact, by the manifest that a tag names now."""
        address = self._address
        self._web = Registry(
            self.credentials.authorities(), credentials=self.credentials, address=address
        )
        base = f"{(self.endpoint or f'https://{address.host}').rstrip('/')}/v2/{address.repository}"
        body = self._web.document(f"{base}/manifests/{address.reference}", ACCEPT)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if address.reference.startswith("sha256:") and digest != address.reference:
            raise StartFailure(
                FailureReason.DIGEST_MISMATCH,
                f"{self.uri}: the registry answers with the manifest {digest}; do not trust it",
            )
        manifest = decoded(self.uri, body, Manifest)
        if manifest.media_type in INDEXES or not manifest.layers:
            raise failed(
                f"{self.uri} lists no files: it is an index, or empty; name the manifest of the model itself"
            )
        files = tuple(self._file(base, layer, len(manifest.layers)) for layer in manifest.layers)
        return Listing(files, f"oci://{address.host}/{address.repository}@{digest}")

    def _file(self, base: str, layer: Layer, number: int) -> RemoteFile:
        name = next((layer.annotations[key] for key in NAMES if key in layer.annotations), "")
        if UNPACK in layer.annotations or ARCHIVE.search(layer.media_type):
            raise failed(
                f"{self.uri} has the archive {name or layer.media_type!r}; archives are not unpacked: "
                "publish the files themselves (oras push REF model.onnx weights.bin), or mount an image as "
                "a volume and use file:///…"
            )
        if not name and number > 1:
            raise failed(
                f"{self.uri} has files without names; publish them with the annotation "
                f"{NAMES[0]}, as oras does"
            )
        digest = checked_digest(self.uri, layer.digest)
        found = look(self._web, f"{base}/blobs/{digest}", "", name=name if number > 1 else "")
        if found.size is not None and found.size != layer.size:
            raise failed(
                f"{self.uri}: {digest} has {found.size} bytes, and the manifest says {layer.size}"
            )
        return replace(found, size=layer.size, digest=digest)

    @contextmanager
    def open(self, file: RemoteFile, start: int, end: int | None) -> Iterator[Iterator[bytes]]:
        """See `Source`."""
        with read(self._web, file, start, end, "") as body:
            yield body
