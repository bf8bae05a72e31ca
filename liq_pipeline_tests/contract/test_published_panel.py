"""`liq evaluate --published`: archive files in their true format become rows of what was known at each time."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.panels import published
from liq_pipeline.evaluation.panels.panel import Panel, load_panel
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.archives import binance
from liq_pipeline_tests.archive_support import open_interest_at, price_at, serve_market, withdraw
from liq_pipeline_tests.live_support import VenueServer, venue_server

MakeSettings = Callable[..., Settings]
FIRST = datetime(2025, 12, 1, tzinfo=UTC)
LAST = FIRST + timedelta(days=2)
FIVE_MINUTES = timedelta(minutes=5)
COINS = ("BTC", "ETH")


def rebuilt(
    server: VenueServer, settings: MakeSettings, out: Path | None = None, symbols: tuple[str, ...] | None = None
) -> Panel:
    chosen = settings(sources=SourceSettings(urls={binance.NAME: server.url(binance.NAME)}))
    return published.published_panel(chosen, FIRST, LAST, out, symbols=symbols)


def test_each_cell_is_what_had_been_published_by_its_time_and_the_written_file_repeats_it(
    settings: MakeSettings, tmp_path: Path
) -> None:
    with venue_server() as server:
        server.serve(binance.NAME, {})
        serve_market(server, ("BTC", "ETH"), date(2025, 11, 30), date(2025, 12, 2))
        withdraw(server, binance.METRICS.path("ETHUSDT", FIRST + timedelta(days=1)))
        panel = rebuilt(server, settings, tmp_path, COINS)
        cached = rebuilt(server, settings, None, COINS)
    moments = [datetime.fromtimestamp(int(second), UTC) for second in panel.time]
    assert (moments[0], moments[-1], panel.step_seconds) == (FIRST, LAST - FIVE_MINUTES, 300)
    for place, symbol in enumerate(panel.symbols):
        # A candle is known seconds after its close: at its own end the one before it is the newest.
        expected = [price_at(symbol, moment - FIVE_MINUTES) for moment in moments]
        assert panel["price_usd"][place].tolist() == expected
    # Open interest is stamped when it was measured and known a bar later.
    expected = [open_interest_at("BTC", moment - FIVE_MINUTES) for moment in moments]
    assert panel["open_interest_base"][0].tolist() == expected
    # ETH's second day of metrics is not in the archive: unknown once the last value is too old, and said.
    assert np.isnan(panel["open_interest_base"][1][288 + 5 :]).all()
    assert "ETH metrics: 1 of the files are not in the archive" in panel.notes
    # The rate of 16:00 the day before; the one of midnight is known a minute later. Files round to eight decimals.
    settled = 1e-4 * math.sin((FIRST - timedelta(hours=8)).timestamp() / 90_000)
    assert panel["funding_rate_per_8h"][0, 0] == pytest.approx(settled, abs=1e-8)
    assert np.isnan(panel["long_liquidations_usd"]).all()  # nobody publishes them: unknown, not zero

    written = load_panel(tmp_path / "panel.parquet")
    for column, values in panel.columns.items():
        np.testing.assert_array_equal(written[column], values, err_msg=column)
        np.testing.assert_array_equal(cached[column], values, err_msg=column)


def test_an_archive_that_has_nothing_of_the_span_is_one_sentence(settings: MakeSettings) -> None:
    with venue_server() as server:
        server.serve(binance.NAME, {})
        with pytest.raises(LiqError, match=r"the archive has no price of ARB, .* from 2025-12-01 to 2025-12-03"):
            rebuilt(server, settings)
