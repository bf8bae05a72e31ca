"""Kraken Futures multi-collateral perpetuals (PF_): one call brings marks, funding and open interest of all.

Belongs here: Kraken's endpoints, names, units and limits. Does not: anything about other venues.

Units: open interest of PF_ contracts in coins. The tickers' fundingRate is ABSOLUTE, in USD per coin and hour: divided
by the index price it is a fraction per ONE hour; the history also gives relativeFundingRate, which already is one.
PI_ contracts are inverse and counted in USD: not used beside PF_. XBT is BTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from liq_pipeline.sources.http import RejectedError, Request, SourceError, ThrottledError
from liq_pipeline.sources.limits import Limit
from liq_pipeline.sources.live.base import (
    Feed,
    Instrument,
    InstrumentList,
    Reading,
    Source,
    coin_of,
    number,
    number_or_none,
    of_symbol,
    one_request,
    time_of_iso,
)

NAME = "kraken_futures"
# Granted: 500 cost units in 10 s for the derivatives API; public calls are cheap, the margin is wide.
REQUESTS = Limit("kraken_futures", 100, 10)
COST = {REQUESTS.scope: 1}
FUNDING_INTERVAL_HOURS = 1.0

TICKERS = Request("/derivatives/api/v3/tickers", costs=COST)


def classify(status: int, payload: Any) -> SourceError | None:
    """{"result": "error", "error": "apiLimitExceeded"} comes with HTTP 200."""
    if status != 200 or not isinstance(payload, dict) or payload.get("result") != "error":
        return None
    error = str(payload.get("error", ""))[:100]
    if error == "apiLimitExceeded":
        return ThrottledError(NAME, "asked too often")
    return RejectedError(NAME, error)


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    for row in answers[0]["tickers"]:
        native = row["symbol"]
        if row.get("tag") != "perpetual" or not native.startswith("PF_") or not native.endswith("USD"):
            continue
        symbol, coins = coin_of(native[3:-3])
        yield Instrument(symbol, native, coins, funding_interval_hours=FUNDING_INTERVAL_HOURS)


def _wanted(payload: Any, reading: Reading) -> list[Any]:
    return [row for row in payload["tickers"] if row.get("symbol") in reading.instruments and not row.get("suspended")]


def _marks(payload: Any, reading: Reading) -> None:
    moment = time_of_iso(payload["serverTime"])

    def row(entry: Any) -> None:
        reading.price(reading.instruments[entry["symbol"]], number(entry["markPrice"]), moment)

    reading.each(_wanted(payload, reading), row)


def _open_interest(payload: Any, reading: Reading) -> None:
    moment = time_of_iso(payload["serverTime"])

    def row(entry: Any) -> None:
        instrument = reading.instruments[entry["symbol"]]
        reading.open_interest(
            instrument,
            moment,
            coins=number(entry["openInterest"]),
            mark_usd=number(entry["markPrice"]) / instrument.coins_per_unit,
        )

    reading.each(_wanted(payload, reading), row)


def _funding(payload: Any, reading: Reading) -> None:
    moment = time_of_iso(payload["serverTime"])

    def row(entry: Any) -> None:
        absolute = number_or_none(entry.get("fundingRate"))
        if absolute is not None:
            reading.funding(
                reading.instruments[entry["symbol"]],
                "predicted",
                absolute / number(entry["indexPrice"]),
                FUNDING_INTERVAL_HOURS,
                moment,
                native_mark=number(entry["markPrice"]),
            )

    reading.each(_wanted(payload, reading), row)


def _settled(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.funding(
            reading.asked,
            "settled",
            number(entry["relativeFundingRate"]),
            FUNDING_INTERVAL_HOURS,
            time_of_iso(entry["timestamp"]),
        )

    # Years come each time: the newest few rows heal what a missed poll left out.
    reading.each(sorted(payload["rates"], key=lambda row: str(row["timestamp"]))[-3:], row)


SOURCE = Source(
    name=NAME,
    rest_url="https://futures.kraken.com",
    limits=(REQUESTS,),
    offers=("prices", "funding_rates", "open_interest"),
    probe=Request("/derivatives/api/v3/tickers/PF_XBTUSD", costs=COST),
    classify=classify,
    instruments=InstrumentList((TICKERS,), _instruments),
    feeds=(
        Feed("mark_price", ("prices",), "market", one_request(TICKERS), _marks),
        Feed("open_interest", ("open_interest",), "market", one_request(TICKERS), _open_interest),
        Feed("funding", ("funding_rates",), "funding", one_request(TICKERS), _funding),
        Feed(
            "settled_funding",
            ("funding_rates",),
            "settled",
            of_symbol(
                lambda native: Request("/derivatives/api/v4/historicalfundingrates", {"symbol": native}, costs=COST)
            ),
            _settled,
            per_symbol=True,
        ),
    ),
)
