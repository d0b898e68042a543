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
from kohort_server.model import engine_cache
from kohort_server.model.engine_cache import MANIFEST, Cache, Key, disk_size
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
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".lock", ".used"}


def test_a_full_disk_is_told_with_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(target: Path) -> Sequence[str]:
        (target / "half").write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    with pytest.raises(StartFailure) as raised:
        Cache(tmp_path).obtain(KEY, fill)
    assert raised.value.failure.reason == FailureReason.CACHE_UNUSABLE
    assert "No space left on device" in raised.value.failure.message
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


MIB = 1 << 20


def key(number: int) -> Key:
    return msgspec.structs.replace(KEY, recipe=str(number))


def kept_by(cache: Cache, *numbers: int) -> list[int]:
    return [number for number in numbers if cache.find(key(number))]


def released(cache: Cache, *numbers: int) -> None:
    """Entries of one mebibyte each that processes have used and left, the first one earliest."""
    for number in numbers:
        cache.obtain(key(number), Builder({"engine.blob": bytes(MIB)}))
        used = cache.root / f"{key(number).name()}.used"
        engine_cache._IN_USE.pop(used).close()
        os.utime(used, (1000 + number, 1000 + number))


def test_what_was_used_least_recently_goes_first_until_the_rest_has_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    released(cache, 1, 2, 3, 4)
    assert cache.trim(5 * MIB) == 0
    os.utime(tmp_path / f"{key(1).name()}.used")  # somebody has used it again
    assert cache.trim(3 * MIB) == 2
    assert kept_by(cache, 1, 2, 3, 4) == [1, 4]


def test_what_a_process_uses_stays_however_little_room_there_is(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    released(cache, 1, 2)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.unit.test_server_engine_cache import Builder, key\n"
        "from kohort_server.model.engine_cache import Cache\n"
        "assert not Cache(Path(sys.argv[1])).obtain(key(1), Builder()).fresh\n"
        "print('using', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"using\n"
        assert cache.trim(0) == 1
        assert kept_by(cache, 1, 2) == [1]
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert cache.trim(0) == 1
    assert kept_by(cache, 1, 2) == []
    assert cache.obtain(key(1), Builder()).fresh


def test_what_this_process_uses_stays_too(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.obtain(key(1), Builder())
    cache.obtain(key(1), Builder())
    assert cache.trim(0) == 0
    assert kept_by(cache, 1) == [1]


def test_a_file_that_lies_elsewhere_too_takes_no_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    (tmp_path / "model").write_bytes(bytes(MIB))

    def link(target: Path) -> Sequence[str]:
        (target / "model").hardlink_to(tmp_path / "model")
        return ("model",)

    path = cache.obtain(key(1), link).path
    assert disk_size(path) < MIB


def test_what_a_dead_builder_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    left = tmp_path / f"{key(7).name()}.partial"
    left.mkdir()
    (left / "half").write_bytes(b"half")

    def build(target: Path) -> Sequence[str]:
        cache.trim(0)
        assert not left.exists()
        (target / "whole").write_bytes(b"whole")
        return ("whole",)

    assert cache.obtain(key(1), build).main.read_bytes() == b"whole"


def test_on_a_full_disk_what_nobody_uses_makes_room_for_what_is_wanted(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    released(cache, 1, 2)
    cache.obtain(key(3), Builder())
    tries = []

    def build(target: Path) -> Sequence[str]:
        tries.append(kept_by(cache, 1, 2, 3))
        (target / "engine").write_bytes(b"engine")
        if len(tries) == 1:
            raise OSError(28, os.strerror(28))
        return ("engine",)

    assert cache.obtain(key(4), build).main.read_bytes() == b"engine"
    assert tries == [[1, 2, 3], [3]]


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=5), room=st.integers(0, 250))
def test_all_that_is_left_has_room_and_nothing_goes_without_need(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], room: int
) -> None:
    root = tmp_path_factory.mktemp("room")
    for number, size in enumerate(sizes):
        (root / f"e{number}").mkdir()
        (root / f"e{number}/file").write_bytes(bytes(size))
        (root / f"e{number}.used").touch()
        os.utime(root / f"e{number}.used", (number, number))
    Cache(root).trim(room)
    left = [number for number in range(len(sizes)) if (root / f"e{number}").exists()]
    assert left == list(range(len(sizes) - len(left), len(sizes)))  # the latest
    assert sum(sizes[number] for number in left) <= room
    gone = len(sizes) - len(left)
    assert gone == 0 or sum(sizes[gone - 1 :]) > room


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
