"""Hyperliquid perpetuals: one call brings marks, funding and open interest of every coin.

Belongs here: Hyperliquid's endpoint, names, units and limits. Does not: anything about other venues.

Units: open interest in coins (whether one or both sides are counted is disputed: use its changes, never add it to
another venue's); funding as a fraction per ONE hour. kPEPE counts thousands.
metaAndAssetCtxs is two lists that match by INDEX; answers carry no time, so event_time is when we asked.
There is no public feed of liquidations and no history of open interest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from liq_pipeline.sources.access.http import BadAnswerError, Request, SourceError
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.live.base import Feed, History, InstrumentList, Reading, Source, one_request
from liq_pipeline.sources.live.instruments import Instrument, coin_of
from liq_pipeline.sources.live.values import ShapeError, milliseconds, number, time_of_ms

NAME = "hyperliquid"
# Granted: 1,200 weight a minute per IP; these calls weigh 20, fundingHistory one more per 20 rows.
WEIGHT = Limit("hyperliquid_weight", 900, 60)
FUNDING_INTERVAL_HOURS = 1.0
CONTEXTS = Request("/info", body={"type": "metaAndAssetCtxs"}, costs={WEIGHT.scope: 20})


def classify(status: int, payload: Any) -> SourceError | None:
    """null is the answer for an unknown coin; ours come from the venue's own list, so it is a bad moment."""
    return BadAnswerError(NAME, "the answer is null") if status == 200 and payload is None else None


def _instruments(answers: Sequence[Any]) -> Iterable[Instrument]:
    for row in answers[0]["universe"]:
        if row.get("isDelisted"):
            continue
        name = row["name"]
        if name[:1] == "k" and name[1:].isupper():
            symbol, coins = name[1:], 1000.0
        else:
            symbol, coins = coin_of(name)
        yield Instrument(symbol, name, coins, funding_interval_hours=FUNDING_INTERVAL_HOURS)


def _contexts(payload: Any, reading: Reading) -> Iterator[tuple[Instrument, Any]]:
    meta, contexts = payload
    universe = meta["universe"]
    if len(universe) != len(contexts):
        raise ShapeError(f"{len(universe)} coins and {len(contexts)} contexts cannot be matched by index")
    for entry, context in zip(universe, contexts, strict=True):
        instrument = reading.instruments.get(entry["name"])
        if instrument is not None and not entry.get("isDelisted"):
            yield instrument, context


def _marks(payload: Any, reading: Reading) -> None:
    reading.each(
        list(_contexts(payload, reading)),
        lambda pair: _mark(pair[0], pair[1], reading),
    )


def _mark(instrument: Instrument, context: Any, reading: Reading) -> None:
    reading.price(instrument, number(context["markPx"]), None)


def _open_interest(payload: Any, reading: Reading) -> None:
    def row(pair: tuple[Instrument, Any]) -> None:
        instrument, context = pair
        reading.open_interest(
            instrument,
            None,
            coins=number(context["openInterest"]),
            mark_usd=number(context["markPx"]) / instrument.coins_per_unit,
        )

    reading.each(list(_contexts(payload, reading)), row)


def _funding(payload: Any, reading: Reading) -> None:
    def row(pair: tuple[Instrument, Any]) -> None:
        instrument, context = pair
        reading.funding(
            instrument,
            "predicted",
            number(context["funding"]),
            FUNDING_INTERVAL_HOURS,
            None,
            native_mark=number(context["markPx"]),
        )

    reading.each(list(_contexts(payload, reading)), row)


def _settled(payload: Any, reading: Reading) -> None:
    def row(entry: Any) -> None:
        reading.funding(
            reading.asked,
            "settled",
            number(entry["fundingRate"]),
            FUNDING_INTERVAL_HOURS,
            time_of_ms(entry["time"]),
        )

    reading.each(payload, row)


def _candles(payload: Any, reading: Reading) -> None:
    # Trades, not marks: the only price history there is. `T` is the last millisecond of the bar.
    def row(bar: Any) -> None:
        reading.price(reading.asked, number(bar["c"]), time_of_ms(number(bar["t"])) + timedelta(minutes=5))

    reading.each(payload, row)


def _funding_request(native: str, start: datetime, end: datetime | None = None) -> Request:
    body: dict[str, Any] = {"type": "fundingHistory", "coin": native, "startTime": milliseconds(start)}
    if end is not None:
        body["endTime"] = milliseconds(end) - 1
    return Request("/info", body=body, costs={WEIGHT.scope: 20 if end is None else 45})


def _recent_funding(instruments: Sequence[Instrument], now: datetime) -> Request:
    # Whole hours: the same request within the hour, whoever asks.
    return _funding_request(instruments[0].native, now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=3))


def _candle_page(instrument: Instrument, start: datetime, end: datetime) -> Request:
    query = {
        "coin": instrument.native,
        "interval": "5m",
        "startTime": milliseconds(start),
        "endTime": milliseconds(end) - 1,
    }
    return Request("/info", body={"type": "candleSnapshot", "req": query}, costs={WEIGHT.scope: 60})


SOURCE = Source(
    name=NAME,
    rest_url="https://api.hyperliquid.xyz",
    limits=(WEIGHT,),
    offers=("prices", "funding_rates", "open_interest"),
    probe=Request("/info", body={"type": "meta"}, costs={WEIGHT.scope: 20}),
    classify=classify,
    instruments=InstrumentList((Request("/info", body={"type": "meta"}, costs={WEIGHT.scope: 20}),), _instruments),
    feeds=(
        Feed("mark_price", ("prices",), "market", one_request(CONTEXTS), _marks),
        Feed("open_interest", ("open_interest",), "market", one_request(CONTEXTS), _open_interest),
        Feed("funding", ("funding_rates",), "funding", one_request(CONTEXTS), _funding),
        Feed("settled_funding", ("funding_rates",), "settled", _recent_funding, _settled, per_symbol=True),
    ),
    histories=(
        History(
            name="settled_funding",
            topic="funding_rates",
            kinds=("settled",),
            request=lambda instrument, start, end: _funding_request(instrument.native, start, end),
            parse=_settled,
            page=timedelta(hours=490),
            reaches_back=timedelta(days=365),
            declared_delay=timedelta(minutes=1),
            step=timedelta(hours=1),
        ),
        History(
            name="mark_price",
            topic="prices",
            request=_candle_page,
            parse=_candles,
            page=timedelta(minutes=5) * 490,
            # The venue keeps 5,000 candles: about 17 days of 5-minute bars.
            reaches_back=timedelta(minutes=5) * 4_900,
            declared_delay=timedelta(seconds=5),
            step=timedelta(minutes=5),
        ),
    ),
)
