"""The web view's page in a real Chromium: what people see, hear, and do with a keyboard."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from msgspec import structs
from playwright.async_api import Browser, Page, expect

from kohort.api.status import Decision
from tests.browser import browser
from tests.view_parts import KEY, many, opened, rolling, shown

expect.set_options(timeout=20_000)


@pytest_asyncio.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as running:
        yield running


@asynccontextmanager
async def opened_page(chromium: Browser, **options: Any) -> AsyncIterator[Page]:
    """A new page, which must run without an error, a violation of its policy, or a call elsewhere."""
    context = await chromium.new_context(timezone_id="UTC", locale="en-GB", **options)
    page = await context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console",
        lambda said: (
            wrong.append(said.text)
            if said.type == "error" and "Failed to load resource" not in said.text
            else None
        ),
    )
    page.on("request", lambda request: hosts.add(request.url.split("/")[2].split(":")[0]))
    yield page
    await context.close()
    assert wrong == []
    assert hosts <= {"127.0.0.1"}


async def focused(page: Page) -> str:
    """What the keyboard is at, in words."""
    text: str = await page.evaluate("document.activeElement.textContent.trim()")
    return text


async def test_a_rollout_is_read_like_a_page(chromium: Browser) -> None:
    async with shown(rolling()) as root, opened_page(chromium) as page:
        await page.goto(opened(root, "shop", "burger"))
        await expect(page.get_by_role("heading", level=1)).to_have_text("burger Analyzing")
        assert await page.title() == "burger · Analyzing · Kohort"
        cohorts = page.get_by_role("region")
        await expect(cohorts).to_have_count(4)  # three cohorts and the revisions
        shops = page.get_by_role("region", name="eu-shops")
        await expect(shops).to_contain_text("has 25% of its clients on v2 (step 2 of 3)")
        await expect(shops.locator("li[aria-current=step]")).to_have_text("25%, until NonInferior")
        chart = shops.get_by_role("img")
        label = await chart.get_attribute("aria-label")
        assert label is not None
        assert label.startswith("Share of clients by revision from 12:00:20 on")
        assert label.endswith("now 75% on v1, 25% on v2")
        evidence = shops.get_by_role("row", name="errors")
        await expect(evidence).to_contain_text("harm: 0% of what accuses it")
        await expect(shops).to_contain_text("The line begins at 12:00:20")
        # What is drawn can be read as well.
        await shops.get_by_text("Weights as a table").click()
        await expect(shops.get_by_role("row", name="75% on v1, 25% on v2")).to_be_visible()


async def test_the_key_leaves_the_address_and_works_after_a_reload(chromium: Browser) -> None:
    async with shown(rolling()) as root, opened_page(chromium) as page:
        await page.goto(opened(root, "shop", "burger"))
        await expect(page.get_by_role("heading", level=1)).to_contain_text("burger")
        assert page.url == f"{root}/#/shop/burger"
        await page.reload()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("burger")
        assert await page.context.cookies() == []
        assert await page.evaluate("localStorage.length") == 0


async def test_whoever_has_no_token_is_asked_for_one(chromium: Browser) -> None:
    async with shown(rolling()) as root, opened_page(chromium) as page:
        await page.goto(root)
        token = page.get_by_label("Bearer token")
        await expect(token).to_be_focused()
        await expect(page.get_by_role("alert")).to_have_count(0)
        await page.keyboard.type("wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("Open the address")
        await page.get_by_label("Bearer token").fill(KEY)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("link", name="burger")).to_be_visible()
        assert KEY not in page.url


async def test_changes_come_by_themselves_and_leave_the_reader_in_place(chromium: Browser) -> None:
    world = rolling()
    async with shown(world) as root, opened_page(chromium) as page:
        await page.goto(opened(root, "shop", "burger"))
        shops = page.get_by_role("region", name="eu-shops")
        await shops.get_by_text("Weights as a table").focus()
        await page.keyboard.press("Enter")
        await page.evaluate("document.activeElement.dataset.kept = 'yes'")
        while world.clusters["burger"].cohort("eu-shops").weight < 50:
            world.tick("burger")
        await expect(shops).to_contain_text("50% of its clients")
        await expect(shops.get_by_role("row", name="50% on v1, 50% on v2")).to_be_visible()
        assert await focused(page) == "Weights as a table"
        # People who listen are told as well.
        await expect(page.get_by_role("status")).to_contain_text("burger/eu-shops: Analyzing")


async def test_who_listens_is_told_what_matters_and_not_every_figure(chromium: Browser) -> None:
    world = rolling()
    async with shown(world) as root, opened_page(chromium) as page:
        await page.goto(opened(root, "shop", "burger"))
        await expect(page.get_by_role("heading", level=1)).to_contain_text("burger")
        await page.evaluate(
            """() => {
              const news = document.getElementById("news");
              window.said = [];
              new MutationObserver(() => said.push(news.textContent))
                .observe(news, {childList: true, characterData: true, subtree: true});
            }"""
        )
        evidence = page.get_by_role("region", name="eu-shops").get_by_role("row", name="errors")
        for _ in range(6):
            before = await evidence.text_content()
            world.tick("burger")
            if world.clusters["burger"].cohort("eu-shops").weight != 25:
                break
            await expect(evidence).not_to_have_text(before or "")
        said = await page.evaluate("window.said")
        assert len(said) <= 2, said


async def test_everything_is_reached_by_keyboard(chromium: Browser) -> None:
    async with shown(many(12)) as root, opened_page(chromium) as page:
        await page.goto(opened(root))
        await expect(page.get_by_role("link", name="burger")).to_be_visible()
        await page.keyboard.press("Tab")
        assert await focused(page) == "Skip to the rollouts"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await page.keyboard.press("/")
        await expect(page.get_by_label("Search by name")).to_be_focused()
        await page.keyboard.type("model")
        await expect(page.get_by_text("9 of 12 rollouts")).to_be_visible()
        await page.keyboard.press("ArrowDown")
        assert await focused(page) == "model-000"
        await page.keyboard.press("ArrowDown")
        assert await focused(page) == "model-001"
        await page.keyboard.press("End")
        assert await focused(page) == "model-008"
        await page.keyboard.press("ArrowDown")
        assert await focused(page) == "model-008"
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("model-008 Healthy")
        await expect(page.get_by_role("heading", level=1)).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Rollouts")
        assert page.url.endswith("#/?namespace=shop")


async def test_what_stands_in_a_cluster_is_never_read_as_html(chromium: Browser) -> None:
    world = rolling()
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>"\'&amp;'
    cluster = world.clusters["burger"]
    cohorts = tuple(
        structs.replace(
            cohort,
            message=evil,
            decisions=(
                Decision(action=evil[:32], revision=evil, at=evil, message=evil, by=evil, why=evil),
            ),
            evidence=tuple(structs.replace(e, metric=evil, message=evil) for e in cohort.evidence),
        )
        for cohort in cluster.status.cohorts
    )
    cluster.status = structs.replace(cluster.status, message=evil, cohorts=cohorts)
    world.clusters[evil] = world.clusters["salad"]
    world.wrong.append(evil)
    async with shown(world) as root, opened_page(chromium) as page:
        await page.goto(opened(root, "shop", "burger"))
        await expect(page.get_by_role("heading", level=1)).to_contain_text("burger")
        await expect(page.locator("main")).to_contain_text(evil)
        assert await page.locator("main img:not([role]), main script").count() == 0
        await page.goto(opened(root))
        await page.get_by_role("link", name="<img").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text(evil)
        assert await page.locator("main img, main script").count() == 0
        assert "Kohort" in await page.title()


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const luminance = (colour) => {
    const [r, g, b] = rgba(colour).map((v) => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (rgba(colour)[3]) return colour;
    }
    return "white";
  };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !e.getClientRects().length || e.closest(".unseen")) continue;
    const style = getComputedStyle(e);
    const ink = luminance(e instanceof SVGElement ? style.fill : style.color);
    const paper = luminance(ground(e));
    const ratio = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    if (ratio < 4.5) low.push(`${e.tagName} ${e.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_can_be_told_from_its_ground(
    scheme: Literal["light", "dark"], chromium: Browser
) -> None:
    world = rolling()
    world.wrong.append("the server is away")
    async with shown(world) as root, opened_page(chromium, color_scheme=scheme) as page:
        for name in ("burger", "pizza", None):
            await page.goto(opened(root, "shop", name))
            await expect(page.locator("[data-state=live]")).to_be_visible()
            await expect(page.locator(".problem")).to_be_visible()
            assert await page.evaluate(CONTRAST) == []
        ground = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        dark = max(map(int, re.findall(r"\d+", ground)[:3])) < 100
        assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [390, 1200])
async def test_nothing_is_in_the_way_of_assistive_technology(width: int, chromium: Browser) -> None:
    window = {"width": width, "height": 800}
    async with shown(rolling()) as root:
        async with opened_page(chromium, viewport=window) as page:
            for name in ("burger", "pizza", None):
                await page.goto(opened(root, "shop", name))
                await expect(page.locator("[data-state=live]")).to_be_visible()
                await expect(page.locator("section.cohort, table").first).to_be_visible()
                found = await Axe().run(page)
                assert found.violations_count == 0, found.generate_report()
        async with opened_page(chromium, viewport=window) as page:
            await page.goto(root)  # where one signs in
            await expect(page.get_by_label("Bearer token")).to_be_focused()
            found = await Axe().run(page)
            assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [320, 390, 800, 1600])
async def test_no_page_is_wider_than_its_window(width: int, chromium: Browser) -> None:
    window = {"width": width, "height": 700}
    async with shown(rolling()) as root, opened_page(chromium, viewport=window) as page:
        for name in ("burger", "pizza", None):
            await page.goto(opened(root, "shop", name))
            await expect(page.locator("[data-state=live]")).to_be_visible()
            await expect(page.locator("section.cohort, table").first).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("count", [1, 200])
async def test_one_rollout_and_two_hundred_are_listed(count: int, chromium: Browser) -> None:
    world = many(200)
    world.clusters = dict(list(world.clusters.items())[:count])
    async with shown(world) as root, opened_page(chromium) as page:
        await page.goto(opened(root))
        told = "1 rollout" if count == 1 else "200 rollouts"
        await expect(page.get_by_text(told, exact=True)).to_be_visible()
        await expect(page.get_by_role("table", name="Rollouts").get_by_role("row")).to_have_count(
            count + 1
        )


async def test_a_page_whose_server_is_gone_says_so_and_comes_back(chromium: Browser) -> None:
    world = rolling()
    async with opened_page(chromium) as page:
        async with shown(world) as root:
            await page.goto(opened(root, "shop", "burger"))
            await expect(page.locator("[data-state=live]")).to_be_visible()
        await expect(page.locator("[data-state=lost]")).to_contain_text("not live")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("burger")
        port = int(root.rpartition(":")[2])
        async with shown(world, port=port):
            await expect(page.locator("[data-state=live]")).to_be_visible(timeout=40_000)


async def test_a_rollout_that_is_deleted_is_said_to_be(chromium: Browser) -> None:
    world = rolling()
    async with shown(world) as root, opened_page(chromium) as page:
        await page.goto(opened(root, "shop", "pizza"))
        await expect(page.get_by_role("heading", level=1)).to_contain_text("pizza")
        del world.clusters["pizza"]
        world.feed.changed("shop", "pizza")
        await expect(page.get_by_role("alert")).to_have_text("pizza was deleted.")
        await page.get_by_role("link", name="Rollouts of this namespace").click()
        await expect(page.get_by_role("link", name="burger")).to_be_visible()


async def test_events_are_read_whole_however_they_are_cut(chromium: Browser) -> None:
    async with shown(rolling()) as root, opened_page(chromium) as page:
        await page.goto(opened(root))
        found = await page.evaluate(
            """async () => {
              const { eventReader, pauseAfter } = await import("./follow.js");
              const text = ':\\n\\nevent: seen\\ndata: {"a":"x: y"}\\n\\n:\\n\\nevent: gone\\ndata: {}\\n\\n';
              const results = new Set();
              for (let cut = 0; cut <= text.length; cut += 1) {
                const read = eventReader();
                results.add(JSON.stringify([...read(text.slice(0, cut)), ...read(text.slice(cut))]));
              }
              const pauses = [0, 1, 5, 100].map((failures) => pauseAfter(failures, 1));
              return [[...results], pauses];
            }"""
        )
        assert found == [
            ['[{"event":"seen","data":{"a":"x: y"}},{"event":"gone","data":{}}]'],
            [1000, 2000, 30_000, 30_000],
        ]


async def test_bands_of_weights_fill_the_chart_whatever_was_seen(chromium: Browser) -> None:
    async with shown(rolling()) as root, opened_page(chromium) as page:
        await page.goto(opened(root))
        wrong = await page.evaluate(
            """async () => {
              const { stretches, sharesOf, weightsChart } = await import("./charts.js");
              const wrong = [];
              for (let seed = 1; seed <= 300; seed += 1) {
                let state = seed;
                const random = (most) => { state = (state * 48271) % 2147483647; return state % most; };
                let at = 1e9;
                const points = Array.from({ length: 1 + random(30) }, () => {
                  const canary = ["", "v2", "v3"][random(3)];
                  return { at: at += random(100), stable: "v1", canary, weight: canary ? random(101) : 0 };
                });
                const parts = stretches(points, at + random(100));
                const whole = (part) => part.shares.reduce((sum, s) => sum + s.percent, 0) === 100;
                if (!parts.every(whole)) wrong.push(seed);
                if (parts.some((p, i) => i && p.from !== parts[i - 1].to)) wrong.push(seed);
                const drawn = weightsChart(points, [], at, 600);
                for (const band of drawn.querySelectorAll("rect")) {
                  const [x, y, w, h] = ["x", "y", "width", "height"]
                    .map((name) => Number(band.getAttribute(name)));
                  const inside = x >= 0 && y >= 0 && x + w <= 601 && y + h <= 131;
                  if (!inside || w <= 0 || h < 0) wrong.push(seed);
                }
              }
              return wrong;
            }"""
        )
        assert wrong == []
