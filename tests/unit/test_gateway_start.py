"""How a gateway is started."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from kohort.gateway.bootstrap import bootstrap, secrets
from kohort.gateway.launcher import EnvoyNotFoundError, find_envoy
from kohort.gateway.settings import parse

ARGUMENTS = ["--tls-dir", "/tls", "--node-id", "gateway-0"]


@pytest.mark.parametrize("operator", ["10.0.0.1:18000", "kohort-operator.system:18000", "[::1]:1"])
def test_envoy_takes_the_configuration_for_any_operator_address(
    tmp_path: Path, operator: str
) -> None:
    settings = parse(["--operator", operator, *ARGUMENTS])
    for name, content in secrets(settings.tls_dir).items():
        (tmp_path / name).write_text(json.dumps(content))
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap(settings, tmp_path)))
    done = subprocess.run(
        [find_envoy({}), "--mode", "validate", "-c", str(path), "-l", "warning"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "eprecated" not in done.stderr


@pytest.mark.parametrize("operator", ["operator", "operator:", ":80", "operator:port", "a:99999"])
def test_an_operator_without_a_port_is_told_what_to_give(
    operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["--operator", operator, *ARGUMENTS])
    assert "HOST:PORT" in capsys.readouterr().err


def test_every_start_has_another_name(tmp_path: Path) -> None:
    settings = parse(["--operator", "localhost:1", *ARGUMENTS])
    first, second = (json.dumps(bootstrap(settings, tmp_path)) for _ in range(2))
    assert first != second


def test_envoy_is_the_one_that_was_told_else_the_installed_one(tmp_path: Path) -> None:
    told = tmp_path / "my-envoy"
    assert find_envoy({"ENVOY": str(told)}) == str(told)
    assert Path(find_envoy({})).stat().st_mode & stat.S_IXUSR


def test_without_an_envoy_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> Path:
        raise ModuleNotFoundError

    monkeypatch.setattr("kohort.gateway.launcher.resources.files", nothing)
    with pytest.raises(EnvoyNotFoundError, match="set ENVOY"):
        find_envoy({"PATH": "/nowhere"})
