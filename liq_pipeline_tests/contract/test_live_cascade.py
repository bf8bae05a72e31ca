"""With no key at all: a crafted squeeze at a local venue goes through the live path and pages a person.

History by REST warms the percentiles, a polling round brings the squeeze, ticks score it, and the alert says that the
flow side is blind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from liq_pipeline.alerting.sending.delivery import deliver_due
from liq_pipeline.pipeline.tick import TickContext, run_tick
from liq_pipeline.settings import RiskSettings, Settings, SourceSettings
from liq_pipeline.sources.history.catchup import catch_up
from liq_pipeline.sources.polling.round import poll_due
from liq_pipeline_tests.alert_receiver import receiver
from liq_pipeline_tests.live_support import Reply, VenueServer, land_everything, rows, venue_server

STEP_MS, HOUR_MS = 300_000, 3_600_000
COINS, PRICE = 80_000.0, 60_000.0


def _noise(moment_ms: int, period_hours: float) -> float:
    """-1 .. 1, smooth, the same for the same moment."""
    hours = moment_ms / HOUR_MS
    return 0.7 * math.sin(2 * math.pi * hours / period_hours) + 0.3 * math.sin(2 * math.pi * hours / 0.71)


def serve_squeeze(server: VenueServer, now: datetime) -> None:
    """Quiet days, then two hours in which open interest rises by a fifth while the price stands still."""
    now_ms = int(now.timestamp() * 1000)

    def coins(t: int) -> float:
        rise = max(0.0, 1 - (now_ms - t) / (2 * HOUR_MS))
        return COINS * (1 + 0.01 * _noise(t, 7.3) + 0.2 * rise)

    def price(t: int) -> float:
        calm = min(1.0, max(0.0, (now_ms - t) / (4 * HOUR_MS) - 1))
        return PRICE * (1 + 0.01 * calm * _noise(t, 5.1))

    def history(path: str, t: int) -> Any:
        long = 0.55 + 0.03 * _noise(t, 9.7)
        if path.endswith("openInterestHist"):
            return {"sumOpenInterest": str(coins(t)), "sumOpenInterestValue": str(coins(t) * price(t)), "timestamp": t}
        if path.endswith("markPriceKlines"):
            return [t, "1", "1", "1", str(price(t + STEP_MS)), "0", t + STEP_MS - 1]
        if path.endswith("fundingRate"):
            return {"fundingRate": str(0.00005 + 0.00002 * _noise(t, 31)), "fundingTime": t, "markPrice": ""}
        return {"longAccount": str(long), "shortAccount": str(1 - long), "timestamp": t}

    def answer(source: str, path: str, query: dict[str, str]) -> Reply | None:
        if source != "binance":
            return None
        if "startTime" in query:
            first, last, limit = int(query["startTime"]), int(query["endTime"]), int(query["limit"])
            step = 8 * HOUR_MS if path.endswith("fundingRate") else STEP_MS
            times = list(range(-(-first // step) * step, last + 1, step))[:limit]
            return Reply([history(path, t) for t in times])
        moment = int(datetime.now(UTC).timestamp() * 1000)
        if path.endswith("premiumIndex"):
            crowded = {"symbol": "BTCUSDT", "markPrice": str(PRICE), "lastFundingRate": "0.0009", "time": moment}
            return Reply([{**crowded, "nextFundingTime": moment + HOUR_MS}])
        if path.endswith("openInterest"):
            return Reply({"symbol": "BTCUSDT", "openInterest": str(COINS * 1.21), "time": moment})
        if path.startswith("/futures/data/taker"):
            return Reply([{"buyVol": "9", "sellVol": "1", "timestamp": moment}])
        if path.startswith("/futures/data/"):
            return Reply([{"longAccount": "0.9", "shortAccount": "0.1", "timestamp": moment}])
        return None

    server.fault = answer


def _standing_at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


def test_a_squeeze_pages_a_person_and_says_that_the_flow_side_is_blind(
    database_url: str, kafka_server: str, topic_prefix: str, settings: Callable[..., Settings]
) -> None:
    now = datetime.now(UTC)
    with venue_server("binance") as server, receiver() as person:
        serve_squeeze(server, now)
        chosen = settings(
            mode="live",
            symbols=("BTC",),
            venues=("binance",),
            kafka_topic_prefix=topic_prefix,
            kafka_bootstrap_servers=kafka_server,
            alert_urls=(SecretStr(person.url),),
            risk=RiskSettings(lookback_hours=72, min_lookback_hours=48),
            sources=SourceSettings(urls=server.urls() | {"coingecko": server.url("nobody")}, round_seconds=8),
        )
        loaded = catch_up(chosen, database_url, kafka_server, now, look_back=timedelta(hours=110))
        assert loaded.failures == {}
        poll_due(database_url, kafka_server, chosen, now)
        polled = poll_due(database_url, kafka_server, chosen, now)
        assert "binance" not in polled.failures
        land_everything(database_url, kafka_server, topic_prefix)
        clock = datetime.now(UTC)
        for number in range(3):
            context = TickContext(
                database_url=database_url,
                bootstrap_servers=kafka_server,
                topic_prefix=topic_prefix,
                settings=chosen,
                wall_now=_standing_at(clock + timedelta(seconds=10 * number)),
            )
            result = run_tick(context, time_limit_seconds=60)
        assert result.points_scored == 1
        scored = rows(database_url, "SELECT * FROM liquidation_risk ORDER BY time DESC LIMIT 1")[0]
        signal = rows(database_url, "SELECT * FROM signals ORDER BY time DESC LIMIT 1")[0]
        deliver_due(database_url, chosen, clock + timedelta(minutes=1))
        received = [str(message) for message in person.messages]
    assert scored["side"] == "long"
    assert scored["liquidation_points"] is None  # no stream here: unknown, not zero
    assert scored["coverage"] > 0.5
    assert scored["score"] > 50
    assert signal["severity"] in ("WARNING", "CRITICAL")
    assert signal["flow_side_known"] is False
    pages = [message for message in received if "flow side blind" in message.lower()]
    assert pages, received
    assert any(signal["severity"] in page for page in pages)
