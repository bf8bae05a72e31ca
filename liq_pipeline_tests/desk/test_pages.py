"""The pages in a real browser: complete, quiet, current by themselves, usable by keyboard, on a phone, and offline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from liq_pipeline_tests.desk.support import EPOCH, WORLD, RunningDesk, desk
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


PAINTED = """(place, color) => {
  const pane = [...place.querySelectorAll("canvas")].sort((a, b) => b.width * b.height - a.width * a.height)[0];
  const pixels = pane.getContext("2d").getImageData(0, 0, pane.width, pane.height).data, found = [];
  for (let x = 0; x < pane.width; x++) {
    for (let y = 0; y < pane.height; y++) {
      const at = 4 * (y * pane.width + x);
      if (pixels[at + 3] > 60 && color.every((c, i) => Math.abs(c - pixels[at + i]) < 40)) {
        found.push(x / pane.width);
        break;
      }
    }
  }
  return found;
}"""
"""Where a colour stands in a chart, as shares of its width from the left."""
GREY, BLUE, VIOLET = [185, 193, 204], [47, 126, 216], [138, 99, 210]


def painted(page: Any, chart: str, color: list[int]) -> list[float]:
    place = page.query_selector(f"[data-chart={chart}]")
    place.scroll_into_view_if_needed()
    page.wait_for_function("place => place.querySelector('canvas') !== null", arg=place)
    script = f"([place, color]) => ({PAINTED})(place, color)"
    page.wait_for_function(f"given => ({script})(given).length > 0", arg=[place, color])
    return list(page.evaluate(script, [place, color]))


def test_a_world_of_twelve_minutes_shows_the_price_of_the_whole_span(
    own_url: str, tmp_path: Path, browser: Any
) -> None:
    """Before its first point there is one price per five minutes: candles without a body, a pixel wide."""
    with writing(own_url) as conn:
        for table in ("ticks", "signals", "liquidation_risk"):
            conn.execute(f"DELETE FROM {table} WHERE time > %s", [EPOCH + timedelta(minutes=12)])  # type: ignore[arg-type] # noqa: S608
    with desk(own_url, tmp_path) as running, opened(browser, running.url + "/symbols/BTC?range=6h") as page:
        line = painted(page, "prices", GREY)
        assert len([one for one in line if one < 0.93]) > 0.5 * 0.93 * page.evaluate(
            "document.querySelector('[data-chart=prices]').clientWidth - 80"
        )
        assert min(line) < 0.03
        # What is known of twelve minutes only stands at the end, where it belongs.
        assert min(painted(page, "probability", VIOLET)) > 0.93
        assert min(painted(page, "risk", BLUE)) > 0.93


def test_a_hole_and_what_is_unknown_are_holes_in_the_line(shared_desk: RunningDesk, browser: Any) -> None:
    def with_holes(route: Any) -> None:
        told = route.fetch().json()
        for row in told["data"]:
            hour = datetime.fromisoformat(row["time"]).hour
            row["risk_max"] = None if hour == 1 else row["risk_max"]
        told["data"] = [row for row in told["data"] if datetime.fromisoformat(row["time"]).hour != 4]
        route.fulfill(json=told)

    with opened(browser, shared_desk.url + "/symbols/BTC?range=6h") as page:
        page.route("**/symbols/BTC/risk?*", with_holes)
        page.reload()
        line = painted(page, "risk", BLUE)
        for first, last, is_known in ((0.02, 0.15, True), (0.19, 0.31, False), (0.36, 0.64, True), (0.69, 0.81, False)):
            there = [one for one in line if first < one < last]
            assert (len(there) > 10) is is_known, (first, last, len(there))
            assert is_known or not there


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


EVIL_WORLD = "recorded/<script>window.evil=1</script>';DROP TABLE alerts;--"
EVIL_SYMBOL = "<IMG SRC=X ONERROR=WINDOW.EVIL=1>'--"


def test_html_and_sql_in_names_of_worlds_and_symbols_stay_texts(own_url: str, tmp_path: Path, browser: Any) -> None:
    with writing(own_url) as conn:
        conn.execute("UPDATE worlds SET is_active = false")
        conn.execute(
            "INSERT INTO worlds (world, kind, is_active, market_step_seconds, flows_step_seconds, manifest)"
            " SELECT %s, 'recorded', true, market_step_seconds, flows_step_seconds,"
            " jsonb_set(manifest, '{symbols}', jsonb_build_array(%s::text)) FROM worlds WHERE world = %s",
            [EVIL_WORLD, EVIL_SYMBOL, WORLD],
        )
        for table in ("signals", "liquidation_risk", "ticks", "prices"):
            columns = [
                row[0]
                for row in conn.execute(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [table]
                )
                if row[0] not in ("world", "symbol", "created_at")
            ]
            names = ", ".join(columns)
            symbol = "" if table == "ticks" else "symbol, "
            what = "" if table == "ticks" else "%(symbol)s, "
            only = "" if table == "ticks" else "AND symbol = 'BTC'"
            conn.execute(
                f"INSERT INTO {table} (world, {symbol}{names}) SELECT %(evil)s, {what}{names} FROM {table}"  # type: ignore[arg-type] # noqa: S608
                f" WHERE world = %(world)s {only}",
                {"evil": EVIL_WORLD, "symbol": EVIL_SYMBOL, "world": WORLD},
            )
        alert = open_alert(conn, EVIL_SYMBOL)
        conn.execute("UPDATE alerts SET world = %s WHERE alert_id = %s", [EVIL_WORLD, alert])
        conn.execute("UPDATE alert_changes SET reason = '<script>window.evil=1</script>'")
    pages = ("/", f"/symbols/{quote(EVIL_SYMBOL, safe='')}", "/flows", "/alerts", f"/alerts/{alert}", "/health", "/api")
    with desk(own_url, tmp_path) as running:
        for path in pages:
            with opened(browser, running.url + path) as page:
                page.wait_for_function("() => document.querySelector('.live-state').dataset.state === 'live'")
                for place in page.query_selector_all("[data-chart]"):
                    place.scroll_into_view_if_needed()
                    page.wait_for_function("place => place.childElementCount > 0", arg=place)
                assert EVIL_WORLD in page.inner_text(".world.unreal"), path
                assert page.evaluate("window.evil") is None, path
                assert page.locator("main img, main script:not([type='application/json'])").count() == 0
                assert page.said == [], path
        with opened(browser, running.url) as page:
            page.wait_for_function("() => document.querySelector('.live-state').dataset.state === 'live'")
            with writing(own_url) as conn:
                another = open_alert(conn, EVIL_SYMBOL + "2")
                conn.execute("UPDATE alerts SET world = %s WHERE alert_id = %s", [EVIL_WORLD, another])
            page.wait_for_function("() => document.getElementById('said').textContent.includes('IMG SRC')")
            assert page.evaluate("window.evil") is None
        told = running.get("/api/v1/symbols")
        assert (told["world"], [row["symbol"] for row in told["data"]]) == (EVIL_WORLD, [EVIL_SYMBOL])
        assert running.get(f"/api/v1/alerts/{alert}")["data"]["alert"]["subject"] == EVIL_SYMBOL
        by_name = f"/api/v1/symbols?world={quote(EVIL_WORLD, safe='')}"
        assert running.get(by_name)["data"] == told["data"]
