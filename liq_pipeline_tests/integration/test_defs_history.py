"""History as Dagster assets: one run loads and scores a range of hours with the functions that the commands call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult

from liq_pipeline.definitions import build_definitions
from liq_pipeline.defs import keys
from liq_pipeline.defs.resources import Services
from liq_pipeline.domain.worlds import REAL
from liq_pipeline.pipeline.models import model_in_force
from liq_pipeline.pipeline.rescore import rescore
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.settings import RiskSettings, Settings, SourceSettings
from liq_pipeline.sources.archives import binance
from liq_pipeline_tests.archive_support import metrics_lines, publish, serve_market, start_of
from liq_pipeline_tests.live_support import VenueServer, rows, venue_server

DAY = date(2024, 6, 1)
START = start_of(DAY)
ONE_DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


class History:
    """An installation whose archive has five days of BTC, and Dagster in this process."""

    def __init__(self, services: Services, server: VenueServer, instance: DagsterInstance) -> None:
        self.services, self.server, self.instance = services, server, instance
        self.database_url = services.endpoints.database_url
        self._definitions = build_definitions(resources={"services": services})

    def run(self, key: AssetKey, first: datetime, last: datetime) -> ExecuteInProcessResult:
        """The hours from first up to last, as a backfill with one run does; raises what the step raises."""
        job = self._definitions.get_implicit_global_asset_job_def()
        hours = f"{first:%Y-%m-%d-%H:%M}", f"{last - HOUR:%Y-%m-%d-%H:%M}"
        tags = dict(
            zip(("dagster/asset_partition_range_start", "dagster/asset_partition_range_end"), hours, strict=True)
        )
        return job.execute_in_process(asset_selection=[key], instance=self.instance, tags=tags, raise_on_error=False)

    def metadata(self, key: AssetKey) -> dict[str, Any]:
        event = self.instance.get_latest_materialization_event(key)
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.fixture
def history(
    database_url: str,
    kafka_server: str,
    topic_prefix: str,
    settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[History]:
    # This process goes on to run other tests: what a run's own process changes of itself is put back.
    monkeypatch.setattr(os, "nice", lambda _steps: 0)
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")
    with venue_server() as server, DagsterInstance.ephemeral() as instance:
        server.serve(binance.NAME, {})
        serve_market(server, ["BTC"], DAY, DAY + 4 * ONE_DAY)
        chosen = settings(
            symbols=("BTC",),
            kafka_topic_prefix=topic_prefix,
            score_step=300,
            risk=RiskSettings(lookback_hours=72, min_lookback_hours=24),
            sources=SourceSettings(urls=server.urls()),
        )
        yield History(Services(chosen, Endpoints(database_url, kafka_server)), server, instance)


def test_a_range_of_hours_is_one_run_each_and_lands_and_scores_like_the_commands(history: History) -> None:
    last = START + 5 * ONE_DAY
    done = history.run(keys.HISTORY_OBSERVATIONS, START, last)
    assert done.success
    told = history.metadata(keys.HISTORY_OBSERVATIONS)
    assert (told["pieces_loaded"], told["rows"], told["problems"]) == (11, 5 * 288 * 6 + 90, 0)
    hours = {
        event.partition for event in done.get_asset_materialization_events() if event.asset_key.path[0] == "history"
    }
    assert len(hours) == 5 * 24
    again = history.run(keys.HISTORY_OBSERVATIONS, START, last)
    assert again.success
    assert history.metadata(keys.HISTORY_OBSERVATIONS)["pieces_loaded_before"] == 11

    first = last - 6 * HOUR
    assert history.run(keys.HISTORY_SIGNALS, first, last).success
    assert history.metadata(keys.HISTORY_SIGNALS)["risks"] == 6 * 12
    scored = rows(history.database_url, "SELECT time, score, coverage FROM liquidation_risk ORDER BY time")
    assert (scored[0]["time"], scored[-1]["time"]) == (first, last - timedelta(minutes=5))
    # Of the venues that live data is expected from only the archive's exists in history, and no liquidations at all.
    assert {row["coverage"] for row in scored} == {0.8}
    assert all(row["score"] is not None for row in scored)
    by_command = rescore(
        history.database_url, history.services.settings, first, last - timedelta(seconds=1), world_name=REAL,
        load_model=model_in_force,
    )  # fmt: skip
    assert (by_command.risks, by_command.changed) == (72, 0)


def test_hours_of_which_nothing_is_known_fail_in_one_sentence(history: History) -> None:
    with_data = history.run(keys.HISTORY_OBSERVATIONS, START, START + HOUR)
    assert with_data.success
    failed = history.run(keys.HISTORY_SIGNALS, datetime(2021, 1, 1, tzinfo=UTC), datetime(2021, 1, 2, tzinfo=UTC))
    assert not failed.success
    (failure,) = [event for event in failed.all_events if event.event_type_value == "STEP_FAILURE"]
    said = failure.step_failure_data.error_display_string
    assert "Scoring history stopped: nothing to score in real from 2021-01-01" in said


def test_hours_whose_file_was_refused_are_not_up_to_date(history: History) -> None:
    path = binance.METRICS.path("BTCUSDT", START)
    publish(history.server, path, metrics_lines("BTC", DAY), checksum="cd" * 32)
    refused = history.run(keys.HISTORY_OBSERVATIONS, START, START + ONE_DAY)
    assert not refused.success
    (failure,) = [event for event in refused.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "1 of 3 pieces were refused: " in failure.step_failure_data.error_display_string
    assert not refused.get_asset_materialization_events()
    publish(history.server, path, metrics_lines("BTC", DAY))
    assert history.run(keys.HISTORY_OBSERVATIONS, START, START + ONE_DAY).success
    assert history.metadata(keys.HISTORY_OBSERVATIONS)["pieces_loaded"] == 1
