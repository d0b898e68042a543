"""Flags of the operator, and where it finds the API server."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kohort.kube import from_kubeconfig, in_cluster
from kohort.runtime.settings import parse

SHORTEST = ["run", "--namespace=sys", "--server-image=image"]


def test_a_pod_needs_to_be_told_little() -> None:
    settings = parse(SHORTEST)
    assert settings.scrape_interval == 5
    assert settings.watch_namespaces == ()
    assert settings.lease_duration > settings.lease_deadline > settings.lease_retry


def test_durations_are_written_as_in_a_spec() -> None:
    settings = parse([*SHORTEST, "--scrape-interval=1m30s", "--watch-namespaces=a, b"])
    assert settings.scrape_interval == 90
    assert settings.watch_namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("flag", "advice"),
    [
        ("--scrape-interval=soon", "no duration such as 5s"),
        ("--lease-duration=1s", "--lease-duration must exceed --lease-deadline"),
        ("--event-sink=events.example", "no URL such as https:"),
        ("--namespace=", "set --namespace or $POD_NAMESPACE"),
    ],
)
def test_flags_that_make_no_sense_are_refused_with_advice(
    flag: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse([*SHORTEST, flag])
    assert advice in capsys.readouterr().err


def test_a_service_account_names_the_server_of_its_cluster(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("pem")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    server = in_cluster(tmp_path, environ)
    assert server.url == "https://[fd00::1]:443"
    assert server.bearer() == "first"


def test_a_token_that_is_rotated_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first")
    (tmp_path / "ca.crt").write_text("pem")
    environ = {"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "443"}
    server = in_cluster(tmp_path, environ)
    (tmp_path / "token").write_text("second")
    assert server.bearer() == "second"


def test_a_token_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://h:1/"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    path.write_bytes(msgspec.json.encode(config))
    server = from_kubeconfig(path)
    assert server.url == "https://h:1"
    assert "secret" not in repr(server)


@pytest.mark.parametrize(
    ("user", "advice"), [({"exec": {"command": "x"}}, "use a token instead"), (None, "no user 'u'")]
)
def test_a_kubeconfig_that_cannot_be_used_says_why(
    tmp_path: Path, user: dict[str, object] | None, advice: str
) -> None:
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://h:1"}}],
        "users": [{"name": "u", "user": user}] if user else [],
    }
    path = tmp_path / "kubeconfig"
    path.write_bytes(msgspec.json.encode(config))
    with pytest.raises(ValueError, match=advice):
        from_kubeconfig(path)
