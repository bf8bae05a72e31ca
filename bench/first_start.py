"""How long after a first start are the scores warm? Venues with 30 days of history, real budgets, real servers.

Belongs here: the time until no coin is warming, and whether live records wait meanwhile. Does not: the venues' forms
(liq_pipeline_tests/past_support.py).

Every venue that serves history answers after 50 ms; the budgets are those in force against the real ones, of which
history may use LIQ_SOURCE_HISTORY_BUDGET_SHARE. Beside the catch-up, live records come every 10 s and a tick lands and
scores them. The baseline is the length of the same tick once the catch-up has ended. Warm means that funding, open
interest and long/short are known for every coin; liquidations have no past that could be loaded. With the default
the catch-up is ended after two minutes; --minutes=8 lets it load all 30 days.

    python -m bench first_start [--minutes=2]
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.landing import servers
from liq_pipeline.bus.admin import ensure_topics
from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.domain.records import FundingRate, LongShortRatio, OpenInterest, Price, Record
from liq_pipeline.pipeline.tick import TickContext, run_tick
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.history.catchup import catch_up
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests import past_support as market
from liq_pipeline_tests.live_support import Reply, venue_server

COINS = ("BTC", "PEPE")
ANSWER_SECONDS = 0.05
TICK_SECONDS = 10
MANY = 50
BASELINE_TICKS = 6


def live_records(moment: datetime) -> list[Record]:
    """One polling round of all venues and coins."""
    found: list[Record] = []
    for venue in market.VENUES:
        second = moment.timestamp()
        common: dict[str, Any] = {
            "schema_version": 1,
            "event_time": moment,
            "received_at": moment,
            "origin": "live",
            "world": "real",
            "venue": venue,
        }
        for coin in COINS:
            price, coins = market.price(venue, second), market.interest(venue, second)
            rate, share = market.settled(venue, second), market.long_share(venue, second)
            found += [
                Price(**common, symbol=coin, price_usd=price),
                OpenInterest(**common, symbol=coin, open_interest_base=coins, open_interest_usd=coins * price),
                FundingRate(**common, symbol=coin, kind="predicted", rate=rate, interval_hours=8.0),
            ]
            if "accounts" in market.SERVES[venue]:
                shares: dict[str, Any] = {"long_share": share, "short_share": 1 - share, "ratio": share / (1 - share)}
                found.append(LongShortRatio(**common, symbol=coin, kind="accounts", period_minutes=5, **shares))
    return found


def warm_coins(database_url: str) -> int:
    """Coins whose newest score knows all that a past can be loaded for."""
    with connect(database_url) as conn:
        row = conn.execute(
            "SELECT count(*) FROM (SELECT DISTINCT ON (symbol) * FROM liquidation_risk ORDER BY symbol, time DESC) AS r"
            " WHERE funding_points IS NOT NULL AND open_interest_points IS NOT NULL AND long_short_points IS NOT NULL"
        ).fetchone()
    return int(row[0]) if row else 0


def minutes_of_budget(settings: Settings, coins: int, days: float) -> tuple[str, float]:
    """(scope, minutes) of the slowest budget, were `days` of history to be loaded for so many coins."""
    spent: dict[str, float] = {}
    scopes: dict[str, Limit] = {}
    now = datetime.now(UTC)
    for venue in market.VENUES:
        source = registry.SOURCES[venue]
        scopes |= source.limits_in_force(settings)
        instrument = Instrument("BTC", "BTCUSDT", 1.0)
        for history in source.histories:
            if not history.is_scored:
                continue
            pages = max(1.0, timedelta(days=days) / history.page)
            for scope, cost in history.request(instrument, now - history.page, now).costs.items():
                spent[scope] = spent.get(scope, 0.0) + pages * cost * coins
    share = settings.sources.history_budget_share
    minutes = {s: spent[s] * scopes[s].window_seconds / (scopes[s].capacity * share) / 60 for s in spent}
    slowest = max(minutes, key=lambda scope: minutes[scope])
    return slowest, minutes[slowest]


def main(arguments: list[str]) -> None:
    """Start from nothing, and print when what was there."""
    parser = argparse.ArgumentParser(prog="bench first_start", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="end the catch-up after so long")
    options, _ = parser.parse_known_args(arguments)
    with servers() as (postgres, kafka), venue_server(*market.VENUES) as server:
        url = postgres.ensure_database("first_start")
        migrate(url)
        ensure_topics(kafka)
        venues = market.HistoryServer(server, datetime.now(UTC) + timedelta(hours=1))
        answer = server.fault

        def slowly(source: str, path: str, query: dict[str, str]) -> Reply | None:
            reply = answer(source, path, query) if answer is not None else None
            return None if reply is None else Reply(reply.body, delay_seconds=ANSWER_SECONDS)

        server.fault = slowly
        settings = Settings(
            mode="live",
            symbols=COINS,
            venues=market.VENUES,
            sources=SourceSettings(urls=server.urls() | {"coingecko": server.url("nobody")}),
        )
        with connect(url) as conn:
            worlds.register(conn, registry.real_world(settings), activate=True)
        begun = time.monotonic()
        loaded: dict[str, Any] = {}
        stop = threading.Event()

        def load() -> None:
            loaded["result"] = catch_up(settings, url, kafka, datetime.now(UTC), stop=stop)
            loaded["seconds"] = time.monotonic() - begun

        worker = threading.Thread(target=load, daemon=True)
        worker.start()
        during: list[float] = []
        after: list[float] = []
        warm: float | None = None
        with RecordProducer(kafka) as producer:
            while len(after) < BASELINE_TICKS:
                if time.monotonic() - begun > options.minutes * 60:
                    stop.set()
                time.sleep(TICK_SECONDS - time.time() % TICK_SECONDS)
                for record in live_records(datetime.now(UTC).replace(microsecond=0)):
                    producer.send(record)
                producer.flush(30)
                started = time.monotonic()
                run_tick(TickContext(database_url=url, bootstrap_servers=kafka, topic_prefix="", settings=settings))
                (during if "seconds" not in loaded else after).append(time.monotonic() - started)
                if warm is None and warm_coins(url) == len(COINS):
                    warm = time.monotonic() - begun
        worker.join()
        result = loaded["result"]
        rows = sum(result.records.values())
        print(f"{len(COINS)} coins, {len(market.VENUES)} venues, {ANSWER_SECONDS * 1000:.0f} ms an answer")
        print(f"  all coins warm after            {'never' if warm is None else f'{warm:.0f} s'}")
        ended = "catch-up ended by the bench" if stop.is_set() else "30 days loaded after"
        print(f"  {ended:31} {loaded['seconds']:.0f} s ({rows:,} rows, {result.failures or 'no failure'})")
        if during:
            print(
                f"  tick while history comes        median {statistics.median(during):.2f} s, worst {max(during):.2f} s"
            )
        if during and after:
            ratio = statistics.median(during) / statistics.median(after)
            print(f"  tick afterwards (baseline)      median {statistics.median(after):.2f} s, ratio {ratio:.2f}")
        for coins in (len(COINS), MANY):
            scope, minutes = minutes_of_budget(settings, coins, 5)
            print(f"  by the budgets alone, {coins:2d} coins: percentiles stand after {minutes:.1f} min ({scope})")
        print(f"  asked: {len(venues.asked):,} requests")
