"""Every knob of the program, typed, read from LIQ_ environment variables.

Belongs here: names, types, defaults and limits of settings. Does not: anything that acts on them.
Secrets are SecretStr: they never show in a repr, a log or a status.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Mode = Literal["auto", "live", "simulated", "recorded"]


def default_home() -> Path:
    """$XDG_STATE_HOME/liq_pipeline, or /var/lib/liq_pipeline for root."""
    if os.geteuid() == 0:
        return Path("/var/lib/liq_pipeline")
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "liq_pipeline"


class RiskSettings(BaseSettings):
    """LIQ_RISK_: how market data becomes points. Budgets (30, 30, 20, 20) are the product's promise and fixed."""

    model_config = SettingsConfigDict(env_prefix="LIQ_RISK_", frozen=True)

    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.5
    lookback_hours: Annotated[int, Field(gt=0)] = 720
    min_lookback_hours: Annotated[int, Field(gt=0)] = 72
    freshness_factor: Annotated[float, Field(gt=0)] = 3.0
    """A value is fresh while its age is at most this many times its source's declared cadence."""


class PressureSettings(BaseSettings):
    """LIQ_PRESSURE_: stablecoin pressure."""

    model_config = SettingsConfigDict(env_prefix="LIQ_PRESSURE_", frozen=True)

    window_minutes: Annotated[int, Field(gt=0)] = 60
    sign: Literal[1, -1] = 1
    """1: net outflow is positive (the product's reading). -1: the opposite, which published evidence supports."""


class SeveritySettings(BaseSettings):
    """LIQ_SEVERITY_: thresholds. All inequalities are strict."""

    model_config = SettingsConfigDict(env_prefix="LIQ_SEVERITY_", frozen=True)

    critical_risk: float = 70.0
    critical_pressure: float = -30.0
    warning_risk: float = 50.0
    warning_pressure: float = 0.0
    info_risk: float = 30.0
    risk_only: Literal["auto", "never"] = "auto"


class Settings(BaseSettings):
    """All settings. Every one is optional."""

    model_config = SettingsConfigDict(env_prefix="LIQ_", frozen=True, extra="ignore", populate_by_name=True)

    mode: Mode = "auto"
    symbols: Annotated[tuple[str, ...], NoDecode] = ("BTC", "ETH")
    venues: Annotated[tuple[str, ...], NoDecode] = ()
    home: Path = Field(default_factory=default_home)
    run_as: str | None = None

    database_url: SecretStr | None = None
    kafka_bootstrap_servers: str | None = None
    kafka_topic_prefix: str = ""
    """Put before every topic name on the wire, for a cluster that is shared with others."""
    kafka_memory_mb: Annotated[int, Field(ge=128)] = 384

    postgres_port: int = 54329
    kafka_port: int = 9092
    dagster_port: int = 3000
    code_server_port: int = 4266
    """Defaults; a free port is taken where one is in use."""

    alert_urls: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    alert_policy: Literal["severity", "probability", "both"] = "both"
    alert_unreal: bool = False
    heartbeat_url: SecretStr | None = None

    coingecko_api_key: SecretStr | None = Field(default=None, validation_alias="COINGECKO_API_KEY")
    etherscan_api_key: SecretStr | None = Field(default=None, validation_alias="ETHERSCAN_API_KEY")
    ethereum_rpc_url: SecretStr | None = None

    score_step: Annotated[int, Field(gt=0)] = 60
    """Seconds between scores of recorded and archive data; the live grid is 10 s (market) and 15 s (flows)."""
    simulation_seed: str | None = None
    retention_days: int | None = None

    risk: RiskSettings = Field(default_factory=RiskSettings)
    pressure: PressureSettings = Field(default_factory=PressureSettings)
    severity: SeveritySettings = Field(default_factory=SeveritySettings)

    @field_validator("symbols", mode="before")
    @classmethod
    def _split_symbols(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().upper() for part in value.split(",") if part.strip())
        return value

    @field_validator("venues", "alert_urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("symbols")
    @classmethod
    def _known_form(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or any(not s.isalnum() or not s.isascii() for s in value):
            raise ValueError("LIQ_SYMBOLS must be a comma-separated list such as BTC,ETH")
        return value


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
