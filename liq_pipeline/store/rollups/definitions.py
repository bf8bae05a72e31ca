"""What the buckets of each roll-up hold.

Belongs here: one RollUp a table: its keys and the SQL of its values, for maintained tables and for continuous
aggregates alike. Does not: building them (upkeep.py, store/schema/community.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

STEPS: Final = {"1m": timedelta(minutes=1), "5m": timedelta(minutes=5), "1h": timedelta(hours=1)}


@dataclass(frozen=True)
class RollUp:
    """How the rows of one table become a bucket. keys, values: column of the roll-up -> SQL over the rows."""

    table: str
    time_column: str
    stamp_column: str
    keys: tuple[str, ...]
    values: dict[str, str]
    relation: str | None = None
    """What to read instead of the table itself."""
    condition: str = "true"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the views, in their order."""
        return ("bucket", *self.keys, *self.values)

    @property
    def can_be_continuous(self) -> bool:
        """Whether TimescaleDB can keep it: a continuous aggregate reads one hypertable, not the newest revisions."""
        return self.relation is None


def _last(column: str, time_column: str = "event_time") -> str:
    return f"(array_agg({column} ORDER BY {time_column} DESC))[1]"


_SERIES: Final = ("world", "symbol", "venue")

ROLLUPS: Final = (
    RollUp(
        "prices",
        "event_time",
        "landed_at",
        _SERIES,
        {
            "price_usd_first": "(array_agg(price_usd ORDER BY event_time))[1]",
            "price_usd_high": "max(price_usd)",
            "price_usd_low": "min(price_usd)",
            "price_usd_last": _last("price_usd"),
            "samples": "count(*)::integer",
        },
    ),
    RollUp(
        "funding_rates",
        "event_time",
        "landed_at",
        (*_SERIES, "kind"),
        {
            "rate_per_8h_high": "max(rate_per_8h)",
            "rate_per_8h_low": "min(rate_per_8h)",
            "rate_per_8h_last": _last("rate_per_8h"),
            "samples": "count(*)::integer",
        },
    ),
    RollUp(
        "open_interest",
        "event_time",
        "landed_at",
        _SERIES,
        {
            "open_interest_base_high": "max(open_interest_base)",
            "open_interest_base_low": "min(open_interest_base)",
            "open_interest_base_last": _last("open_interest_base"),
            "open_interest_usd_last": _last("open_interest_usd"),
            "samples": "count(*)::integer",
        },
    ),
    RollUp(
        "long_short_ratio",
        "event_time",
        "landed_at",
        (*_SERIES, "kind", "period_minutes"),
        {"long_share_last": _last("long_share"), "ratio_last": _last("ratio"), "samples": "count(*)::integer"},
    ),
    RollUp(
        "liquidations",
        "event_time",
        "landed_at",
        (*_SERIES, "liquidated_side"),
        {
            "notional_usd": "sum(notional_usd)",
            "quantity_base": "sum(quantity_base)",
            "events": "count(*)::integer",
            "is_sample": "bool_or(is_sample)",
        },
    ),
    RollUp(
        "stablecoin_flows",
        "event_time",
        "landed_at",
        ("world", "chain", "token", "direction"),
        {"amount": "sum(amount)", "transfers": "count(*)::integer"},
        condition="is_canonical",
    ),
    RollUp(
        # A view of stablecoin_flows (sql/0026): a transfer between two exchanges belongs to both.
        "exchange_flows",
        "event_time",
        "landed_at",
        ("world", "chain", "token", "exchange"),
        {
            "inflow": "sum(inflow)",
            "outflow": "sum(outflow)",
            "from_exchanges": "sum(from_exchanges)",
            "to_exchanges": "sum(to_exchanges)",
            "transfers": "count(*)::integer",
        },
        relation="exchange_flows",
        condition="is_canonical",
    ),
    RollUp(
        "liquidation_risk",
        "time",
        "created_at",
        ("world", "symbol"),
        {
            "score_max": "max(score)",
            "score_last": _last("score", "time"),
            "score_high_max": "max(score_high)",
            "coverage_min": "min(coverage)",
            "samples": "count(*)::integer",
            "long_squeeze_max": "max(long_squeeze)",
            "short_squeeze_max": "max(short_squeeze)",
            "funding_points_avg": "avg(funding_points)",
            "open_interest_points_avg": "avg(open_interest_points)",
            "long_short_points_avg": "avg(long_short_points)",
            "liquidation_points_avg": "avg(liquidation_points)",
        },
        relation="liquidation_risk_current",
    ),
    RollUp(
        "stablecoin_pressure",
        "time",
        "created_at",
        ("world",),
        {
            "score_max": "max(score)",
            "score_min": "min(score)",
            "score_last": _last("score", "time"),
            "coverage_min": "min(coverage)",
            "samples": "count(*)::integer",
            "score_avg": "avg(score)",
        },
        relation="stablecoin_pressure_current",
    ),
    RollUp(
        "signals",
        "time",
        "created_at",
        ("world", "symbol"),
        {
            "risk_max": "max(risk)",
            "pressure_min": "min(pressure)",
            "cascade_probability_4h_max": "max(cascade_probability_4h)",
            "critical_points": "(count(*) FILTER (WHERE severity = 'CRITICAL'))::integer",
            "warning_points": "(count(*) FILTER (WHERE severity = 'WARNING'))::integer",
            "info_points": "(count(*) FILTER (WHERE severity = 'INFO'))::integer",
            "unknown_points": "(count(*) FILTER (WHERE severity = 'UNKNOWN'))::integer",
            "samples": "count(*)::integer",
            "under_way_probability_max": "max(under_way_probability)",
            "under_way_reach_max": "max(under_way_reach(under_way))",
            "under_way_points": "sum(((under_way ->> 'is_open')::boolean)::int)::integer",
        },
        relation="signals_current",
    ),
    RollUp(
        "ticks",
        "time",
        "committed_at",
        ("world", "stream"),
        {
            "delay_seconds_max": "max(extract(epoch FROM committed_at - time))::double precision",
            "late_ticks": "(count(*) FILTER (WHERE committed_at - time > interval '5 seconds'))::integer",
            "rows_landed": "sum(rows_landed)",
            "late_rows": "sum(late_rows)",
            "samples": "count(*)::integer",
            "first_time": "min(time)",
            "last_time": "max(time)",
        },
    ),
)
