"""Every knob of the program, typed, read from LIQ_ environment variables.

Belongs here: names, types, defaults and limits of settings. Does not: anything that acts on them.
Secrets are SecretStr: they never show in a repr, a log or a status.
"""

from __future__ import annotations

import ipaddress
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from liq_pipeline.domain.chains import CHAINS
from liq_pipeline.domain.symbols import coin_of

Mode = Literal["auto", "live", "simulated", "recorded"]
Port = Annotated[int, Field(ge=1, le=65_535)]
RiskThreshold = Annotated[float, Field(ge=0, lt=100)]
"""A risk must be above it, and none is above 100."""
PressureThreshold = Annotated[float, Field(gt=-100, le=100)]
"""A pressure must be below it, and none is below -100."""


def _config(prefix: str, **more: Any) -> SettingsConfigDict:
    """What all groups share. An empty variable counts as unset: an empty key is none. `nan` is refused: a threshold
    that is no number would never be crossed, and nobody would know."""
    common = {"env_prefix": prefix, "frozen": True, "env_ignore_empty": True, "allow_inf_nan": False}
    return cast(SettingsConfigDict, {**common, **more})


def _whole_number(value: object) -> object:
    """The environment holds text, and a literal takes nothing but its own numbers."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()) else value


def default_home() -> Path:
    """$XDG_STATE_HOME/liq_pipeline, or /var/lib/liq_pipeline for root."""
    if os.geteuid() == 0:
        return Path("/var/lib/liq_pipeline")
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "liq_pipeline"


def is_loopback(host: str) -> bool:
    """Whether a server that listens on this host is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RiskSettings(BaseSettings):
    """LIQ_RISK_: how market data becomes points. Budgets (30, 30, 20, 20) are the product's promise and fixed."""

    model_config = _config("LIQ_RISK_")

    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Below this coverage the risk score is NULL and the signal UNKNOWN."""
    lookback_hours: Annotated[int, Field(gt=0)] = 720
    """How far back percentiles look."""
    min_lookback_hours: Annotated[int, Field(gt=0)] = 72
    """A component is unknown (warming) until it has this much history."""
    freshness_factor: Annotated[float, Field(gt=0)] = 3.0
    """A value is fresh while its age is at most this many times its source's declared cadence."""


class PressureSettings(BaseSettings):
    """LIQ_PRESSURE_: stablecoin pressure."""

    model_config = _config("LIQ_PRESSURE_")

    window_minutes: Annotated[int, Field(gt=0)] = 60
    """Flows of this many minutes make one pressure."""
    sign: Annotated[Literal[1, -1], BeforeValidator(_whole_number)] = 1
    """1: net outflow is positive (the product's reading). -1: the opposite, which published evidence supports."""
    scale_usd: Annotated[float, Field(gt=0)] | None = None
    """Net flow per window that counts as 100. Unset: the 95th percentile of the own 30-day history."""


class SeveritySettings(BaseSettings):
    """LIQ_SEVERITY_: thresholds. All inequalities are strict."""

    model_config = _config("LIQ_SEVERITY_", validate_default=True)

    critical_risk: RiskThreshold = 70.0
    """CRITICAL needs a risk above this ..."""
    critical_pressure: PressureThreshold = -30.0
    """... and a pressure below this."""
    warning_risk: RiskThreshold = 50.0
    """WARNING needs a risk above this ..."""
    warning_pressure: PressureThreshold = 0.0
    """... and a pressure below this."""
    info_risk: RiskThreshold = 30.0
    """INFO needs a risk above this."""
    risk_only: Literal["auto", "never"] = "auto"
    """When the pressure is unknown: auto lets the risk alone decide, never makes the condition fail."""

    @field_validator("warning_risk", "info_risk", "warning_pressure")
    @classmethod
    def _in_order(cls, value: float, info: ValidationInfo) -> float:
        """A level whose condition lies inside that of a higher one would never be reached, and nobody would know."""
        higher = {"warning_risk": "critical_risk", "info_risk": "warning_risk", "warning_pressure": "critical_pressure"}
        above = higher[str(info.field_name)]
        limit = info.data.get(above)  # absent: that one was refused already
        if limit is None:
            return value
        if info.field_name == "warning_pressure":
            if value < limit:
                raise ValueError(f"at {value:g} it is below LIQ_SEVERITY_{above.upper()} ({limit:g}): raise it to that")
        elif value > limit:
            raise ValueError(f"at {value:g} it is above LIQ_SEVERITY_{above.upper()} ({limit:g}): lower it to that")
        return value


PAGING_RULES = ("severity", "under_way", "early_warning")
"""Rules that page people if LIQ_ALERT_POLICY names them; blindness always does."""

RESERVED_URLS = frozenset(
    {
        *("alert_link", "heartbeat", "dagster", "dagster_pg"),
        *(f"{chain}_rpc" for chain in CHAINS),
        *("database", "database_owner", "database_reader"),
    }
)
"""LIQ_<NAME>_URL variables that are settings of their own (and may hold secrets), not base URLs of public sources."""


def source_urls_from_environment() -> dict[str, str]:
    """{"binance": "http://...", "binance_ws": "ws://..."} from LIQ_BINANCE_URL, LIQ_BINANCE_WS_URL and so on."""
    urls = {
        name.removeprefix("LIQ_").removesuffix("_URL").lower(): value
        for name, value in os.environ.items()
        if name.startswith("LIQ_") and name.endswith("_URL") and value
    }
    return {name: value.rstrip("/") for name, value in urls.items() if name not in RESERVED_URLS}


class SourceSettings(BaseSettings):
    """LIQ_SOURCE_: how the live sources are read. Limits of the venues themselves stand in each venue's module."""

    model_config = _config("LIQ_SOURCE_")

    urls: dict[str, str] = Field(default_factory=source_urls_from_environment, repr=False)
    """Base URLs that replace a source's own: LIQ_<SOURCE>_URL for REST, LIQ_<SOURCE>_WS_URL for its websocket."""
    round_seconds: Annotated[float, Field(gt=0)] = 3.0
    """A polling round ends after this long, whatever has answered by then."""
    request_seconds: Annotated[float, Field(gt=0)] = 2.0
    """The longest one request may take, from sending to the last byte."""
    requests_at_once_per_source: Annotated[int, Field(gt=0)] = 12
    """Requests to one source that may be under way at once."""
    market_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Cadence of venue mark prices and open interest."""
    funding_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Cadence of predicted funding rates."""
    long_short_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Cadence of long/short ratios."""
    settled_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Cadence of settled funding rates: they change at most once an hour."""
    instruments_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """How often the venues' lists of contracts are read."""
    flows_seconds: Annotated[float, Field(gt=0)] = 15.0
    """Cadence of stablecoin transfers."""
    slow_probe_seconds: Annotated[float, Field(gt=0)] = 600.0
    """A source that refused us (401, 403, 418, 451) is asked again this often, with one request."""
    coingecko_plan: Literal["demo", "pro"] = "demo"
    """Which host and key name COINGECKO_API_KEY belongs to."""
    coingecko_monthly_calls: Annotated[int, Field(gt=0)] = 10_000
    """The budget of the plan; it decides how often CoinGecko is asked."""
    etherscan_calls_per_second: Annotated[int, Field(gt=0)] = 3
    """The plan's budget per second."""
    etherscan_calls_per_day: Annotated[int, Field(gt=0)] = 100_000
    """The plan's budget per day, over all chains that are read with the key."""
    trongrid_calls_per_second: Annotated[int, Field(gt=0)] = 10
    """The budget per second of TRONGRID_API_KEY; two thirds of what the free plan allows."""
    trongrid_calls_per_day: Annotated[int, Field(gt=0)] = 100_000
    """The budget per day of TRONGRID_API_KEY."""
    flow_minimum_amount: Annotated[float, Field(ge=0)] = 100_000.0
    """Transfers between unlabelled addresses are kept from this many dollars up; labelled ones always."""
    flow_reread_blocks: Annotated[int, Field(ge=1)] = 20
    """Ethereum's newest blocks are read again: an index fills late, and a re-org replaces blocks. Other chains: by
    their own depth (docs/wallets.md)."""
    flow_lookback_blocks: Annotated[int, Field(ge=1)] = 400
    """How far back a first start reads, in Ethereum's blocks of 12 s: a little over the pressure window. Of other
    chains as many blocks as last as long."""
    collector_buffer_events: Annotated[int, Field(gt=0)] = 200_000
    """Streamed events kept in memory while Kafka is away; past it the oldest go and a gap is recorded."""
    history_days: Annotated[int, Field(ge=0)] = 30
    """How much REST history a first start loads."""
    history_budget_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of each budget that history may use, so that it never slows the live polls."""
    record_dir: Path | None = None
    """Where every raw answer and frame is written (`liq up --record DIR`)."""


class Settings(BaseSettings):
    """All settings. Every one is optional."""

    model_config = _config("LIQ_", extra="ignore", populate_by_name=True)

    mode: Mode = "auto"
    """auto, live, simulated or recorded. auto is live if a price and a derivatives source answer at start-up."""
    symbols: Annotated[tuple[str, ...], NoDecode] = ("BTC", "ETH")
    """The coins to watch, any that the venues list."""
    venues: Annotated[tuple[str, ...], NoDecode] = ()
    """The venues to use; unset means every one there is."""
    home: Path = Field(default_factory=default_home)
    """Where all state is kept."""
    run_as: str | None = None
    """As root: the user that PostgreSQL runs as; unset, a system user made for it."""

    database_url: SecretStr | None = None
    """Your own PostgreSQL or TimescaleDB (`postgresql://...`) in place of the embedded one."""
    database_owner_url: SecretStr | None = None
    """With LIQ_DATABASE_URL: the role that runs the migrations; unset, the same. `liq roles` makes the others."""
    database_reader_url: SecretStr | None = None
    """With LIQ_DATABASE_URL: the role that only reads, for `liq sql`; unset, the same in read-only transactions."""
    kafka_bootstrap_servers: str | None = None
    """Your own Kafka in place of the embedded one."""
    kafka_topic_prefix: str = ""
    """Put before every topic name on the wire, for a cluster that is shared with others."""
    kafka_memory_mb: Annotated[int, Field(ge=128)] = 256
    """Heap of the embedded Kafka."""

    postgres_port: Port = 54329
    """Port of the embedded PostgreSQL; a free one is taken where it is in use, and kept."""
    kafka_port: Annotated[int, Field(ge=1, le=65_534)] = 9092
    """Port of the embedded Kafka; likewise."""
    dagster_port: Port = 3000
    """Port of the Dagster UI; likewise."""
    code_server_port: Port = 4266
    """Port of the Dagster code server; likewise."""
    metrics_port: Port = 9109
    """Port of /healthz and /metrics, on loopback; likewise."""

    web_port: Port = 8000
    """Port of the desk, the page and API of `liq serve`; likewise."""
    web_host: str = "127.0.0.1"
    """Where the desk listens. Any other than loopback needs LIQ_WEB_TOKEN."""
    web_token: Annotated[SecretStr | None, Field(validate_default=True)] = None
    """What a caller of the desk must show (`Authorization: Bearer ...`); unset, nothing is asked for on loopback."""
    web_names: Annotated[tuple[str, ...], NoDecode] = ()
    """Further host names by which the desk may be called, comma-separated; loopback and LIQ_WEB_HOST always may."""

    alert_urls: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """Where alerts go: a comma-separated list of Apprise URLs (Telegram, Discord, Slack, mail, webhook ...)."""
    alert_policy: Annotated[tuple[str, ...], NoDecode] = ("severity", "under_way")
    """Which rules page people: a comma list of `severity`, `under_way`, `early_warning`. All are recorded and shown."""
    alert_unreal: bool = False
    """Let simulated and recorded worlds send to external channels too, marked as such."""
    alert_min_severity: Literal["INFO", "WARNING", "CRITICAL"] = "WARNING"
    """The least severity that reaches a person. INFO (risk > 30) is common: it is recorded and published, not sent."""
    alert_hysteresis_points: Annotated[float, Field(ge=0, le=50)] = 5.0
    """How many points under its threshold the score must be before an alert may leave its level."""
    alert_hold_minutes: Annotated[float, Field(ge=0)] = 15.0
    """How long it must stay there, without a break, before the alert does leave it."""
    alert_early_warning_hold_minutes: Annotated[float, Field(ge=0)] = 240.0
    """The hold of the early warning, which looks 4 h ahead and would flap at the pace of the severities."""
    alert_cooldown_minutes: Annotated[float, Field(ge=0)] = 30.0
    """After a page was resolved the same rule, subject and side stays quiet this long, unless it comes back higher."""
    alert_group_minutes: Annotated[float, Field(gt=0)] = 15.0
    """The same rule on several symbols within this window is one market-level page."""
    alert_blind_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long (and at least three points) the monitor may not see before it says so."""
    alert_reminder_minutes: Annotated[float, Field(gt=0)] | None = None
    """Repeat an open page that nobody acknowledged; unset: never."""
    alert_max_attempts: Annotated[int, Field(ge=1)] = 8
    """Tries per message, 15 s to 15 min apart: 8 span about half an hour, the useful life of a warning."""
    alert_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Bound on connecting to and on reading from a channel."""
    alert_hourly_ceiling: Annotated[int, Field(ge=1)] = 30
    """Messages per channel and hour. What is more is recorded and counted in the next one; escalations, CRITICAL and
    blindness always pass."""
    alert_digest_minutes: Annotated[float, Field(ge=0, le=1440)] = 60.0
    """INFO messages (LIQ_ALERT_MIN_SEVERITY=INFO) come together as one so often; 0: each at once."""
    alert_link_url: str | None = None
    """The desk's address as people reach it, put into messages; unset: its own port of this machine."""
    heartbeat_url: SecretStr | None = None
    """A healthchecks-style address that each healthy tick pings, so that the outside notices a dead machine."""

    coingecko_api_key: SecretStr | None = Field(default=None, validation_alias="COINGECKO_API_KEY")
    """CoinGecko key; without one the keyless rate is used."""
    etherscan_api_key: SecretStr | None = Field(default=None, validation_alias="ETHERSCAN_API_KEY")
    """Etherscan V2 key, for stablecoin flows."""
    ethereum_rpc_url: SecretStr | None = None
    """Any Ethereum JSON-RPC node, for stablecoin flows without an Etherscan key."""
    trongrid_api_key: SecretStr | None = Field(default=None, validation_alias="TRONGRID_API_KEY")
    """TronGrid key, for stablecoin flows on Tron."""
    tron_rpc_url: SecretStr | None = None
    """A Tron node's JSON-RPC (java-tron `node.jsonrpc`, or a provider's), in place of TronGrid."""
    bsc_rpc_url: SecretStr | None = None
    """A JSON-RPC node of BNB Smart Chain, for its stablecoin flows."""
    arbitrum_rpc_url: SecretStr | None = None
    """The same of Arbitrum One."""
    base_rpc_url: SecretStr | None = None
    """The same of Base."""
    polygon_rpc_url: SecretStr | None = None
    """The same of Polygon."""
    avalanche_rpc_url: SecretStr | None = None
    """The same of Avalanche's C-chain."""
    optimism_rpc_url: SecretStr | None = None
    """The same of OP Mainnet."""
    flow_chains: Annotated[tuple[str, ...], NoDecode] = ()
    """The chains to follow, comma-separated: each through its node, else with the Etherscan key, Tron else through
    TronGrid, without a key slowly. Unset: every chain with a node, Ethereum with an Etherscan key, Tron with a TronGrid
    key."""

    model_auto_promote: bool = False
    """Let a candidate that passes the written gate (docs/models.md) become champion by itself."""

    score_step: Annotated[int, Field(gt=0)] = 60
    """Seconds between scores of recorded and archive data; the live grid is 10 s (market) and 15 s (flows)."""
    simulation_seed: str | None = None
    """Seed of the simulated market; unset, the date of the first start."""
    simulation_cascade_in: Annotated[int, Field(ge=60)] | None = None
    """Script a cascade this many seconds ahead, once per simulated world: to see one within minutes."""
    retention_days: Annotated[int, Field(ge=35)] | None = None
    """Drop observations, scores, signals and ticks older than this; times before then cannot be replayed any more.
    Unset: keep them for ever. Alerts and hourly roll-ups stay. At least 35: scores look back over 30 days."""
    dagster_live_run_hours: Annotated[int, Field(gt=0)] = 6
    """How long Dagster keeps a successful live run with its events; some 10,000 a day would be 400,000 event rows."""
    dagster_run_days: Annotated[int, Field(gt=0)] = 30
    """How long Dagster keeps every other run."""

    sources: SourceSettings = Field(default_factory=SourceSettings)
    risk: RiskSettings = Field(default_factory=RiskSettings)
    pressure: PressureSettings = Field(default_factory=PressureSettings)
    severity: SeveritySettings = Field(default_factory=SeveritySettings)

    @field_validator("symbols", mode="before")
    @classmethod
    def _split_symbols(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip().upper() for part in value.split(",") if part.strip()))
        return value

    @field_validator("venues", "web_names", "flow_chains", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip().lower() for part in value.split(",") if part.strip()))
        return value

    @field_validator("alert_urls", mode="before")
    @classmethod
    def _split_urls(cls, value: object) -> object:
        if isinstance(value, str):
            # A comma inside an address (several recipients of one mail) separates nothing.
            return tuple(part for part in re.split(r"[,\s]+(?=[A-Za-z0-9+.-]+://)", value.strip(", \n")) if part)
        return value

    @field_validator("alert_policy", mode="before")
    @classmethod
    def _split_policy(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = dict.fromkeys(part.strip().lower() for part in value.split(",") if part.strip())
        # What it was called before there were three rules.
        former = {"probability": ("early_warning",), "both": ("severity", "early_warning")}
        named = tuple(dict.fromkeys(rule for part in parts for rule in former.get(part, (part,))))
        unknown = [rule for rule in named if rule not in PAGING_RULES]
        if unknown or not named:
            what = f"{', '.join(unknown)} is no rule" if unknown else "it names no rule"
            raise ValueError(f"{what}: give a comma list of {', '.join(PAGING_RULES)}")
        return named

    @field_validator("web_token")
    @classmethod
    def _asked_of_others(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("it must have at least 16 characters, such as `openssl rand -hex 16` gives")
        host = info.data.get("web_host")
        if value is None and host is not None and not is_loopback(host):
            raise ValueError(
                f"it is not set, and LIQ_WEB_HOST={host} would show the desk to others: set it (`openssl rand -hex 16`)"
                " or leave LIQ_WEB_HOST at 127.0.0.1"
            )
        return value

    @field_validator("flow_chains")
    @classmethod
    def _known_chains(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in CHAINS]
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)} is no chain that can be followed: give a list of {', '.join(CHAINS)}"
            )
        return value

    def rpc_url_of(self, chain: str) -> SecretStr | None:
        """The node of a chain, LIQ_<CHAIN>_RPC_URL."""
        url: SecretStr | None = getattr(self, f"{chain}_rpc_url")
        return url

    @field_validator("symbols")
    @classmethod
    def _known_form(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or any(not s.isalnum() or not s.isascii() for s in value):
            raise ValueError("it must be a comma-separated list of coins such as BTC,ETH")
        for name in value:
            if coin_of(name) != name:
                raise ValueError(f"{name} is a contract, and coins are wanted: was {coin_of(name)} meant?")
        return value


def prefix_of(class_name: str) -> str:
    """The prefix of the variables that a settings class reads, by its name: what an error of pydantic calls it."""
    return next(str(group.model_config["env_prefix"]) for group in _GROUPS if group.__name__ == class_name)


def variable_of(group: type[BaseSettings], field: str) -> str:
    """The environment variable of a setting."""
    alias = group.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"{group.model_config['env_prefix']}{field}".upper()


def variables() -> list[str]:
    """Every environment variable that is a setting; base URLs of sources (LIQ_<SOURCE>_URL) are not among them."""
    nested = {"sources", "risk", "pressure", "severity", "urls"}
    return [variable_of(group, field) for group in _GROUPS for field in group.model_fields if field not in nested]


_GROUPS: tuple[type[BaseSettings], ...] = (Settings, SourceSettings, RiskSettings, PressureSettings, SeveritySettings)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
