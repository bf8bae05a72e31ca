"""The pages in a real browser: complete, quiet, current by themselves, usable by keyboard, on a phone, and offline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from liq_pipeline_tests.desk.support import RunningDesk, desk
from liq_pipeline_tests.desk.test_stream import commit_point, open_alert, writing

PAGES = ("/", "/symbols/BTC", "/symbols/BTC?range=6h", "/flows", "/alerts", "/quality", "/health", "/api")
MOST_BYTES = 400_000


@contextmanager
def opened(
    browser: Any, url: str, *, width: int = 1280, javascript: bool = True, scheme: str = "light"
) -> Iterator[Any]:
    """A page, loaded, with what it said on the console and every address that it asked."""
    context = browser.new_context(
        viewport={"width": width, "height": 850}, java_script_enabled=javascript, color_scheme=scheme
    )
    page = context.new_page()
    page.said, page.asked, page.sizes = [], [], []
    page.on("console", lambda message: page.said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.on(
        "requestfinished",
        lambda request: page.sizes.append(request.sizes()["responseBodySize"]) if "stream" not in request.url else None,
    )
    page.goto(url, wait_until="load")
    try:
        yield page
    finally:
        context.close()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_is_quiet_light_at_home_and_fits(
    shared_desk: RunningDesk, browser: Any, path: str, width: int, scheme: str
) -> None:
    with opened(browser, shared_desk.url + path, width=width, scheme=scheme) as page:
        page.wait_for_function("() => document.querySelector('.live-state').dataset.state === 'live'")
        for place in page.query_selector_all("[data-chart]"):
            place.scroll_into_view_if_needed()
            page.wait_for_function("place => place.childElementCount > 0", arg=place)
        assert page.said == []
        assert all(url.startswith(shared_desk.url) for url in page.asked), "nothing is loaded from elsewhere"
        assert sum(page.sizes) < MOST_BYTES
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), "wider than the screen"
        assert "NOT REAL" in page.inner_text(".world.unreal")
        red = page.evaluate("getComputedStyle(document.querySelector('.world.unreal')).backgroundColor")
        assert red in ("rgb(176, 0, 32)", "rgb(143, 10, 31)")


def test_charts_are_drawn_and_an_empty_one_says_so(shared_desk: RunningDesk, browser: Any) -> None:
    with opened(browser, shared_desk.url + "/symbols/BTC") as page:
        for place in page.query_selector_all("[data-chart]"):
            place.scroll_into_view_if_needed()
            page.wait_for_function("place => place.querySelector('canvas, .nothing') !== null", arg=place)
        assert page.query_selector_all("[data-chart] .nothing") == []
        assert len(page.query_selector_all("[data-chart]:has(canvas)")) == 7


def test_without_javascript_the_tables_are_there(shared_desk: RunningDesk, browser: Any) -> None:
    with opened(browser, shared_desk.url, javascript=False) as page:
        assert page.locator("table.market tbody tr").count() == 2
    with opened(browser, shared_desk.url + "/symbols/BTC", javascript=False) as page:
        assert page.locator("[data-live=hours] tbody tr").count() >= 7


def test_a_page_keeps_itself_current_without_asking_again_and_again(own_url: str, tmp_path: Path, browser: Any) -> None:
    with desk(own_url, tmp_path) as running, opened(browser, running.url) as page:
        page.wait_for_function("() => document.querySelector('.live-state').dataset.state === 'live'")
        page.wait_for_timeout(1500)
        before = len(page.asked)
        page.wait_for_timeout(2500)
        assert len(page.asked) == before, "no polling"
        commit_point(own_url, 1)
        page.wait_for_function("() => document.querySelector('[data-live=clock]').textContent.includes('06:01:00')")
        with writing(own_url) as conn:
            open_alert(conn, "<b>ETH</b>")
        page.wait_for_function("() => document.querySelector('.openalerts').textContent.includes('<b>ETH</b>')")
        assert "opened" in page.inner_text("#said")
        running.kill()
        page.wait_for_function("() => document.querySelector('.live-state').dataset.state === 'lost'")
        running.start()
        page.wait_for_function("() => document.querySelector('.live-state').dataset.state === 'live'", timeout=20_000)


def test_keyboard_alone_leads_from_the_market_to_an_acknowledged_alert(
    own_url: str, tmp_path: Path, browser: Any
) -> None:
    with desk(own_url, tmp_path) as running, opened(browser, running.url) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("j")
        assert page.evaluate("document.activeElement.id").startswith("s-")
        page.keyboard.press("g")
        page.keyboard.press("a")
        page.wait_for_url("**/alerts")
        page.wait_for_load_state()
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url("**/alerts/*")
        page.wait_for_load_state()
        page.focus("#by")
        page.keyboard.type("Ada")
        page.keyboard.press("Enter")
        page.wait_for_url("**acknowledged=1")
        assert "by Ada" in page.inner_text("main")
        assert page.said == []
