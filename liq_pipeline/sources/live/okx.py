"""OKX USDT swaps: marks, funding, open interest, three long/short ratios, liquidations by websocket and REST.

Belongs here: OKX's endpoints, names, units and limits. Does not: anything about other venues.

Units: `oi` is contracts, `oiCcy` coins, `oiUsd` USD; liquidation sizes `sz` are CONTRACTS (times ctVal: BTC 0.01).
Funding is a fraction until fundingTime; the interval in force is nextFundingTime - fundingTime.
Liquidations: `side` is the ORDER's side; posSide names the position where the account is in long/short mode, and in
net mode a sell closes a long. A message carries several details, and all count. The websocket shows about one event
per contract and second and REST the last day of the same list, so both are samples.
The long/short endpoints per contract end in `-contract`; those without it are sums over a coin's contracts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from liq_pipeline.sources.access.http import (
    RejectedError,
    Request,
    SourceError,
    ThrottledError,
    TransientError,
    UnknownSymbolError,
)
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.live.base import (
    Feed,
    History,
    InstrumentList,
    LongShortKind,
    Reading,
    Source,
    Stream,
    of_symbol,
    one_request,
    settled_intervals,
)
from liq_pipeline.sources.live.instruments import Instrument, coin_of
from liq_pipeline.sources.live.series import read_closes
from liq_pipeline.sources.live.values import ShapeError, milliseconds, number, number_or_none, time_of_ms

NAME = "okx"
# Granted per IP and 2 s: public data 20 (mark price, open interest, instruments), funding 10, rubik statistics 5,
# liquidation orders 40 (some clients count 20), candles 20. A tenth at least is left to others.
PUBLIC = Limit("okx_public", 18, 2)
FUNDING = Limit("okx_funding", 9, 2)
RUBIK = Limit("okx_rubik", 5, 2)
LIQUIDATIONS = Limit("okx_liquidations", 18, 2)
CANDLES = Limit("okx_candles", 18, 2)

SOURCE_TOPIC = "liquidation-orders"


def classify(status: int, payload: Any) -> SourceError | None:
    """`code` of the envelope, a text; "0" is success."""
    code = payload.get("code") if isinstance(payload, dict) else None
    if code in (None, "0"):
        return None
    if code in ("50011", "50061"):
        return ThrottledError(NAME, f"code {code}: asked too often")
    if code in ("50026", "50001", "50004", "50013"):
        return TransientError(NAME, f"code {code}: the system is busy or away")
    if code == "51001":
        return UnknownSymbolError(NAME, "the symbol is not listed")
    if status in (401, 403, 451):
        return None
    return RejectedError(NAME, f"code {code}: {str(payload.get('msg', ''))[:100]}")


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    for row in answers[0]["data"]:
        if row["ctType"] != "linear" or row["settleCcy"] != "USDT" or row["state"] != "live":
            continue
        symbol, coins = coin_of(row["ctValCcy"])
        per_contract = number(row["ctVal"]) * number(row["ctMult"] or 1)
        yield Instrument(symbol, row["instId"], coins, units_per_contract=per_contract)


def _marks(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["instId"])
        if instrument is not None:
            reading.price(instrument, number(entry["markPx"]), time_of_ms(entry["ts"]))

    reading.each(payload["data"], row)


def _funding(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["instId"])
        if instrument is None or entry["fundingRate"] == "":
            return
        due, after = time_of_ms(entry["fundingTime"]), time_of_ms(entry["nextFundingTime"])
        hours = (after - due).total_seconds() / 3600
        reading.funding(
            instrument,
            "predicted",
            number(entry["fundingRate"]),
            hours if hours > 0 else None,
            time_of_ms(entry["ts"]) if entry.get("ts") else None,
            next_funding_time=due,
        )

    reading.each(payload["data"], row)


def _settled(payload: Any, reading: Reading) -> None:
    rows = sorted(payload["data"], key=lambda row: int(row["fundingTime"]))
    times = [time_of_ms(row["fundingTime"]) for row in rows]
    # OKX names no interval outside the current rate: a single row's stays unknown and is left out.
    intervals = settled_intervals(times, None)
    if len(intervals) > 1:
        intervals[0] = intervals[1]
    for row, moment, hours in zip(rows, times, intervals, strict=True):
        # realizedRate is what was paid; it is empty in old rows.
        rate = number_or_none(row.get("realizedRate"))
        reading.funding(reading.asked, "settled", number(row["fundingRate"]) if rate is None else rate, hours, moment)


def _open_interest(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        instrument = reading.instruments.get(entry["instId"])
        if instrument is not None:
            reading.open_interest(
                instrument,
                time_of_ms(entry["ts"]),
                coins=number(entry["oiCcy"]),
                usd=number_or_none(entry.get("oiUsd")),
                mark_usd=reading.marks.get(instrument.symbol),
            )

    reading.each(payload["data"], row)


def _open_interest_history(payload: Any, reading: Reading) -> None:
    # [ts, contracts, coins, USD]
    def row(entry: Any) -> None:
        reading.open_interest(reading.asked, time_of_ms(entry[0]), coins=number(entry[2]), usd=number(entry[3]))

    reading.each(payload["data"], row)


def _long_short(kind: LongShortKind) -> Callable[[Any, Reading], None]:
    def parse(payload: Any, reading: Reading) -> None:
        # [ts, long / short]
        def row(entry: Any) -> None:
            reading.long_short(reading.asked, kind, number(entry[1]), 1.0, time_of_ms(entry[0]))

        reading.each(payload["data"], row)

    return parse


def _mark_candles(payload: Any, reading: Reading) -> None:
    # The sixth value is "1" once the bar is finished.
    read_closes([bar for bar in payload["data"] if bar[5] == "1"], reading)


def parse_liquidations(payload: Any, reading: Reading) -> None:
    """The `data` of the websocket channel and of the REST list, which have one form."""

    def family(entry: Any) -> None:
        instrument = reading.instruments.get(entry["instId"])
        if instrument is None:
            return
        seen: Counter[str] = Counter()

        def detail(event: Any) -> None:
            content = f"{entry['instId']}-{event['ts']}-{event['side']}-{event['sz']}-{event['bkPx']}"
            seen[content] += 1
            reading.liquidation(
                instrument,
                time_of_ms(event["ts"]),
                event_id=f"{content}-{seen[content]}",
                side=_position(event),
                native_price=number(event["bkPx"]),
                contracts=number(event["sz"]),
                is_sample=True,
                source_topic=SOURCE_TOPIC,
            )

        reading.each(entry["details"], detail)

    reading.each(payload["data"], family)


def _position(event: Any) -> Any:
    position = event.get("posSide")
    if position in ("long", "short"):
        return position
    if event["side"] not in ("sell", "buy"):
        raise ShapeError(f"{event['side']!r} is no side of an order")
    return "long" if event["side"] == "sell" else "short"


def parse_stream(message: Any, reading: Reading) -> None:
    """One websocket message; confirmations and pongs are ignored."""
    if isinstance(message, dict) and message.get("arg", {}).get("channel") == SOURCE_TOPIC and "data" in message:
        parse_liquidations(message, reading)


def _subscribe(instruments: Sequence[Instrument]) -> list[str]:
    message = {"op": "subscribe", "args": [{"channel": SOURCE_TOPIC, "instType": "SWAP"}]}
    return [msgspec.json.encode(message).decode()] if instruments else []


def _confirms(message: Any) -> bool:
    return isinstance(message, dict) and message.get("event") == "subscribe"


def _refusal(message: Any) -> str | None:
    if isinstance(message, dict) and message.get("event") == "error":
        return f"code {message.get('code')}: {str(message.get('msg', ''))[:100]}"
    return None


def _family(native: str) -> str:
    return native.removesuffix("-SWAP")


def _rubik(path: str) -> Callable[[str], Request]:
    return lambda native: Request(
        f"/api/v5/rubik/stat/contracts/{path}",
        {"instId": native, "period": "5m", "limit": 3},
        costs={RUBIK.scope: 1},
    )


def _page(path: str, scope: str, start_name: str, end_name: str, **extra: str | int) -> Callable[..., Request]:
    def request(instrument: Instrument, start: datetime, end: datetime) -> Request:
        # Both ends are exclusive at OKX: one millisecond earlier makes the start inclusive.
        times = {start_name: milliseconds(start) - 1, end_name: milliseconds(end)}
        return Request(path, {"instId": instrument.native, **times, **extra}, costs={scope: 1})

    return request


def _ratio_feed(name: str, path: str, kind: LongShortKind) -> Feed:
    return Feed(
        name,
        ("long_short_ratio",),
        "long_short",
        of_symbol(_rubik(path)),
        _long_short(kind),
        per_symbol=True,
    )


_FIVE_MINUTES = timedelta(minutes=5)
ACCOUNTS = "long-short-account-ratio-contract"
TOP_ACCOUNTS = "long-short-account-ratio-contract-top-trader"
TOP_POSITIONS = "long-short-position-ratio-contract-top-trader"


def _ratio_history(name: str, path: str, kind: LongShortKind) -> History:
    return History(
        name=name,
        topic="long_short_ratio",
        kinds=(kind,),
        request=_page(
            f"/api/v5/rubik/stat/contracts/{path}",
            RUBIK.scope,
            "begin",
            "end",
            period="5m",
            limit=100,
        ),
        parse=_long_short(kind),
        page=_FIVE_MINUTES * 99,
        reaches_back=timedelta(days=30),
        declared_delay=_FIVE_MINUTES,
        step=_FIVE_MINUTES,
        is_scored=kind == "accounts",
    )


SOURCE = Source(
    name=NAME,
    rest_url="https://www.okx.com",
    ws_url="wss://ws.okx.com:8443",
    limits=(PUBLIC, FUNDING, RUBIK, LIQUIDATIONS, CANDLES),
    offers=("prices", "funding_rates", "open_interest", "long_short_ratio", "liquidations"),
    probe=Request(
        "/api/v5/public/mark-price",
        {"instType": "SWAP", "instId": "BTC-USDT-SWAP"},
        costs={PUBLIC.scope: 1},
    ),
    classify=classify,
    instruments=InstrumentList(
        (Request("/api/v5/public/instruments", {"instType": "SWAP"}, costs={PUBLIC.scope: 1}),), _instruments
    ),
    feeds=(
        Feed(
            "mark_price",
            ("prices",),
            "market",
            one_request(Request("/api/v5/public/mark-price", {"instType": "SWAP"}, costs={PUBLIC.scope: 1})),
            _marks,
        ),
        Feed(
            "open_interest",
            ("open_interest",),
            "market",
            one_request(Request("/api/v5/public/open-interest", {"instType": "SWAP"}, costs={PUBLIC.scope: 1})),
            _open_interest,
        ),
        Feed(
            "funding",
            ("funding_rates",),
            "funding",
            one_request(Request("/api/v5/public/funding-rate", {"instId": "ANY"}, costs={FUNDING.scope: 1})),
            _funding,
        ),
        _ratio_feed("long_short_accounts", ACCOUNTS, "accounts"),
        _ratio_feed("long_short_top_accounts", TOP_ACCOUNTS, "top_accounts"),
        _ratio_feed("long_short_top_positions", TOP_POSITIONS, "top_positions"),
        Feed(
            "settled_funding",
            ("funding_rates",),
            "settled",
            of_symbol(
                lambda native: Request(
                    "/api/v5/public/funding-rate-history",
                    {"instId": native, "limit": 3},
                    costs={FUNDING.scope: 1},
                )
            ),
            _settled,
            per_symbol=True,
        ),
    ),
    stream=Stream(
        path=lambda _: "/ws/v5/public",
        subscribe=_subscribe,
        parse=parse_stream,
        confirms=_confirms,
        refusal=_refusal,
        ping="ping",
    ),
    event_feeds=(
        Feed(
            "liquidation_orders",
            ("liquidations",),
            "market",
            of_symbol(
                lambda native: Request(
                    "/api/v5/public/liquidation-orders",
                    {"instType": "SWAP", "instFamily": _family(native), "state": "filled", "limit": 100},
                    costs={LIQUIDATIONS.scope: 1},
                )
            ),
            parse_liquidations,
            per_symbol=True,
        ),
    ),
    histories=(
        History(
            name="open_interest",
            topic="open_interest",
            request=_page(
                "/api/v5/rubik/stat/contracts/open-interest-history",
                RUBIK.scope,
                "begin",
                "end",
                period="5m",
                limit=100,
            ),
            parse=_open_interest_history,
            page=_FIVE_MINUTES * 99,
            reaches_back=timedelta(days=30),
            declared_delay=_FIVE_MINUTES,
            step=_FIVE_MINUTES,
        ),
        History(
            name="mark_price",
            topic="prices",
            # `after` asks for older and `before` for newer than: the names look swapped, the meaning is right.
            request=_page(
                "/api/v5/market/history-mark-price-candles",
                CANDLES.scope,
                "before",
                "after",
                bar="5m",
                limit=100,
            ),
            parse=_mark_candles,
            page=_FIVE_MINUTES * 99,
            reaches_back=timedelta(days=90),
            declared_delay=timedelta(seconds=5),
            step=_FIVE_MINUTES,
        ),
        History(
            name="settled_funding",
            topic="funding_rates",
            kinds=("settled",),
            request=_page("/api/v5/public/funding-rate-history", FUNDING.scope, "before", "after", limit=100),
            parse=_settled,
            page=timedelta(days=4),
            reaches_back=timedelta(days=90),
            declared_delay=timedelta(minutes=1),
            step=timedelta(hours=8),
        ),
        _ratio_history("long_short_accounts", ACCOUNTS, "accounts"),
        _ratio_history("long_short_top_accounts", TOP_ACCOUNTS, "top_accounts"),
        _ratio_history("long_short_top_positions", TOP_POSITIONS, "top_positions"),
    ),
)
