"""What the server is started with: units, CPUs, local files and their digests."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pytest

from kohort.contract import FailureReason
from kohort_server.engine.cpu import cgroup_quota, usable_cpus
from kohort_server.errors import StartFailure
from kohort_server.source.fetch import Wanted, fetch
from kohort_server.units import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("64Mi", 64 << 20), ("10", 10), ("2k", 2000), ("1Gi", 1 << 30)]
)
def test_sizes_are_read_as_kubernetes_writes_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5.0), ("500ms", 0.5), ("1.5m", 90.0)])
def test_durations_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "-1s", "64 Mi", "s"])
def test_a_wrong_duration_or_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write one like"):
        parse_duration(text)
    with pytest.raises(argparse.ArgumentTypeError, match="write one like"):
        parse_size(text + "x")


@pytest.mark.parametrize(
    ("cpu_max", "quota"), [("150000 100000", 1.5), ("max 100000", None), ("50000 100000", 0.5)]
)
def test_the_cgroups_quota_bounds_the_cpus(
    tmp_path: Path, cpu_max: str, quota: float | None
) -> None:
    (tmp_path / "cpu.max").write_text(cpu_max)
    assert cgroup_quota(tmp_path) == quota
    assert usable_cpus(tmp_path) >= 1
    if quota is not None:
        assert usable_cpus(tmp_path) == 1


def test_a_host_without_a_quota_gives_all_cpus_of_the_affinity(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


def test_a_local_file_is_used_in_place_when_its_digest_is_right(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    assert fetch(Wanted(path.as_uri(), digest), tmp_path / "cache").path == path


@pytest.mark.parametrize(
    ("uri", "digest", "reason"),
    [
        ("file:///nowhere/model.onnx", None, FailureReason.MODEL_NOT_FOUND),
        ("file://host/model.onnx", None, FailureReason.MODEL_NOT_FOUND),
        ("ftp://host/model.onnx", None, FailureReason.MODEL_NOT_FOUND),
        ("file:///nowhere/model.onnx", "sha256:12", FailureReason.DIGEST_MISMATCH),
    ],
)
def test_a_model_that_cannot_be_had_is_told_by_its_reason(
    tmp_path: Path, uri: str, digest: str | None, reason: FailureReason
) -> None:
    with pytest.raises(StartFailure) as raised:
        fetch(Wanted(uri, digest), tmp_path)
    assert raised.value.failure.reason == reason


def test_a_changed_file_is_told_by_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"other")
    wanted = f"sha256:{'0' * 64}"
    with pytest.raises(StartFailure) as raised:
        fetch(Wanted(path.as_uri(), wanted), tmp_path)
    assert raised.value.failure.reason == FailureReason.DIGEST_MISMATCH
    assert wanted in raised.value.failure.message
    assert hashlib.sha256(b"other").hexdigest() in raised.value.failure.message
