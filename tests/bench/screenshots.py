"""Pictures of the web view for the documents: ``python -m tests.bench.screenshots docs/pictures``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser

from tests.browser import browser
from tests.view_parts import many, opened, rolling, shown

WIDE, NARROW = 1200, 390
SHOTS: dict[str, tuple[str | None, Literal["light", "dark"], int]] = {
    "view-light": ("burger", "light", WIDE),
    "view-dark": ("burger", "dark", WIDE),
    "view-narrow": ("burger", "light", NARROW),
    "view-rolled-back": ("pizza", "light", WIDE),
    "view-list": (None, "light", WIDE),
    "view-list-narrow": (None, "dark", NARROW),
}


async def take(running: Browser, root: str, directory: Path, name: str) -> Path:
    """One picture of the whole page."""
    model, scheme, width = SHOTS[name]
    context = await running.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        timezone_id="UTC",
        locale="en-GB",
        reduced_motion="reduce",
    )
    page = await context.new_page()
    await page.goto(opened(root, "" if model is None else "shop", model))
    await page.locator("[data-state=live]").wait_for()
    await page.locator("section.cohort, table").first.wait_for()
    path = directory / f"{name}.png"
    await page.screenshot(path=path, full_page=True)
    await context.close()
    return path


async def main(directory: Path) -> None:
    """All pictures, into one directory."""
    async with browser() as running:
        for name, (model, _, _) in SHOTS.items():
            world = rolling() if model else many(12)
            async with shown(world) as root:
                print(await take(running, root, directory, name))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(target))
