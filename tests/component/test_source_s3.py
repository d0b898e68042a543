"""Models from a real S3 server that checks signatures: moto, with users and policies."""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from kohort.contract import FailureReason
from kohort_local.pki import Authority
from kohort_server.digest import digest_of_tree
from kohort_server.errors import StartFailure
from kohort_server.source.credentials import Credentials
from kohort_server.source.fetch import Wanted, fetch
from tests.component.source_servers import HASTY, WebServer, send, sha256, told
from tests.component.test_source_http import left, secret
from tests.component.tool_environments import MOTO, environment, listening, python, unused_port

CONTENT = random.Random(8).randbytes(1_000_001)
NEWER = CONTENT[::-1]
OPEN = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}
SHUT = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}],
}

SET_UP = """
import boto3, json, pathlib, sys
endpoint, policies, directory = sys.argv[1], json.loads(sys.argv[2]), pathlib.Path(sys.argv[3])
content = (directory / "content").read_bytes()
how = dict(endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b",
           verify=str(directory / "ca.crt"))
s3, iam, sts = (boto3.client(name, **how) for name in ("s3", "iam", "sts"))
s3.create_bucket(Bucket="models")
s3.create_bucket(Bucket="plain")
s3.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
told = {"versions": [s3.put_object(Bucket="models", Key="burger/7/model.onnx", Body=body)["VersionId"]
                     for body in (content, content[::-1])]}
for key, body in {"m.onnx": content, "d/model.onnx": content, "d/w/weights.bin": b"weights", "d/": b"",
                  "e/a.txt": b"x"}.items():
    s3.put_object(Bucket="plain", Key=key, Body=body, ACL="public-read")
for user, policy in policies.items():
    iam.create_user(UserName=user)
    iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=json.dumps(policy))
    made = iam.create_access_key(UserName=user)["AccessKey"]
    told[user] = [made["AccessKeyId"], made["SecretAccessKey"]]
trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:*", "Principal": "*"}]}
role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
iam.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=json.dumps(policies["reader"]))
session = sts.assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
told["session"] = [session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]]
told["role"] = role
# The actions so far were free; from here on every request is checked.
print(json.dumps(told))
"""


@dataclass(frozen=True)
class S3:
    """A server and what is in it."""

    endpoint: str
    versions: tuple[str, str]
    keys: dict[str, list[str]]
    role: str
    authority: Path

    def secret(self, directory: Path, user: str) -> Credentials:
        """A user's keys as a Secret that is mounted."""
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return self.given(directory, **dict(zip(names, self.keys[user], strict=False)))

    def given(self, directory: Path, **keys: str) -> Credentials:
        """Keys as a Secret that is mounted, with the authority of the server's certificate."""
        directory.mkdir(exist_ok=True)
        (directory / "ca.crt").write_bytes(self.authority.read_bytes())
        return secret(directory, **keys)

    def wanted(self, uri: str, credentials: Credentials, digest: str | None = None) -> Wanted:
        """A model that is there."""
        return Wanted(uri, digest, credentials, self.endpoint)


def started(directory: Path, free: int) -> Iterator[S3]:
    """A server whose first `free` requests are not checked, with a certificate of an authority of its own."""
    programs, port = environment(*MOTO), unused_port()
    command = [str(programs / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    authority = Authority()
    certificate, key = authority.server("s3", ["127.0.0.1"])
    files = {"tls.crt": certificate, "tls.key": key, "ca.crt": authority.certificate}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    command += ["--ssl", "-c", str(directory / "tls.crt"), "-k", str(directory / "tls.key")]
    environ = {"INITIAL_NO_AUTH_ACTION_COUNT": str(free)}
    (directory / "content").write_bytes(CONTENT)
    with listening(command, port, environ, directory / "log"):
        endpoint = f"https://127.0.0.1:{port}"
        policies = json.dumps({"reader": OPEN, "stranger": SHUT})
        made = json.loads(python(programs, SET_UP, endpoint, policies, str(directory)))
        older, newer = made.pop("versions")
        role = made.pop("role")
        yield S3(endpoint, (older, newer), made, role, directory / "ca.crt")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One that checks who asks."""
    yield from started(tmp_path_factory.mktemp("s3"), free=19)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """One that lets anybody read."""
    yield from started(tmp_path_factory.mktemp("public"), free=1_000_000)


def test_an_object_is_told_by_the_version_that_it_has_now(s3: S3, tmp_path: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    keys = s3.secret(tmp_path / "secret", "reader")
    uri = "s3://models/burger/7/model.onnx"
    wanted = s3.wanted(uri, keys)
    fetched = fetch(
        wanted, tmp_path / "cache", received=lambda *told: heard.append(told), bounds=HASTY
    )
    assert fetched.path.read_bytes() == NEWER
    assert fetched.pinned == f"{uri}?versionId={s3.versions[1]}"
    assert fetched.digest == sha256(NEWER)
    assert heard[-1] == (len(NEWER), len(NEWER))


def test_a_version_that_is_not_the_newest_is_still_had(s3: S3, tmp_path: Path) -> None:
    keys = s3.secret(tmp_path / "secret", "reader")
    wanted = s3.wanted(f"s3://models/burger/7/model.onnx?versionId={s3.versions[0]}", keys)
    fetched = fetch(wanted, tmp_path / "cache", bounds=HASTY)
    assert (fetched.path.read_bytes(), fetched.pinned) == (CONTENT, wanted.uri)
    # It will always be that: what is here serves although nobody answers any more.
    gone = Wanted(wanted.uri, None, keys, "https://127.0.0.1:1")
    assert fetch(gone, tmp_path / "cache", bounds=HASTY) == fetched


def test_all_below_a_prefix_is_one_model_with_the_digest_that_sha256sum_gives(
    s3: S3, tmp_path: Path
) -> None:
    keys = s3.secret(tmp_path / "secret", "reader")
    fetched = fetch(s3.wanted("s3://plain/d/", keys), tmp_path / "cache", bounds=HASTY)
    assert fetched.path.name == "model.onnx"
    assert (fetched.path.parent / "w/weights.bin").read_bytes() == b"weights"
    files = {"model.onnx": CONTENT, "w/weights.bin": b"weights"}
    assert fetched.digest == digest_of_tree({name: sha256(body) for name, body in files.items()})
    assert fetched.size == len(CONTENT) + len(b"weights")
    again = s3.wanted("s3://plain/d/", keys, fetched.digest)
    assert fetch(again, tmp_path / "cache", bounds=HASTY).path == fetched.path


def test_an_object_without_versions_is_pinned_by_nothing_but_its_digest(
    s3: S3, tmp_path: Path
) -> None:
    keys = s3.secret(tmp_path / "secret", "reader")
    fetched = fetch(s3.wanted("s3://plain/m.onnx", keys), tmp_path / "cache", bounds=HASTY)
    assert (fetched.pinned, fetched.digest) == ("s3://plain/m.onnx", sha256(CONTENT))


def test_keys_of_a_session_need_their_token(s3: S3, tmp_path: Path) -> None:
    keys = s3.secret(tmp_path / "secret", "session")
    wanted = s3.wanted("s3://plain/m.onnx", keys)
    assert fetch(wanted, tmp_path / "cache", bounds=HASTY).path.read_bytes() == CONTENT
    (tmp_path / "secret/AWS_SESSION_TOKEN").unlink()
    with pytest.raises(StartFailure) as raised:
        fetch(wanted, tmp_path / "other", bounds=HASTY)
    assert told(raised.value)[0] == FailureReason.ACCESS_DENIED


def test_a_public_bucket_is_read_without_anybodys_keys(
    public: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(public.authority))
    wanted = public.wanted("s3://plain/m.onnx", Credentials())
    assert fetch(wanted, tmp_path / "cache", bounds=HASTY).path.read_bytes() == CONTENT


def test_a_pods_web_identity_is_exchanged_for_keys(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, value, token = s3.keys["session"]
    # moto's own token service does not take what it is asked in a query.
    answer = (
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
        f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{value}</SecretAccessKey>"
        f"<SessionToken>{token}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
        "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )

    def exchange(handler: BaseHTTPRequestHandler) -> None:
        asked = parse_qs(urlsplit(handler.path).query)
        right = (asked["WebIdentityToken"], asked["RoleArn"]) == (["of the pod"], [s3.role])
        send(handler, 200 if right else 403, answer.encode() if right else b"")

    (tmp_path / "token").write_text("of the pod")
    certificate = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.load_cert_chain(
        s3.authority.with_name("tls.crt"), s3.authority.with_name("tls.key")
    )
    with WebServer(exchange).running(certificate=certificate) as web:
        monkeypatch.setenv("SSL_CERT_FILE", str(s3.authority))
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", s3.role)
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", web.url)
        wanted = s3.wanted("s3://plain/m.onnx", Credentials())
        assert fetch(wanted, tmp_path / "cache", bounds=HASTY).path.read_bytes() == CONTENT
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/of-another-tenant")
        with pytest.raises(StartFailure) as raised:
            fetch(wanted, tmp_path / "other", bounds=HASTY)
        assert told(raised.value)[0] == FailureReason.ACCESS_DENIED


def test_a_pods_own_identity_is_asked_for_keys(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, value, token = s3.keys["session"]
    agent_says = {
        "AccessKeyId": key,
        "SecretAccessKey": value,
        "Token": token,
        "Expiration": "2099-01-01T00:00:00Z",
    }

    def agent(handler: BaseHTTPRequestHandler) -> None:
        right = handler.headers.get("Authorization") == "of the pod"
        send(handler, 200 if right else 401, json.dumps(agent_says).encode() if right else b"")

    (tmp_path / "token").write_text("of the pod")
    with WebServer(agent).running() as web:
        monkeypatch.setenv("SSL_CERT_FILE", str(s3.authority))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{web.url}/v1/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        wanted = s3.wanted("s3://plain/m.onnx", Credentials())
        assert fetch(wanted, tmp_path / "cache", bounds=HASTY).path.read_bytes() == CONTENT


def test_a_secret_is_used_even_where_the_pod_has_an_identity(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the pod")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "stale")
    keys = s3.secret(tmp_path / "secret", "reader")
    wanted = s3.wanted("s3://plain/m.onnx", keys)
    assert fetch(wanted, tmp_path / "cache", bounds=HASTY).path.read_bytes() == CONTENT


def test_keys_that_are_wrong_another_tenants_or_missing_are_told_and_not_shown(
    s3: S3, tmp_path: Path
) -> None:
    reader, value = s3.keys["reader"]
    stranger = s3.secret(tmp_path / "stranger", "stranger")
    cases = {
        "wrong": s3.given(
            tmp_path / "wrong", AWS_ACCESS_KEY_ID=reader, AWS_SECRET_ACCESS_KEY="hidden"
        ),
        "of nobody": s3.given(
            tmp_path / "nobody", AWS_ACCESS_KEY_ID="AKIAHIDDEN", AWS_SECRET_ACCESS_KEY=value
        ),
        "of another tenant": stranger,
        "no keys": s3.given(tmp_path / "other", token="hidden"),
        "no Secret": Credentials(tmp_path / "none"),
    }
    for case, credentials in cases.items():
        for uri in ("s3://plain/m.onnx", "s3://plain/d/"):
            with pytest.raises(StartFailure) as raised:
                fetch(s3.wanted(uri, credentials), tmp_path / "cache", bounds=HASTY)
            reason, message = told(raised.value)
            assert (case, reason) == (case, FailureReason.ACCESS_DENIED), message
            assert "secretRef" in message
            assert "idden" not in message.replace("Forbidden", "")
            assert value not in message


def test_keys_that_are_rotated_are_used_for_the_next_download(s3: S3, tmp_path: Path) -> None:
    directory = tmp_path / "secret"
    keys = s3.given(directory, AWS_ACCESS_KEY_ID="AKIAOLD", AWS_SECRET_ACCESS_KEY="old")
    wanted = s3.wanted("s3://plain/m.onnx", keys)
    with pytest.raises(StartFailure):
        fetch(wanted, tmp_path / "cache", bounds=HASTY)
    s3.secret(directory, "reader")
    assert fetch(wanted, tmp_path / "cache", bounds=HASTY).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "uri",
    [
        "s3://plain/none",
        "s3://plain/none/",
        "s3://nobody/m",
        "s3://plain/../m.onnx",
        "s3://",
        "s3://plain/m.onnx?versionId=1&x=2",
        "s3://plain/d/?versionId=1",
    ],
)
def test_what_is_not_there_is_told(s3: S3, tmp_path: Path, uri: str) -> None:
    keys = s3.secret(tmp_path / "secret", "reader")
    with pytest.raises(StartFailure) as raised:
        fetch(s3.wanted(uri, keys), tmp_path / "cache", bounds=HASTY)
    assert told(raised.value)[0] == FailureReason.MODEL_NOT_FOUND, told(raised.value)
    assert uri in told(raised.value)[1]


def test_a_directory_without_a_model_is_told_by_what_is_looked_for(s3: S3, tmp_path: Path) -> None:
    keys = s3.secret(tmp_path / "secret", "reader")
    with pytest.raises(StartFailure) as raised:
        fetch(s3.wanted("s3://plain/e/", keys), tmp_path / "cache", bounds=HASTY)
    assert told(raised.value)[0] == FailureReason.MODEL_INVALID
    assert "none that ends with .onnx or .pt2" in told(raised.value)[1]


def test_a_service_that_is_down_or_is_none_is_told(s3: S3, tmp_path: Path) -> None:
    keys = s3.secret(tmp_path / "secret", "reader")
    with pytest.raises(StartFailure) as raised:
        fetch(Wanted("s3://plain/m.onnx", None, keys, "http://127.0.0.1:1"), tmp_path, bounds=HASTY)
    assert told(raised.value)[0] == FailureReason.DOWNLOAD_FAILED
    assert "(3 attempts); check that the source answers from here" in told(raised.value)[1]
    html = WebServer(lambda handler: send(handler, 200, b"<html>welcome</html>"))
    with html.running() as web, pytest.raises(StartFailure) as raised:
        fetch(Wanted("s3://plain/m", None, keys, web.url), tmp_path, bounds=HASTY)
    assert told(raised.value)[0] == FailureReason.DOWNLOAD_FAILED


def test_names_that_lead_out_of_the_directory_are_refused(tmp_path: Path) -> None:
    body = (
        "<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated>"
        "<Contents><Key>d/{}</Key><Size>4</Size><ETag>&quot;e&quot;</ETag>"
        "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
    )
    for name in ("../../etc/evil", "/etc/evil", "a//b", "a/../../b"):

        def answer(handler: BaseHTTPRequestHandler, name: str = name) -> None:
            send(handler, 200, body.format(name).encode(), Content_Type="application/xml")

        with WebServer(answer).running() as web, pytest.raises(StartFailure):
            fetch(Wanted("s3://plain/d/", None, Credentials(), web.url), tmp_path, bounds=HASTY)
        assert all("list-type" in path for path, _ in web.asked)
    assert left(tmp_path) == []
