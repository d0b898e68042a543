"""Files over HTTP from real servers, good and bad: whole and verified, or a clear reason and nothing left."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from kohort.contract import FailureReason
from kohort_server.errors import StartFailure
from kohort_server.model.engine_cache import Cache
from kohort_server.source.credentials import Credentials
from kohort_server.source.fetch import Fetched, Wanted, content_key, fetch
from tests.component.source_servers import (
    HASTY,
    WebServer,
    endless,
    send,
    send_file,
    sha256,
    slow,
    told,
)

Handler = BaseHTTPRequestHandler
CONTENT = random.Random(8).randbytes(3_000_001)


def secret(directory: Path, **keys: str) -> Credentials:
    """Credentials as a Secret that is mounted."""
    directory.mkdir(exist_ok=True)
    for key, value in keys.items():
        (directory / key).write_text(f"{value}\n")
    return Credentials(directory)


def left(cache: Path) -> list[Path]:
    """Files with content in a cache."""
    return [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size]


def test_a_file_comes_in_parts_at_once_and_is_found_by_its_digest_when_the_server_is_gone(
    tmp_path: Path,
) -> None:
    heard: list[tuple[int, int | None]] = []
    digest = sha256(CONTENT)
    with WebServer(lambda handler: send_file(handler, CONTENT)).running() as web:
        wanted = Wanted(f"{web.url}/model.onnx", digest)
        fetched = fetch(wanted, tmp_path, received=lambda *told: heard.append(told), bounds=HASTY)
    assert fetched == Fetched(fetched.path, digest, len(CONTENT), wanted.uri)
    assert fetched.path.read_bytes() == CONTENT
    assert len([headers for _, headers in web.asked if "range" in headers]) > 40
    assert heard == sorted(heard, key=lambda one: one[0])
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(wanted, tmp_path, bounds=HASTY) == fetched


def test_a_file_whose_digest_nobody_told_is_kept_under_the_one_it_has(tmp_path: Path) -> None:
    with WebServer(lambda handler: send(handler, 200, CONTENT)).running() as web:
        fetched = fetch(Wanted(f"{web.url}/m"), tmp_path, bounds=HASTY)
        assert fetched.digest == sha256(CONTENT)
    found = fetch(Wanted("http://127.0.0.1:1/elsewhere", fetched.digest), tmp_path, bounds=HASTY)
    assert found.path == fetched.path


@pytest.mark.parametrize("size", [0, 1, HASTY.part, HASTY.part + 1])
def test_files_of_any_size_come_whole(tmp_path: Path, size: int) -> None:
    with WebServer(lambda handler: send_file(handler, CONTENT[:size])).running() as web:
        fetched = fetch(Wanted(web.url), tmp_path, bounds=HASTY)
        assert fetched.path.read_bytes() == CONTENT[:size]


def test_a_download_that_breaks_off_again_and_again_goes_on_from_where_it_was(
    tmp_path: Path,
) -> None:
    sent = 0

    def breaks(handler: Handler) -> None:
        nonlocal sent
        if handler.headers["Range"] == "bytes=0-0" or sent < 10:
            sent += 1
            send_file(handler, CONTENT)
        else:
            sent = 0
            handler.close_connection = True

    with WebServer(breaks).running() as web:
        # Each try brings a few parts of 64 KiB, less than what counts as getting on: there are many.
        bounds = HASTY.__class__(pause=0.01, part=64 << 10, parts=1, attempts=100)
        assert fetch(Wanted(web.url), tmp_path, bounds=bounds).path.read_bytes() == CONTENT
    starts = [headers["range"] for _, headers in web.asked if headers["range"] != "bytes=0-0"]
    assert max(starts.count(start) for start in starts) <= 2


def test_a_process_that_is_killed_leaves_what_the_next_one_goes_on_with(tmp_path: Path) -> None:
    half = threading.Event()
    served = 0

    def stalls(handler: Handler) -> None:
        nonlocal served
        served += 1
        if served > 25:
            half.set()
            threading.Event().wait(30)
        send_file(handler, CONTENT)

    code = (
        "import sys, pathlib\n"
        "from kohort_server.source.fetch import Wanted, fetch\n"
        "from tests.component.source_servers import HASTY\n"
        "fetch(Wanted(sys.argv[1]), pathlib.Path(sys.argv[2]), bounds=HASTY)\n"
    )
    server = WebServer(stalls)
    with server.running() as web:
        first = subprocess.Popen([sys.executable, "-c", code, web.url, str(tmp_path)])
        assert half.wait(60)
        first.kill()
        first.wait()
        server.answer = lambda handler: send_file(handler, CONTENT)
        web.asked.clear()
        assert fetch(Wanted(web.url), tmp_path, bounds=HASTY).path.read_bytes() == CONTENT
    assert "bytes=0-65535" not in [headers["range"] for _, headers in web.asked]


def test_a_file_that_changes_while_it_comes_is_fetched_anew(tmp_path: Path) -> None:
    asked = 0

    def changing(handler: Handler) -> None:
        nonlocal asked
        asked += 1
        send_file(handler, CONTENT if asked < 12 else CONTENT[::-1])

    with WebServer(changing).running() as web:
        fetched = fetch(Wanted(web.url), tmp_path, bounds=HASTY)
        assert fetched.path.read_bytes() == CONTENT[::-1]
        assert left(tmp_path / "downloads") == []


def test_a_file_that_always_changes_is_told(tmp_path: Path) -> None:
    count = 0

    def changing(handler: Handler) -> None:
        nonlocal count
        count += 1
        send_file(handler, bytes([count % 251]) * 500_000)

    with WebServer(changing).running() as web, pytest.raises(StartFailure) as raised:
        fetch(Wanted(web.url), tmp_path, bounds=HASTY)
    reason, message = told(raised.value)
    assert reason == FailureReason.DOWNLOAD_FAILED
    assert "changed while it was downloaded (3 times); wait until it is published" in message


def header_only(handler: Handler, length: int, sent: bytes) -> None:
    handler.close_connection = True
    send(handler, 200, sent, Content_Length=str(length))


def no_http(handler: Handler) -> None:
    handler.close_connection = True
    handler.wfile.write(b"220 ftp ready\r\n")


BAD: dict[str, tuple[Callable[[Handler], None], FailureReason, str]] = {
    "a body that is cut short": (
        lambda handler: header_only(handler, 5000, b"x" * 1024),
        FailureReason.DOWNLOAD_FAILED,
        "(3 attempts); check that the source answers",
    ),
    "10 GB that are announced, of which 1 KB comes": (
        lambda handler: header_only(handler, 10 << 30, b"x" * 1024),
        FailureReason.DOWNLOAD_FAILED,
        "larger than the limit",
    ),
    "bytes without an end": (endless, FailureReason.DOWNLOAD_FAILED, "larger than the limit"),
    "a sender that is too slow": (slow, FailureReason.DOWNLOAD_FAILED, "less than 1,000 a second"),
    "redirects without an end": (
        lambda handler: send(handler, 302, Location=f"{handler.path}x"),
        FailureReason.DOWNLOAD_FAILED,
        "redirects more than 5 times",
    ),
    "a redirect to a file of the machine": (
        lambda handler: send(handler, 302, Location="file:///etc/passwd"),
        FailureReason.DOWNLOAD_FAILED,
        "redirects to file:///etc/passwd, which is not https",
    ),
    "what is not there": (
        lambda handler: send(handler, 404),
        FailureReason.MODEL_NOT_FOUND,
        "404 Not Found; check model.uri",
    ),
    "what may not be read": (
        lambda handler: send(handler, 403),
        FailureReason.ACCESS_DENIED,
        "403 Forbidden; check that the model may be read from here, and model.secretRef",
    ),
    "a server that is broken": (
        lambda handler: send(handler, 500),
        FailureReason.DOWNLOAD_FAILED,
        "500 Internal Server Error (3 attempts)",
    ),
    "an answer that is no HTTP": (
        no_http,
        FailureReason.DOWNLOAD_FAILED,
        "(3 attempts)",
    ),
    "another part than was asked for": (
        lambda handler: send(
            handler, 206, b"x" * 10, Content_Range="bytes 7-16/500000", ETag='"1"'
        ),
        FailureReason.DOWNLOAD_FAILED,
        "the server sends another part",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_had_is_told_and_nothing_is_kept(tmp_path: Path, case: str) -> None:
    answer, reason, message = BAD[case]
    bounds = HASTY.__class__(
        size=2 << 20, pause=0.01, slow_seconds=0.5, least_speed=1000, part=64 << 10
    )
    with WebServer(answer).running() as web, pytest.raises(StartFailure) as raised:
        fetch(Wanted(f"{web.url}/model.onnx?signature=hidden"), tmp_path, bounds=bounds)
    assert told(raised.value)[0] == reason
    assert message in told(raised.value)[1]
    assert "hidden" not in told(raised.value)[1]
    assert left(tmp_path) == []


def test_another_content_than_its_digest_says_is_refused(tmp_path: Path) -> None:
    wanted = "sha256:" + "1" * 64
    with (
        WebServer(lambda handler: send_file(handler, CONTENT)).running() as web,
        pytest.raises(StartFailure) as raised,
    ):
        fetch(Wanted(web.url, wanted), tmp_path, bounds=HASTY)
    assert told(raised.value)[0] == FailureReason.DIGEST_MISMATCH
    assert wanted in told(raised.value)[1]
    assert sha256(CONTENT) in told(raised.value)[1]
    assert left(tmp_path) == []


def test_a_host_that_is_down_is_told_without_the_names_of_objects(tmp_path: Path) -> None:
    with pytest.raises(StartFailure) as raised:
        fetch(Wanted("http://127.0.0.1:1/m"), tmp_path, bounds=HASTY)
    assert told(raised.value) == (
        FailureReason.DOWNLOAD_FAILED,
        "http://127.0.0.1:1/m: Failed to establish a new connection: [Errno 111] "
        "Connection refused (3 attempts); check that the source answers from here",
    )


def test_credentials_go_to_their_own_host_only(tmp_path: Path) -> None:
    credentials = secret(tmp_path / "secret", username="ada", password="lovelace")
    with WebServer(lambda handler: send_file(handler, CONTENT)).running("127.0.0.2") as other:
        here = WebServer(lambda handler: send(handler, 307, Location=f"{other.url}/content"))
        with here.running() as web:
            fetch(Wanted(web.url, credentials=credentials), tmp_path / "cache", bounds=HASTY)
    assert {headers["authorization"] for _, headers in here.asked} == {"Basic YWRhOmxvdmVsYWNl"}
    assert not any("authorization" in headers for _, headers in other.asked)


def test_credentials_that_are_rotated_are_used_for_the_next_request(tmp_path: Path) -> None:
    credentials = secret(tmp_path / "secret", token="old")
    valid = "Bearer old"

    def guarded(handler: Handler) -> None:
        nonlocal valid
        if handler.headers.get("Authorization") != valid:
            send(handler, 401)
            return
        if handler.headers["Range"].startswith("bytes=1310720-"):
            secret(tmp_path / "secret", token="new")
            valid = "Bearer new"
        send_file(handler, CONTENT)

    with WebServer(guarded).running() as web:
        bounds = HASTY.__class__(pause=0.01, part=64 << 10, parts=1)
        wanted = Wanted(web.url, credentials=credentials)
        assert fetch(wanted, tmp_path / "cache", bounds=bounds).path.read_bytes() == CONTENT
        secret(tmp_path / "secret", token="stolen")
        with pytest.raises(StartFailure) as raised:
            fetch(wanted, tmp_path / "cache", bounds=bounds)
    assert told(raised.value)[0] == FailureReason.ACCESS_DENIED
    assert "stolen" not in told(raised.value)[1]


def test_credentials_that_would_add_a_header_are_refused_unseen(tmp_path: Path) -> None:
    credentials = secret(tmp_path / "secret", token="a\r\nX-Evil: b")
    with (
        WebServer(lambda handler: send_file(handler, CONTENT)).running() as web,
        pytest.raises(StartFailure) as raised,
    ):
        fetch(Wanted(web.url, credentials=credentials), tmp_path / "cache", bounds=HASTY)
    assert told(raised.value)[0] == FailureReason.ACCESS_DENIED
    assert "Evil" not in told(raised.value)[1]
    assert web.asked == []


def test_a_disk_without_room_is_told_before_anything_comes(tmp_path: Path) -> None:
    bounds = HASTY.__class__(pause=0.01, spare=1 << 60)
    with (
        WebServer(lambda handler: send_file(handler, CONTENT)).running() as web,
        pytest.raises(StartFailure) as raised,
    ):
        fetch(Wanted(web.url), tmp_path, bounds=bounds)
    assert told(raised.value)[0] == FailureReason.CACHE_UNUSABLE
    assert "give --cache-dir a volume with room" in told(raised.value)[1]
    assert [headers["range"] for _, headers in web.asked] == ["bytes=0-0"]


def test_what_was_used_least_recently_makes_room_and_what_is_in_use_stays(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from kohort_server.source.fetch import Wanted, fetch\n"
        "sys.stdout.write(fetch(Wanted(sys.argv[1]), pathlib.Path(sys.argv[2]), 5000000).digest)\n"
    )

    def other(handler: Handler) -> None:
        send_file(handler, handler.path.encode() + CONTENT)

    with WebServer(other).running() as web:
        mine = fetch(Wanted(f"{web.url}/0"), tmp_path, bounds=HASTY)
        digests = [
            subprocess.run(
                [sys.executable, "-c", code, f"{web.url}/{number}", str(tmp_path)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for number in (1, 2)
        ]
    kept = [Cache(tmp_path / "models").find(content_key(one)) is not None for one in digests]
    assert kept == [False, True]
    assert mine.path.exists()


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    code = (
        "import resource, sys, pathlib\n"
        "from kohort_server.source.fetch import Wanted, fetch\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "fetch(Wanted(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    content = bytes(400 << 20)
    with WebServer(lambda handler: send_file(handler, content)).running() as web:
        command = [sys.executable, "-c", code, web.url, str(tmp_path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 64 << 10  # KiB
