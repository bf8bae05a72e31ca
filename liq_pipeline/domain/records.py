"""The six observation records that travel through Kafka, with their units and their limits.

Belongs here: the shape of a message, what makes one impossible, and what is derived from one message alone.
Does not: reading or writing Kafka (bus/), tables (store/), or anything that needs a second record.

One message is one JSON object. Times are RFC 3339 with an offset; amounts are decimal strings; market values are
numbers. Unknown fields are ignored, so that a newer producer does not break an older consumer.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SCHEMA_VERSION = 1

FIRST_YEAR, LAST_YEAR = 2009, 2200
"""No market of ours is older, and a time past the last year is a unit mix-up (milliseconds taken for seconds)."""

FUTURE_TOLERANCE = timedelta(seconds=60)
"""An event may lie this far ahead of the time it was known: venues' clocks run a little fast (CONTRACTS: worlds)."""

Origin = Literal["live", "archive", "recorded", "simulated"]
Time = Annotated[datetime, Meta(tz=True)]
World = Annotated[str, Meta(pattern=r"^(real|simulated/[A-Za-z0-9._-]+|recorded/[A-Za-z0-9._-]+)\Z", max_length=100)]
Symbol = Annotated[str, Meta(pattern=r"^[A-Z0-9]{1,20}\Z")]
Venue = Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,32}\Z")]
PriceUsd = Annotated[float, Meta(gt=0, lt=1e9)]
Usd = Annotated[float, Meta(ge=0, lt=1e14)]
Quantity = Annotated[float, Meta(gt=0, lt=1e16)]
QuantityOrZero = Annotated[float, Meta(ge=0, lt=1e16)]
Share = Annotated[float, Meta(ge=0, le=1)]
Hex32 = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{64}\Z")]
ChainHash = Annotated[str, Meta(pattern=r"^(0x)?[0-9a-f]{64}\Z")]
Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00]+\Z")]
"""Free text. PostgreSQL cannot hold the character NUL."""
ChainAddress = Annotated[str, Meta(min_length=10, max_length=64, pattern=r"^[0-9A-Za-z]+\Z")]

ORIGINS_OF_WORLD: dict[str, frozenset[str]] = {
    "real": frozenset({"live", "archive"}),
    "simulated": frozenset({"simulated"}),
    "recorded": frozenset({"recorded"}),
}


class RecordError(ValueError):
    """A message that is well formed but cannot be true. `code` is short and stable, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_time(name: str, value: datetime) -> None:
    """Raise RecordError if the time lies outside the years this system can hold."""
    if not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise RecordError("impossible_time", f"{name} {value.isoformat()} is not between {FIRST_YEAR} and {LAST_YEAR}")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What every record carries.

    event_time: when it was true, by the venue. received_at: when a system of ours got it; for a recording, when the
    recorder did; in a simulation, simulated time. known_at: when a live collector could have had it; left out it
    equals received_at, and an archive record must state it (end of bar or publication plus the declared delay).

    gc=False here and below: no field holds anything that could point back, so the collector need not look at 10,000 of
    them in every batch that lands.
    """

    schema_version: Literal[1]
    event_time: Time
    received_at: Time
    known_at: Time | None = None
    event_time_source: Literal["venue", "local"] = "venue"
    origin: Origin
    world: World
    venue: Venue

    @property
    def known(self) -> datetime:
        """When a live collector could have had it."""
        return self.received_at if self.known_at is None else self.known_at

    def check(self) -> None:
        """Raise RecordError if the record contradicts itself."""
        # Once per message that lands, so the common case is a few comparisons; functions only find the words.
        event, received, known = self.event_time, self.received_at, self.known_at
        if not (FIRST_YEAR <= event.year <= LAST_YEAR and FIRST_YEAR <= received.year <= LAST_YEAR):
            check_time("event_time", event)
            check_time("received_at", received)
        if known is not None:
            check_time("known_at", known)
        if self.origin not in ORIGINS_OF_WORLD[self.world.partition("/")[0]]:
            raise RecordError("world_mismatch", f"origin {self.origin} cannot belong to world {self.world}")
        if known is None:
            if self.origin == "archive":
                raise RecordError("known_at_missing", "an archive record must state known_at")
            known = received
        elif self.origin == "live" and known != received:
            raise RecordError("known_at_wrong", "a live record is known when it is received")
        if event > known and event > known + FUTURE_TOLERANCE:
            raise RecordError("future_event", f"event_time {event.isoformat()} lies after known_at {known.isoformat()}")


class Price(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A price. venue `coingecko` is a market average; any other venue's is its mark price."""

    symbol: Symbol
    price_usd: PriceUsd
    volume_24h_usd: Usd | None = None
    market_cap_usd: Usd | None = None


class FundingRate(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A funding rate: `rate` is a fraction per `interval_hours` (0.0001 = 0.01 %). predicted = being accrued now."""

    symbol: Symbol
    kind: Literal["predicted", "settled"]
    rate: Annotated[float, Meta(ge=-1, le=1)]
    interval_hours: Annotated[float, Meta(gt=0, le=24)]
    next_funding_time: Time | None = None
    mark_price_usd: PriceUsd | None = None

    @property
    def rate_per_8h(self) -> float:
        """Fraction per 8 hours."""
        return self.rate * 8.0 / self.interval_hours

    def check(self) -> None:
        super().check()
        if self.next_funding_time is not None:
            check_time("next_funding_time", self.next_funding_time)
        # Venues cap one interval at 0.3 to 4 %: past 10 % the number is a percentage or basis points, not a fraction.
        if abs(self.rate) > 0.10:
            raise RecordError("wrong_unit", f"funding rate {self.rate} per {self.interval_hours} h is not a fraction")


class OpenInterest(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Open interest of one perpetual in coins and, where known, in USD."""

    symbol: Symbol
    open_interest_base: QuantityOrZero
    open_interest_usd: Usd | None = None
    mark_price_usd: PriceUsd | None = None
    """The price of the same moment, if the producer has it: lets a unit mix-up be caught. Not stored."""

    def check(self) -> None:
        super().check()
        if self.open_interest_usd is None:
            return
        if (self.open_interest_base == 0) != (self.open_interest_usd == 0):
            raise RecordError("wrong_unit", "open interest is zero in one unit and not in the other")
        if self.mark_price_usd is not None and self.open_interest_base > 0:
            implied = self.open_interest_usd / self.open_interest_base
            if not 0.8 < implied / self.mark_price_usd < 1.25:
                raise RecordError(
                    "wrong_unit",
                    f"open interest implies a price of {implied:g} USD beside a mark price of {self.mark_price_usd:g}: "
                    "contracts taken for coins?",
                )


class LongShortRatio(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Long and short shares (0..1) by accounts, top traders or takers over `period_minutes`; ratio = long / short."""

    symbol: Symbol
    kind: Literal["accounts", "top_accounts", "top_positions", "taker"]
    period_minutes: Annotated[int, Meta(gt=0, le=1440)]
    long_share: Share
    short_share: Annotated[float, Meta(gt=0, le=1)]
    ratio: Annotated[float, Meta(ge=0, lt=1e6)]

    def check(self) -> None:
        super().check()
        if abs(self.long_share + self.short_share - 1) > 0.01:
            raise RecordError("wrong_unit", f"shares {self.long_share} and {self.short_share} do not add up to 1")
        if abs(self.ratio - self.long_share / self.short_share) > 0.02 * max(self.ratio, 1):
            raise RecordError("wrong_unit", f"ratio {self.ratio} is not long_share / short_share")


class Liquidation(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One forced close. `liquidated_side` is the side of the POSITION, whatever the venue reports."""

    symbol: Symbol
    event_id: Text
    liquidated_side: Literal["long", "short"]
    price_usd: PriceUsd
    quantity_base: Quantity
    notional_usd: Annotated[float, Meta(gt=0, lt=1e12)]
    is_sample: bool
    source_topic: Text

    def check(self) -> None:
        super().check()
        if abs(self.notional_usd - self.price_usd * self.quantity_base) > 0.01 * self.notional_usd:
            raise RecordError("wrong_unit", f"notional {self.notional_usd} USD is not price x quantity")


class StablecoinFlow(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One ERC-20 transfer of a dollar stablecoin. `amount` in whole tokens, exact.

    `venue` is the fetcher (etherscan, ethereum_rpc, ...). A re-org is told by sending the same key again with
    is_canonical false.
    """

    chain: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,20}\Z")]
    token: Symbol
    tx_hash: ChainHash
    log_index: Annotated[int, Meta(ge=0, lt=2**31)]
    block_number: Annotated[int, Meta(ge=0, lt=2**62)]
    block_hash: ChainHash
    is_canonical: bool = True
    from_address: ChainAddress
    to_address: ChainAddress
    amount: Decimal
    from_entity: Text | None = None
    to_entity: Text | None = None
    direction: Literal["inflow", "outflow", "internal", "inter_exchange", "mint", "burn", "other"]
    label_version: Text

    def check(self) -> None:
        super().check()
        if not self.amount.is_finite() or self.amount < 0:
            raise RecordError("impossible_number", f"amount {self.amount} is not a sum of tokens")
        # A token has at most 18 decimals (a few have 24): more digits are a float's, not a ledger's.
        if int(self.amount.as_tuple().exponent) < -36:
            raise RecordError("impossible_number", "amount has more than 36 decimals")
        # All USDT and USDC in the world are under 5e11: a larger amount was not divided by the token's decimals.
        if self.amount > Decimal("1e12"):
            raise RecordError("wrong_unit", f"amount {self.amount} exceeds all tokens there are: decimals not applied?")


class Heartbeat(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A feed of events was read completely up to event_time. Sent into the feed's own topic (header heartbeat)."""


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """Recorded and simulated worlds: every record with known_at <= watermark went before this, in this partition."""

    schema_version: Literal[1]
    world: World
    watermark: Time

    def check(self) -> None:
        """Raise RecordError if no player can have sent it."""
        check_time("watermark", self.watermark)
        if self.world == "real":
            raise RecordError("world_mismatch", "the real world's clock is wall time: it has no watermark")


def utc(value: datetime) -> datetime:
    """The same instant in UTC."""
    return value.astimezone(UTC)
