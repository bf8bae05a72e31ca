"""CoinGecko: the market's average price of every coin in one call.

Belongs here: CoinGecko's endpoints, names, keys and error forms. Does not: anything about exchanges.

The monthly budget decides the cadence: 10,000 calls are one every 4.5 minutes. Without a key the limit is shared per
address and unknown, so the same cadence holds. Errors come in three shapes; an unknown coin is silently absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import (
    RefusedError,
    RejectedError,
    Request,
    SourceError,
    ThrottledError,
    TransientError,
)
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.live.base import Feed, History, InstrumentList, Reading, Source
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.live.values import number, number_or_none, time_of_ms, time_of_seconds

NAME = "coingecko"
PER_MINUTE = "coingecko_minute"
PER_MONTH = "coingecko_month"
COST = {PER_MINUTE: 1, PER_MONTH: 1}
MONTH_SECONDS = 30 * 86_400
LEAST_SECONDS = 60.0
"""Answers are cached for a minute: asking more often brings nothing new."""
PRO_URL = "https://pro-api.coingecko.com/api/v3"

# 10002 no key, 10005 plan, 10010 and 10011 a key on the wrong host, 1020 blocked by the CDN.
_REFUSALS = {
    10002: "the key is missing",
    10005: "the plan does not include this",
    10010: "a pro key needs LIQ_SOURCE_COINGECKO_PLAN=pro",
    10011: "a demo key needs LIQ_SOURCE_COINGECKO_PLAN=demo",
    1020: "the CDN blocks this address",
}


def classify(status: int, payload: Any) -> SourceError | None:
    """{"error": text}, {"status": {...}} or {"error": {"status": {...}}}."""
    if not isinstance(payload, dict):
        return None
    error = payload.get("error")
    state = error.get("status") if isinstance(error, dict) else payload.get("status")
    if isinstance(state, dict) and "error_code" in state:
        code = state["error_code"]
        if code == 429:
            return ThrottledError(NAME, "asked too often")
        if code in _REFUSALS:
            return RefusedError(NAME, f"code {code}: {_REFUSALS[code]}")
        if isinstance(code, int) and 500 <= code < 600:
            return TransientError(NAME, f"code {code}")
        return RejectedError(NAME, f"code {code}: {str(state.get('error_message', ''))[:100]}")
    if isinstance(error, str) and status < 500 and status not in (401, 403, 429):
        return RejectedError(NAME, error[:100])
    return None


def credentials(settings: Settings) -> tuple[str | None, dict[str, str]]:
    """The host and the key's query parameter for the user's plan."""
    pro = settings.sources.coingecko_plan == "pro"
    key = settings.coingecko_api_key
    if key is None:
        return None, {}
    if pro:
        return PRO_URL, {"x_cg_pro_api_key": key.get_secret_value()}
    return None, {"x_cg_demo_api_key": key.get_secret_value()}


def limits_of(settings: Settings) -> tuple[Limit, ...]:
    """25 a minute stays below every figure the documentation has named; the month is the user's plan."""
    return (
        Limit(PER_MINUTE, 25, 60),
        Limit(PER_MONTH, settings.sources.coingecko_monthly_calls, MONTH_SECONDS),
    )


def cadence_seconds(settings: Settings) -> float:
    """Seconds between calls so that a month's budget lasts a month, a twentieth kept for restarts."""
    return max(LEAST_SECONDS, MONTH_SECONDS / settings.sources.coingecko_monthly_calls * 1.05)


def _coins(answers: Sequence[Any]) -> Iterable[Instrument]:
    # Sorted by market value: of several coins with one ticker, the largest is meant.
    seen: set[str] = set()
    for answer in answers:
        for row in answer:
            symbol = str(row["symbol"]).upper()
            if symbol not in seen:
                seen.add(symbol)
                yield Instrument(symbol, row["id"])


def _prices(payload: Any, reading: Reading) -> None:
    def row(item: tuple[str, Any]) -> None:
        name, entry = item
        instrument = reading.instruments.get(name)
        price = number_or_none(entry.get("usd"))
        if instrument is None or price is None:
            return
        reading.price(
            instrument,
            price,
            time_of_seconds(entry["last_updated_at"]),
            volume_24h_usd=number_or_none(entry.get("usd_24h_vol")),
            # 0 is CoinGecko's word for "not known".
            market_cap_usd=number_or_none(entry.get("usd_market_cap")) or None,
        )

    reading.each(list(payload.items()), row)


def _range_request(coin: Instrument, start: datetime, end: datetime) -> Request:
    # Seconds here, although the answer is in milliseconds; 2 to 90 days give a value an hour.
    times = {"from": int(start.timestamp()), "to": int(end.timestamp())}
    return Request(f"/coins/{coin.native}/market_chart/range", {"vs_currency": "usd", **times}, costs=COST)


def _range(payload: Any, reading: Reading) -> None:
    caps, volumes = dict(payload["market_caps"]), dict(payload["total_volumes"])

    def row(point: Any) -> None:
        stamp, price = point
        if price is not None:
            reading.price(
                reading.asked,
                number(price),
                time_of_ms(stamp),
                volume_24h_usd=number_or_none(volumes.get(stamp)),
                market_cap_usd=number_or_none(caps.get(stamp)) or None,
            )

    reading.each(payload["prices"], row)


def price_request(coins: Iterable[Instrument]) -> Request:
    """All coins in one call."""
    return Request(
        "/simple/price",
        {
            "ids": ",".join(sorted(coin.native for coin in coins)),
            "vs_currencies": "usd",
            "include_market_cap": "true",
            "include_24hr_vol": "true",
            "include_last_updated_at": "true",
            "precision": "full",
        },
        costs=COST,
    )


def _page(page: int) -> Request:
    order: dict[str, str | int] = {"vs_currency": "usd", "order": "market_cap_desc"}
    return Request("/coins/markets", {**order, "per_page": 250, "page": page}, costs=COST)


def _parse_prices(payload: Any, reading: Reading) -> None:
    _prices(payload, reading)
    absent = sorted(set(reading.instruments) - set(payload))
    if absent:
        reading.problems.append(f"no price for {', '.join(absent)}")


SOURCE = Source(
    name=NAME,
    rest_url="https://api.coingecko.com/api/v3",
    limits=(),
    limits_of=limits_of,
    credentials=credentials,
    # A second opinion on prices, too slow to be expected at the venues' cadence.
    offers=(),
    probe=Request("/ping", costs=COST),
    classify=classify,
    instruments=InstrumentList((_page(1), _page(2)), _coins, refresh_seconds=timedelta(days=7).total_seconds()),
    feeds=(
        Feed(
            "simple_price",
            ("prices",),
            "coingecko",
            lambda instruments, _now: price_request(instruments),
            _parse_prices,
        ),
    ),
    histories=(
        History(
            name="market_chart",
            topic="prices",
            request=_range_request,
            parse=_range,
            page=timedelta(days=30),
            # The demo plan's reach; further back is refused.
            reaches_back=timedelta(days=365),
            # A range is cached for half an hour.
            declared_delay=timedelta(minutes=30),
            step=timedelta(hours=1),
        ),
    ),
)
