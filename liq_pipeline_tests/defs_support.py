"""A small played world for tests of the Dagster side: one venue, one symbol, records and watermarks through Kafka."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from liq_pipeline.bus.producer import RecordProducer
from liq_pipeline.defs.resources import Services
from liq_pipeline.domain.records import FundingRate, OpenInterest, Price
from liq_pipeline.domain.worlds import Expectation, Manifest, World
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.settings import Settings
from liq_pipeline.store import worlds
from liq_pipeline.store.connection import connect

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@dataclass
class SmallWorld:
    """`simulated/small`: prices, funding and open interest of BTC on one venue."""

    database_url: str
    bootstrap_servers: str
    topic_prefix: str

    name = "simulated/small"

    def services(self, **settings: object) -> Services:
        return Services(
            Settings(
                mode="simulated",
                database_url=self.database_url,  # type: ignore[arg-type]
                kafka_bootstrap_servers=self.bootstrap_servers,
                kafka_topic_prefix=self.topic_prefix,
                **settings,  # type: ignore[arg-type]
            ),
            Endpoints(self.database_url, self.bootstrap_servers, mode="simulated"),
        )

    def environment(self) -> dict[str, str]:
        """The same as variables, as `liq up` gives them to its children."""
        return {
            "LIQ_MODE": "simulated",
            "LIQ_DATABASE_URL": self.database_url,
            "LIQ_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "LIQ_KAFKA_TOPIC_PREFIX": self.topic_prefix,
        }

    def activate(self) -> None:
        expectation = Expectation(venues=("alpha",), cadence_seconds=10)
        world = World(
            name=self.name,
            kind="simulated",
            market_step_seconds=10,
            flows_step_seconds=15,
            manifest=Manifest(
                symbols=("BTC",),
                expected=dict.fromkeys(("prices", "funding_rates", "open_interest"), expectation),
            ),
        )
        with connect(self.database_url) as connection:
            worlds.register(connection, world, activate=True)

    def play(self, seconds: int, *, garbage: int = 0, watermark: bool = True) -> None:
        """One record of each kind for START + seconds, then the watermark."""
        time = START + timedelta(seconds=seconds)
        common = {
            "schema_version": 1,
            "event_time": time,
            "received_at": time,
            "origin": "simulated",
            "world": self.name,
            "venue": "alpha",
            "symbol": "BTC",
        }
        with RecordProducer(self.bootstrap_servers, self.topic_prefix) as producer:
            producer.send(Price(**common, price_usd=100_000.0 + seconds))  # type: ignore[arg-type]
            producer.send(FundingRate(**common, kind="predicted", rate=0.0001, interval_hours=8))  # type: ignore[arg-type]
            producer.send(OpenInterest(**common, open_interest_base=5_000.0))  # type: ignore[arg-type]
            for _ in range(garbage):
                producer.send_bytes("prices", b"not json", key=b"BTC")
            producer.flush(10)
            if watermark:
                producer.send_watermark(self.name, time)
                producer.flush(10)
