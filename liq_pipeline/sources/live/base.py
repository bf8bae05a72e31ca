"""What a venue's module declares, and the reading that turns its answers into records.

Belongs here: the shapes (source, feed, history, stream) and the one place where units are normalised and a record is
checked. Does not: instruments (instruments.py), numbers and times (values.py), any venue's own field names (one module
each) or sending (sources/access/http.py, sources/polling/ask.py, collector/).

Parsers are pure: (decoded answer, Reading) -> None; what they find goes through the Reading's methods, which apply
the instrument's units, check the record, and put what cannot be true on the list of problems instead of a topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from liq_pipeline.domain.records import (
    FundingRate,
    Liquidation,
    LongShortRatio,
    OpenInterest,
    Origin,
    Price,
    Record,
    RecordError,
)
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import Classify, Request
from liq_pipeline.sources.access.limits import Limit
from liq_pipeline.sources.live.instruments import Instrument
from liq_pipeline.sources.live.values import UNREADABLE, ShapeError

LongShortKind = Literal["accounts", "top_accounts", "top_positions", "taker"]
Cadence = Literal["market", "funding", "long_short", "settled", "instruments", "coingecko"]


def one_request(request: Request) -> Callable[[Sequence[Instrument], datetime], Request]:
    """A feed's request that depends on nothing."""
    return lambda _instruments, _now: request


def of_symbol(make: Callable[[str], Request]) -> Callable[[Sequence[Instrument], datetime], Request]:
    """A per-symbol feed's request from the venue's own name of the symbol."""
    return lambda instruments, _now: make(instruments[0].native)


@dataclass
class Reading:
    """One answer on its way to records: its times, the instruments it may speak of, and what was found in it.

    instruments: by the venue's own name, wanted symbols only. instrument: the one that was asked for, in a feed that
    asks per symbol. marks: mark price per symbol from the answers of the same round, in USD per coin.
    """

    venue: str
    sent_at: datetime
    received_at: datetime
    instruments: Mapping[str, Instrument]
    instrument: Instrument | None = None
    marks: dict[str, float] = field(default_factory=dict)
    origin: Origin = "live"
    world: str = REAL
    declared_delay: timedelta = timedelta(0)
    """Archive only: how long after event_time a live collector would have had the value."""
    reaches_back_to: datetime | None = None
    """Lists of events in which others crowd ours out: the time of the oldest row of a full page, whatever it is."""
    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def asked(self) -> Instrument:
        """The instrument that was asked for."""
        if self.instrument is None:
            raise ShapeError("this answer belongs to no single instrument")
        return self.instrument

    def each(self, rows: object, parse_row: Callable[[Any], None]) -> None:
        """Parse rows one by one: a row that cannot be read is a problem and does not cost the others."""
        if rows is None:
            return
        if not isinstance(rows, list):
            raise ShapeError("a list was expected")
        for row in rows:
            try:
                parse_row(row)
            except UNREADABLE as error:
                self.problems.append(f"a row cannot be read ({type(error).__name__}: {error})")

    def price(
        self,
        instrument: Instrument,
        native_price: float,
        event_time: datetime | None,
        *,
        volume_24h_usd: float | None = None,
        market_cap_usd: float | None = None,
    ) -> float:
        """A mark price as quoted by the venue. Returns USD per coin."""
        price_usd = native_price / instrument.coins_per_unit
        self.marks[instrument.symbol] = price_usd
        self._add(
            Price,
            event_time,
            symbol=instrument.symbol,
            price_usd=price_usd,
            volume_24h_usd=volume_24h_usd,
            market_cap_usd=market_cap_usd,
        )
        return price_usd

    def funding(
        self,
        instrument: Instrument,
        kind: Literal["predicted", "settled"],
        rate: float,
        interval_hours: float | None,
        event_time: datetime | None,
        *,
        next_funding_time: datetime | None = None,
        native_mark: float | None = None,
    ) -> None:
        """A funding rate as a fraction per interval. An unknown interval is a problem: no 8 h is ever assumed."""
        if interval_hours is None:
            self.problems.append(f"{instrument.native}: the funding interval is not known yet")
            return
        self._add(
            FundingRate,
            event_time,
            symbol=instrument.symbol,
            kind=kind,
            rate=rate,
            interval_hours=interval_hours,
            next_funding_time=next_funding_time,
            mark_price_usd=None if native_mark is None else native_mark / instrument.coins_per_unit,
        )

    def open_interest(
        self,
        instrument: Instrument,
        event_time: datetime | None,
        *,
        coins: float | None = None,
        contracts: float | None = None,
        usd: float | None = None,
        mark_usd: float | None = None,
    ) -> None:
        """Open interest from venue units (`coins` still in venue units of the coin), or contracts, or USD alone.

        mark_usd: USD per coin of the same answer. What the venue does not give of coins and USD follows from it;
        without it `usd` alone is no open interest in coins and is left out as a problem.
        """
        if coins is not None:
            base = coins * instrument.coins_per_unit
        elif contracts is not None:
            base = contracts * instrument.coins_per_contract
        elif usd is not None and mark_usd:
            base = usd / mark_usd
        else:
            self.problems.append(f"{instrument.native}: open interest without a price to count coins with")
            return
        if usd is None and mark_usd is not None:
            usd = base * mark_usd
        self._add(
            OpenInterest,
            event_time,
            symbol=instrument.symbol,
            open_interest_base=base,
            open_interest_usd=usd,
            mark_price_usd=mark_usd,
        )

    def long_short(
        self, instrument: Instrument, kind: LongShortKind, long: float, short: float, event_time: datetime
    ) -> None:
        """Shares from any two amounts in proportion (shares, volumes, or ratio and 1); 5-minute period.

        The ratio is always computed: venues have sent ones that contradict their own shares.
        """
        if long < 0 or short <= 0:
            self.problems.append(f"{instrument.native}: long {long:g} and short {short:g} are no shares")
            return
        self._add(
            LongShortRatio,
            event_time,
            symbol=instrument.symbol,
            kind=kind,
            period_minutes=5,
            long_share=long / (long + short),
            short_share=short / (long + short),
            ratio=long / short,
        )

    def liquidation(
        self,
        instrument: Instrument,
        event_time: datetime,
        *,
        event_id: str,
        side: Literal["long", "short"],
        native_price: float,
        is_sample: bool,
        source_topic: str,
        units: float | None = None,
        contracts: float | None = None,
    ) -> None:
        """A forced close: `side` of the POSITION, price as quoted, quantity in venue units of the coin or contracts."""
        price_usd = native_price / instrument.coins_per_unit
        if units is not None:
            quantity = units * instrument.coins_per_unit
        else:
            quantity = (contracts or 0.0) * instrument.coins_per_contract
        self._add(
            Liquidation,
            event_time,
            symbol=instrument.symbol,
            event_id=event_id,
            liquidated_side=side,
            price_usd=price_usd,
            quantity_base=quantity,
            notional_usd=price_usd * quantity,
            is_sample=is_sample,
            source_topic=source_topic,
        )

    def _add(self, record_type: type[Record], event_time: datetime | None, /, **fields: Any) -> None:
        """Check and keep. event_time None: the venue gives none, so it is the time the request was sent."""
        moment = self.sent_at if event_time is None else event_time
        if self.origin == "archive":
            fields["known_at"] = moment + self.declared_delay
        try:
            record = record_type(
                schema_version=1,
                event_time=moment,
                received_at=self.received_at,
                event_time_source="local" if event_time is None else "venue",
                origin=self.origin,
                world=self.world,
                venue=self.venue,
                **fields,
            )
            # The constructor does not look at limits: only decoding does. What we send must pass what readers check.
            record = msgspec.convert(msgspec.structs.asdict(record), record_type)
            record.check()
        except RecordError as error:
            hint = " (is this machine's clock right?)" if error.code == "future_event" else ""
            self.problems.append(f"{fields.get('symbol')}: {error}{hint}")
        except msgspec.ValidationError as error:
            self.problems.append(f"{fields.get('symbol')}: {record_type.__name__}: {error}")
        else:
            self.records.append(record)


def settled_intervals(times: Sequence[datetime], fallback_hours: float | None) -> list[float | None]:
    """The interval that each settlement closed, from the gap to the one before; `fallback_hours` for the first.

    times: ascending. Gaps that are no whole number of hours up to 24 (a missing row, a listing) take the fallback.
    """
    intervals: list[float | None] = []
    for index, moment in enumerate(times):
        hours = None
        if index:
            gap = (moment - times[index - 1]).total_seconds() / 3600
            hours = round(gap) if abs(gap - round(gap)) < 0.05 else None
        intervals.append(float(hours) if hours in (1, 2, 4, 8) else fallback_hours)
    return intervals


Parse = Callable[[Any, Reading], None]


@dataclass(frozen=True)
class Feed:
    """What is read again and again from one endpoint.

    request: of (the instruments wanted: all of the source's, or the one of a per-symbol feed; the time of asking).
    Feeds of one source whose requests are equal are answered by one request.
    """

    name: str
    topics: tuple[str, ...]
    cadence: Cadence
    request: Callable[[Sequence[Instrument], datetime], Request]
    parse: Parse
    per_symbol: bool = False


@dataclass(frozen=True)
class InstrumentList:
    """How a venue names and counts coins: its requests, and the reading of their answers together.

    next_page: the request for what an answer left out, or None.
    """

    requests: tuple[Request, ...]
    parse: Callable[[Sequence[Any]], Iterable[Instrument]]
    next_page: Callable[[Request, Any], Request | None] | None = None
    refresh_seconds: float | None = None
    """None: LIQ_SOURCE_INSTRUMENTS_SECONDS."""


@dataclass(frozen=True)
class Stream:
    """A websocket feed of liquidations.

    path: for the instruments wanted. subscribe: messages to send after connecting. parse: one decoded message.
    ping: a text the venue wants to hear in a quiet connection (beside websocket pings), or None.
    answer: what the venue wants to hear after a message of its own (a ping in its own words), or None.
    unpack: of a binary frame, for venues that compress, with a bound; raises zlib.error. None: frames are texts.
    subscribe_every_seconds: the pause between two messages of `subscribe` where the venue counts them.
    most_instruments: how many one connection may follow; what is more is left to the list, which then proves the feed.
    ids_are_the_lists: the list of `event_feeds` gives an event the same id. Where it does not, only one of the two
    speaks for any moment (sources/access/turns.py).
    """

    path: Callable[[Sequence[Instrument]], str]
    subscribe: Callable[[Sequence[Instrument]], list[str]]
    parse: Parse
    confirms: Callable[[Any], bool]
    """Whether a message confirms a subscription. The feed is read once every message of `subscribe` was confirmed."""
    refusal: Callable[[Any], str | None] = field(default=lambda _: None)
    """What a message that refuses a subscription says; None for every other message."""
    ping: str | None = None
    answer: Callable[[Any], str | None] = field(default=lambda _: None)
    unpack: Callable[[bytes], bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    subscribe_every_seconds: float = 0.0
    most_instruments: int | None = None
    ids_are_the_lists: bool = True
    silence_seconds: float = 30.0
    """Nothing at all (not even an answer to our ping) for this long: the connection is dead."""


@dataclass(frozen=True)
class History:
    """A REST series that reaches back, for first starts and outages.

    request: (instrument, from, to) -> the request for one page. page: the longest span of one page, with all its rows
    inside. declared_delay: how long after event_time a live collector has a value. kinds: of the funding rates or
    ratios that an answer brings; empty for record types without kinds. is_scored: whether a score's percentiles wait
    for it; at a first start what none waits for comes last.
    """

    name: str
    topic: str
    request: Callable[[Instrument, datetime, datetime], Request]
    parse: Parse
    page: timedelta
    reaches_back: timedelta
    declared_delay: timedelta
    step: timedelta
    kinds: tuple[str, ...] = ()
    is_scored: bool = True

    def serves(self, topic: str, kind: str | None) -> bool:
        """Whether it brings records of that type and kind."""
        return self.topic == topic and (kind is None or kind in self.kinds)


@dataclass(frozen=True)
class Source:
    """Everything about one venue or source. `offers` are the record types that scoring may expect from it."""

    name: str
    rest_url: str
    limits: tuple[Limit, ...]
    offers: tuple[str, ...]
    probe: Request
    ws_url: str | None = None
    instruments: InstrumentList | None = None
    feeds: tuple[Feed, ...] = ()
    stream: Stream | None = None
    event_feeds: tuple[Feed, ...] = ()
    """REST lists of liquidations, polled by the collector beside its streams."""
    histories: tuple[History, ...] = ()
    classify: Classify | None = None
    credentials: Callable[[Settings], tuple[str | None, dict[str, str]]] | None = None
    """settings -> (another base URL or None, secret query parameters)."""
    limits_of: Callable[[Settings], tuple[Limit, ...]] | None = None
    """Limits that depend on the user's plan; they replace `limits`."""

    def limits_in_force(self, settings: Settings) -> dict[str, Limit]:
        """By scope."""
        limits = self.limits if self.limits_of is None else self.limits_of(settings)
        return {limit.scope: limit for limit in limits}
