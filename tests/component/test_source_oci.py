"""Artefacts from a real registry, that asks for a user or for a token; digests are what counts."""

from __future__ import annotations

import base64
import json
import random
import ssl
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from kohort.contract import FailureReason
from kohort_local.pki import Authority
from kohort_server.digest import digest_of_tree
from kohort_server.errors import StartFailure
from kohort_server.source.credentials import Credentials
from kohort_server.source.fetch import Wanted, fetch
from kohort_server.source.oci import OciSource
from tests.component.registry import (
    PASSWORD,
    USER,
    Registry,
    TokenService,
    basic,
    prepared,
    running,
)
from tests.component.source_servers import HASTY, WebServer, send, sha256, told
from tests.component.test_source_http import left, secret

CONTENT = random.Random(8).randbytes(1_000_001)
WEIGHTS = b"weights" * 1000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One with users."""
    directory = tmp_path_factory.mktemp("registry")
    prepared(directory)
    auth: dict[str, object] = {"htpasswd": {"realm": "models", "path": str(directory / "htpasswd")}}
    with running(directory, auth, lambda _: basic()) as made:
        yield made


def docker_config(registry: Registry, directory: Path, password: str = PASSWORD) -> Credentials:
    """A Secret as `kubectl create secret docker-registry` makes it."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    auths = {"other.example": {"auth": "bm8="}, registry.host: {"auth": auth}}
    keys = {".dockerconfigjson": json.dumps({"auths": auths})}
    return secret(directory, **keys, **{"ca.crt": (registry.directory / "ca.crt").read_text()})


def test_the_file_that_a_tag_names_is_told_by_its_digests(
    registry: Registry, tmp_path: Path
) -> None:
    digest = registry.push("models/burger", "7", {"model.onnx": CONTENT})
    heard: list[tuple[int, int | None]] = []
    wanted = Wanted(
        f"oci://{registry.host}/models/burger:7",
        credentials=docker_config(registry, tmp_path / "secret"),
    )
    fetched = fetch(
        wanted, tmp_path / "cache", received=lambda *told: heard.append(told), bounds=HASTY
    )
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.pinned == f"oci://{registry.host}/models/burger@{digest}"
    assert fetched.digest == sha256(CONTENT)
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    pinned = Wanted(fetched.pinned, credentials=wanted.credentials)
    registry.push("models/burger", "7", {"model.onnx": b"another"})
    assert fetch(pinned, tmp_path / "cache", bounds=HASTY).path == fetched.path
    assert fetch(wanted, tmp_path / "cache", bounds=HASTY).path.read_bytes() == b"another"


def test_the_files_of_an_artefact_lie_beside_each_other(registry: Registry, tmp_path: Path) -> None:
    files = {"model.onnx": CONTENT, "weights/all.bin": WEIGHTS}
    registry.push("models/many", "1", files)
    wanted = Wanted(
        f"oci://{registry.host}/models/many:1",
        credentials=docker_config(registry, tmp_path / "secret"),
    )
    fetched = fetch(wanted, tmp_path / "cache", bounds=HASTY)
    assert fetched.path.name == "model.onnx"
    assert (fetched.path.parent / "weights/all.bin").read_bytes() == WEIGHTS
    assert fetched.digest == digest_of_tree({name: sha256(body) for name, body in files.items()})


def test_a_user_and_password_do_as_well(registry: Registry, tmp_path: Path) -> None:
    registry.push("models/basic", "1", {"model.onnx": CONTENT})
    keys = {"ca.crt": (registry.directory / "ca.crt").read_text()}
    credentials = secret(tmp_path / "secret", username=USER, password=PASSWORD, **keys)
    wanted = Wanted(f"oci://{registry.host}/models/basic:1", credentials=credentials)
    assert fetch(wanted, tmp_path / "cache", bounds=HASTY).path.read_bytes() == CONTENT


def test_whoever_may_not_read_is_told_so_and_no_password_is_shown(
    registry: Registry, tmp_path: Path
) -> None:
    registry.push("models/shut", "1", {"model.onnx": CONTENT})
    authority = (registry.directory / "ca.crt").read_text()
    cases = {
        "a wrong password": docker_config(registry, tmp_path / "wrong", "hidden"),
        "nobody": secret(tmp_path / "nobody", **{"ca.crt": authority}),
        "no Secret": Credentials(tmp_path / "none"),
        "a Secret that is none of docker's": secret(
            tmp_path / "odd", **{".dockerconfigjson": "hidden", "ca.crt": authority}
        ),
    }
    for case, credentials in cases.items():
        wanted = Wanted(f"oci://{registry.host}/models/shut:1", credentials=credentials)
        with pytest.raises(StartFailure) as raised:
            fetch(wanted, tmp_path / "cache", bounds=HASTY)
        reason, message = told(raised.value)
        assert (case, reason) == (case, FailureReason.ACCESS_DENIED), message
        assert "hidden" not in message


def test_what_is_not_there_or_no_model_is_told(registry: Registry, tmp_path: Path) -> None:
    credentials = docker_config(registry, tmp_path / "secret")
    registry.push("models/up", "1", {"model.onnx": CONTENT, "../../evil": b"x"})
    unpacked = {"annotations": {"io.deis.oras.content.unpack": "true"}}
    registry.push("models/archive", "1", {"model": b"x"}, model=unpacked)
    image = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
    registry.push("models/image", "1", {"model": b"x"}, model=image)
    registry.push("models/nameless", "1", {"a": b"x", "b": b"y"}, a={"annotations": {}})
    registry.push("models/none", "1", {})
    pinned = f"models/up@sha256:{'1' * 64}"
    cases = {
        "models/missing:1": (FailureReason.MODEL_NOT_FOUND, "404 Not Found; check model.uri"),
        "Models:1": (FailureReason.MODEL_NOT_FOUND, "is not of the form"),
        "": (FailureReason.MODEL_NOT_FOUND, "is not of the form"),
        pinned: (FailureReason.MODEL_NOT_FOUND, "404 Not Found"),
        "models/up:1": (FailureReason.DOWNLOAD_FAILED, "not a plain path"),
        "models/archive:1": (FailureReason.DOWNLOAD_FAILED, "archives are not unpacked"),
        "models/image:1": (FailureReason.DOWNLOAD_FAILED, "archives are not unpacked"),
        "models/nameless:1": (FailureReason.DOWNLOAD_FAILED, "files without names"),
        "models/none:1": (FailureReason.DOWNLOAD_FAILED, "lists no files"),
    }
    for name, (reason, message) in cases.items():
        wanted = Wanted(f"oci://{registry.host}/{name}", credentials=credentials)
        with pytest.raises(StartFailure) as raised:
            fetch(wanted, tmp_path / "cache", bounds=HASTY)
        assert told(raised.value)[0] == reason, told(raised.value)
        assert message in told(raised.value)[1]
    assert left(tmp_path / "cache") == []


def test_content_that_was_changed_in_the_registrys_storage_is_refused(
    registry: Registry, tmp_path: Path
) -> None:
    registry.push("models/rotten", "1", {"model.onnx": CONTENT + b"rotten"})
    hexadecimal = sha256(CONTENT + b"rotten").removeprefix("sha256:")
    (data,) = registry.directory.glob(f"storage/**/{hexadecimal}/data")
    data.write_bytes(CONTENT + b"ROTTEN")
    wanted = Wanted(
        f"oci://{registry.host}/models/rotten:1",
        credentials=docker_config(registry, tmp_path / "secret"),
    )
    with pytest.raises(StartFailure) as raised:
        fetch(wanted, tmp_path / "cache", bounds=HASTY)
    assert told(raised.value)[0] == FailureReason.DIGEST_MISMATCH
    assert left(tmp_path / "cache") == []


def test_tokens_are_asked_for_and_asked_for_again_when_they_are_over(tmp_path: Path) -> None:
    directory = tmp_path / "registry"
    directory.mkdir()
    authority: Authority = prepared(directory)
    certificate, key = authority.server("tokens", ["127.0.0.1"])
    service = TokenService(certificate, key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")

    with WebServer(service.answer).running(certificate=context) as tokens:
        auth: dict[str, object] = {
            "token": {
                "realm": f"{tokens.url}/token",
                "service": "registry",
                "issuer": "tokens",
                "rootcertbundle": str(directory / "ca.crt"),
            }
        }

        def pushing(repository: str) -> str:
            return f"Bearer {service.token(repository, ['pull', 'push'])}"

        with running(directory, auth, pushing) as registry:
            registry.push("models/burger", "7", {"model.onnx": CONTENT})
            credentials = docker_config(registry, tmp_path / "secret")
            wanted = Wanted(f"oci://{registry.host}/models/burger:7", credentials=credentials)
            fetched = fetch(wanted, tmp_path / "cache", bounds=HASTY)
            assert (fetched.path.read_bytes(), service.given) == (CONTENT, 1)
            # The registry takes a token for a minute longer than it says: this one for eight seconds.
            service.seconds = -52
            source = OciSource(wanted.uri, credentials)
            (file,) = source.resolve().files
            time.sleep(9)
            with source.open(file, 10, 20) as body:
                assert b"".join(body) == CONTENT[10:20]
            assert service.given == 3
            wrong = docker_config(registry, tmp_path / "wrong", "hidden")
            with pytest.raises(StartFailure) as raised:
                fetch(Wanted(wanted.uri, credentials=wrong), tmp_path / "third", bounds=HASTY)
            assert told(raised.value)[0] == FailureReason.ACCESS_DENIED


def test_a_registry_that_lies_about_a_manifest_or_answers_html_is_told(tmp_path: Path) -> None:
    def html(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, b"<html><body>Please log in</body></html>", Content_Type="text/html")

    with WebServer(html).running() as web:
        for reference, reason, message in (
            (":1", FailureReason.DOWNLOAD_FAILED, "begins with '<html><body>Please log in"),
            (f"@sha256:{'1' * 64}", FailureReason.DIGEST_MISMATCH, "do not trust it"),
        ):
            wanted = Wanted(f"oci://registry.example/m{reference}", endpoint=web.url)
            with pytest.raises(StartFailure) as raised:
                fetch(wanted, tmp_path, bounds=HASTY)
            assert told(raised.value)[0] == reason
            assert message in told(raised.value)[1]


def test_where_content_is_redirected_to_nobody_is_told_who_we_are(tmp_path: Path) -> None:
    def storage(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 401, WWW_Authenticate='Basic realm="give me"')

    manifest = json.dumps(
        {"layers": [{"digest": sha256(CONTENT), "size": len(CONTENT), "mediaType": "x"}]}
    ).encode()

    def front(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Authorization") != basic():
            send(handler, 401, WWW_Authenticate='Basic realm="models"')
        elif "/manifests/" in handler.path:
            send(handler, 200, manifest)
        else:
            send(handler, 307, Location=f"{other.url}/blob")

    credentials = secret(tmp_path / "secret", username=USER, password=PASSWORD)
    with WebServer(storage).running("127.0.0.2") as other, WebServer(front).running() as web:
        wanted = Wanted("oci://registry.example/m:1", None, credentials, web.url)
        with pytest.raises(StartFailure) as raised:
            fetch(wanted, tmp_path / "cache", bounds=HASTY)
    assert told(raised.value)[0] == FailureReason.ACCESS_DENIED
    assert other.asked
    assert not any("authorization" in headers for _, headers in other.asked)
