"""What was built is found again, whole, or built again by exactly one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.model.engine_cache import MANIFEST, Cache, Key
from kohort_server.model.hardware import machine

KEY = Key("sha256:a", "OpenVINO", "1", "FP32", "here")


class Builder:
    """Writes files, and counts how often it was asked to."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = files or {"engine.blob": b"engine", "sub/names": b"names"}
        self.times = 0

    def __call__(self, target: Path) -> Sequence[str]:
        self.times += 1
        for name, content in self.files.items():
            (target / name).parent.mkdir(exist_ok=True)
            (target / name).write_bytes(content)
        return tuple(self.files)


def test_what_was_built_is_found_again_and_not_built(tmp_path: Path) -> None:
    cache, builder = Cache(tmp_path / "cache"), Builder()
    assert cache.find(KEY) is None
    first = cache.obtain(KEY, builder)
    again = Cache(tmp_path / "cache").obtain(KEY, builder)
    assert builder.times == 1
    assert (first.fresh, again.fresh) == (True, False)
    assert again.main.read_bytes() == b"engine"


@pytest.mark.parametrize("field", ["model", "engine", "version", "precision", "machine", "recipe"])
def test_whatever_differs_makes_another_engine(tmp_path: Path, field: str) -> None:
    cache, builder = Cache(tmp_path), Builder()
    cache.obtain(KEY, builder)
    cache.obtain(msgspec.structs.replace(KEY, **{field: "other"}), builder)
    assert builder.times == 2


def cut(entry: Path) -> None:
    (entry / "engine.blob").write_bytes(b"engin")


def flip(entry: Path) -> None:
    (entry / "sub/names").write_bytes(b"namez")


def lose(entry: Path) -> None:
    (entry / "engine.blob").unlink()


def lose_manifest(entry: Path) -> None:
    (entry / MANIFEST).unlink()


def scribble(entry: Path) -> None:
    (entry / MANIFEST).write_bytes(b"{")


def another_key(entry: Path) -> None:
    told = (entry / MANIFEST).read_text()
    (entry / MANIFEST).write_text(told.replace('"here"', '"there"'))


def point_outside(entry: Path) -> None:
    (entry / "engine.blob").rename(entry.parent / "elsewhere")
    (entry / "engine.blob").symlink_to(entry.parent / "elsewhere")


def replace_by_file(entry: Path) -> None:
    entry.rename(entry.parent / "moved")
    entry.write_bytes(b"")


@pytest.mark.parametrize(
    "harm",
    [cut, flip, lose, lose_manifest, scribble, another_key, point_outside, replace_by_file],
)
def test_an_entry_that_is_not_as_it_was_built_is_built_again(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    cache, builder = Cache(tmp_path), Builder()
    harm(cache.obtain(KEY, builder).path)
    assert cache.find(KEY) is None
    again = cache.obtain(KEY, builder)
    assert again.fresh
    assert again.main.read_bytes() == b"engine"
    assert cache.find(KEY) == replace(again, fresh=False)


@given(content=st.binary(max_size=300))
def test_no_manifest_of_any_bytes_is_believed(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    cache = Cache(tmp_path_factory.getbasetemp() / "any")
    entry = cache.root / KEY.name()
    entry.mkdir(parents=True, exist_ok=True)
    (entry / MANIFEST).write_bytes(content)
    assert cache.find(KEY) is None


def test_of_many_that_want_the_same_exactly_one_builds_and_all_get_it(tmp_path: Path) -> None:
    builder, found = Builder(), []

    def slowly(target: Path) -> Sequence[str]:
        time.sleep(0.05)
        return builder(target)

    def want() -> None:
        found.append(Cache(tmp_path).obtain(KEY, slowly).main.read_bytes())

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builder.times == 1
    assert found == [b"engine"] * 8


def test_a_build_that_fails_leaves_nothing_and_the_next_one_tries_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(target: Path) -> Sequence[str]:
        (target / "half").write_bytes(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.obtain(KEY, fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert cache.obtain(KEY, Builder()).fresh


def test_a_builder_that_is_killed_is_followed_by_the_next(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.unit.test_server_engine_cache import KEY\n"
        "from kohort_server.model.engine_cache import Cache\n"
        "def build(target):\n"
        "    (target / 'half').write_bytes(b'half')\n"
        "    print('building', flush=True)\n"
        "    time.sleep(600)\n"
        "Cache(Path(sys.argv[1])).obtain(KEY, build)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"building\n"
        found: list[bool] = []
        waiting = threading.Thread(
            target=lambda: found.append(Cache(tmp_path).obtain(KEY, Builder()).fresh)
        )
        waiting.start()
        waiting.join(0.1)
        assert found == []  # it waits for the first
        first.send_signal(signal.SIGKILL)
        waiting.join(30)
    assert found == [True]
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".lock"}


def test_a_full_disk_is_told_with_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(target: Path) -> Sequence[str]:
        (target / "half").write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    with pytest.raises(StartFailure) as raised:
        Cache(tmp_path).obtain(KEY, fill)
    assert raised.value.failure.reason == FailureReason.CACHE_UNUSABLE
    assert "No space left on device" in raised.value.failure.message
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartFailure, match="--cache-dir"):
        Cache(tmp_path / "file").obtain(KEY, Builder())


def test_machines_that_can_do_the_same_are_one_machine(tmp_path: Path) -> None:
    told = {
        "one": "processor : 0\nmodel name : CPU A\nflags : avx2 amx\nflags : other\n",
        "same": "cpu MHz : 1\nmodel name : CPU A\nflags : amx avx2\n",
        "other": "model name : CPU A\nflags : avx2\n",
    }
    for name, text in told.items():
        (tmp_path / name).write_text(text)
    one, same, other = (machine(tmp_path / name) for name in told)
    assert one == same != other
    assert "CPU A" in one
    assert "unknown CPU" in machine(tmp_path / "nowhere")
