"""The tick as Dagster runs it: real Kafka, real PostgreSQL, and what a person sees of it afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    ExecuteInProcessResult,
    RunRequest,
    SkipReason,
    build_sensor_context,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from liq_pipeline.definitions import build_definitions
from liq_pipeline.defs import keys, sensors
from liq_pipeline.defs.resources import Services
from liq_pipeline.runtime.home import SUPERVISED_HOME, Home
from liq_pipeline.runtime.processes import free_port
from liq_pipeline.settings import RiskSettings, get_settings
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.alert_receiver import receiver
from liq_pipeline_tests.defs_support import START, SmallWorld


@pytest.fixture
def world(database_url: str, kafka_server: str, topic_prefix: str) -> SmallWorld:
    return SmallWorld(database_url, kafka_server, topic_prefix)


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def run_job(
    instance: DagsterInstance, services: Services, job_name: str = "live_tick", *, succeeds: bool = True
) -> ExecuteInProcessResult:
    definitions = build_definitions(resources={"services": services})
    job = definitions.get_repository_def().get_job(job_name)
    return job.execute_in_process(instance=instance, raise_on_error=succeeds)


def materialized(result: ExecuteInProcessResult) -> dict[AssetKey, dict[str, object]]:
    events = result.get_asset_materialization_events()
    return {
        event.asset_key: {k: v.value for k, v in event.step_materialization_data.materialization.metadata.items()}
        for event in events
        if event.asset_key is not None
    }


def checks(result: ExecuteInProcessResult) -> dict[str, bool]:
    return {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}


def failure_of(result: ExecuteInProcessResult) -> str:
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.error is not None
    data = failure.step_failure_data
    return data.user_failure_data.description or "" if data.user_failure_data else data.error.message


def test_a_tick_lands_scores_and_says_so(world: SmallWorld, instance: DagsterInstance) -> None:
    world.activate()
    for seconds in (0, 10, 20):
        world.play(seconds)
    result = run_job(instance, world.services())

    seen = materialized(result)
    assert seen[keys.TABLE["prices"]] == {"rows": 3}
    assert keys.TABLE["long_short_ratio"] not in seen, "nothing came, so nothing was brought up to date"
    risk = seen[keys.LIQUIDATION_RISK]
    assert risk["world"] == world.name
    assert risk["time"] == (START + timedelta(seconds=20)).isoformat()
    assert "| BTC | unknown |" in str(risk["newest"])
    assert "risk_BTC" not in risk, "an unknown score is absent, not zero"
    assert keys.LIVE_SIGNALS in seen
    assert keys.LIVE_ALERTS in seen
    found = checks(result)
    assert found["scores_in_bounds"]
    assert found["messages_fit"]
    assert found["on_time"]
    assert not found["inputs_known"], "a world of twenty seconds is still warming up"
    with connect(world.database_url) as connection:
        row = connection.execute("SELECT DISTINCT dagster_run_id FROM ticks").fetchall()
    assert row == [(result.run_id,)]


def test_a_tick_publishes_its_signals_itself(world: SmallWorld, instance: DagsterInstance) -> None:
    world.activate()
    world.play(0)
    run_job(instance, world.services())
    with connect(world.database_url) as connection:
        states = connection.execute("SELECT DISTINCT state FROM outbox WHERE topic = 'signals'").fetchall()
    assert states == [("done",)]


def test_the_outside_hears_of_each_tick_whether_it_sees_and_whether_its_supervisor_moves(
    world: SmallWorld, instance: DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.activate()
    monkeypatch.setenv(SUPERVISED_HOME, str(tmp_path))
    home = Home(tmp_path)
    home.stamp()
    with receiver() as service:
        blind = world.services(heartbeat_url=service.http)
        seeing = world.services(heartbeat_url=service.http, risk=RiskSettings(min_coverage=0.0))
        for seconds, services in ((0, blind), (10, seeing)):
            world.play(seconds)
            run_job(instance, services)
        os.utime(home.stamp_path, (time.time() - 60, time.time() - 60))
        world.play(20)
        run_job(instance, seeing)
        run_job(instance, seeing)  # scored nothing, so it has nothing to say
        ok = "/ping/s3cretT0ken"
        assert service.paths == [f"{ok}/fail", ok, f"{ok}/fail"]


def test_a_tick_with_nothing_to_do_succeeds_and_claims_nothing(world: SmallWorld, instance: DagsterInstance) -> None:
    world.activate()
    world.play(0)
    run_job(instance, world.services())
    again = run_job(instance, world.services())
    assert again.success
    assert materialized(again) == {}
    assert all(checks(again).values())


def test_a_message_that_does_not_fit_shows_on_the_tick_and_in_the_thorough_check(
    world: SmallWorld, instance: DagsterInstance
) -> None:
    world.activate()
    world.play(0, garbage=2)
    result = run_job(instance, world.services())
    assert not checks(result)["messages_fit"]

    thorough = run_job(instance, world.services(), "live_checks")
    by_name = {evaluation.check_name: evaluation for evaluation in thorough.get_asset_check_evaluations()}
    bad = by_name["prices_rows_fit"]
    assert not bad.passed
    assert "2 messages of the last hour did not fit (newest reason: not_json)" in (bad.description or "")
    assert by_name["open_interest_rows_fit"].passed
    audited = materialized(thorough)[keys.STORED_DATA]
    assert audited["failed"] == sum(not evaluation.passed for evaluation in by_name.values())
    assert "* **prices**: 2 messages of the last hour did not fit" in str(audited["findings"])


def test_a_failed_thorough_check_still_shows_after_the_next_tick(world: SmallWorld, instance: DagsterInstance) -> None:
    """Dagster calls a check "not evaluated" once its asset is newer than it: a tick must not hide a finding."""
    world.activate()
    world.play(0, garbage=1)
    run_job(instance, world.services())
    run_job(instance, world.services(), "live_checks")
    world.play(10)
    assert keys.TABLE["prices"] in materialized(run_job(instance, world.services()))
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [AssetCheckKey(keys.STORED_DATA, "prices_rows_fit")]
    )
    (record,) = found.values()
    assert record.status == AssetCheckExecutionRecordStatus.FAILED
    newest = instance.get_latest_materialization_event(keys.STORED_DATA)
    assert newest is not None
    assert newest.run_id == record.run_id, "the finding is about the newest state of what it hangs on"


def test_the_thorough_checks_name_the_silent_venue(world: SmallWorld, instance: DagsterInstance) -> None:
    world.activate()
    world.play(0)
    run_job(instance, world.services())
    with connect(world.database_url) as connection:
        connection.execute("DELETE FROM prices")
    thorough = run_job(instance, world.services(), "live_checks")
    (silent,) = [
        evaluation
        for evaluation in thorough.get_asset_check_evaluations()
        if evaluation.check_name.endswith("venues_speak") and not evaluation.passed
    ]
    assert silent.check_name == "prices_venues_speak"
    assert "alpha (never)" in (silent.description or "")


def test_before_any_world_the_thorough_checks_find_nothing_wrong(world: SmallWorld, instance: DagsterInstance) -> None:
    thorough = run_job(instance, world.services(), "live_checks")
    assert all(evaluation.passed for evaluation in thorough.get_asset_check_evaluations())


def test_a_failing_part_fails_the_run_in_one_clear_sentence(world: SmallWorld, instance: DagsterInstance) -> None:
    world.database_url = f"postgresql://liq:secret-word@127.0.0.1:{free_port()}/liq"
    result = run_job(instance, world.services(), succeeds=False)
    assert not result.success
    sentence = failure_of(result)
    assert sentence.startswith("The tick stopped: the database answered: ")
    assert "\n" not in sentence
    assert "secret-word" not in sentence


@pytest.fixture
def in_force(world: SmallWorld, monkeypatch: pytest.MonkeyPatch) -> SmallWorld:
    """The world's addresses in the environment, where sensors look."""
    for name, value in world.environment().items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    monkeypatch.setattr(sensors, "PATIENCE_SECONDS", 0.5)
    return world


def ask_tick_sensor(instance: DagsterInstance) -> RunRequest | SkipReason:
    answer = sensors.tick_when_due(build_sensor_context(instance=instance))
    assert isinstance(answer, RunRequest | SkipReason)
    return answer


def test_the_sensor_asks_for_one_tick_when_points_are_due_and_none_afterwards(
    in_force: SmallWorld, instance: DagsterInstance
) -> None:
    waiting = ask_tick_sensor(instance)
    assert isinstance(waiting, SkipReason)
    assert "No world is active" in str(waiting.skip_message)

    in_force.activate()
    in_force.play(0)
    assert isinstance(ask_tick_sensor(instance), RunRequest)

    run_job(instance, in_force.services())
    done = ask_tick_sensor(instance)
    assert isinstance(done, SkipReason)
    assert "nothing is due" in str(done.skip_message)


def test_the_sensor_asks_for_nothing_while_a_tick_is_in_flight(in_force: SmallWorld, instance: DagsterInstance) -> None:
    in_force.activate()
    in_force.play(0)
    job = build_definitions().get_repository_def().get_job("live_tick")
    run = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    busy = ask_tick_sensor(instance)
    assert isinstance(busy, SkipReason)
    assert "A tick is being run" in str(busy.skip_message)
    instance.report_run_failed(run)
    assert isinstance(ask_tick_sensor(instance), RunRequest)


def test_a_run_that_a_dead_daemon_never_started_holds_up_no_tick_for_long(
    in_force: SmallWorld, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_force.activate()
    in_force.play(0)
    job = build_definitions().get_repository_def().get_job("live_tick")
    instance.create_run_for_job(job, status=DagsterRunStatus.NOT_STARTED)
    assert isinstance(ask_tick_sensor(instance), SkipReason), "it may be about to start"
    monkeypatch.setattr(sensors, "STARTING_PATIENCE", timedelta(seconds=-5))
    assert isinstance(ask_tick_sensor(instance), RunRequest)


def test_the_sensor_sees_that_a_played_world_went_on_before_anything_landed(
    in_force: SmallWorld, instance: DagsterInstance
) -> None:
    in_force.activate()
    in_force.play(0)
    run_job(instance, in_force.services())
    in_force.play(4)
    assert isinstance(ask_tick_sensor(instance), SkipReason), "no grid point was passed"
    in_force.play(10)
    assert isinstance(ask_tick_sensor(instance), RunRequest)


def test_a_history_is_landed_while_the_rest_of_it_is_still_being_sent(
    in_force: SmallWorld, instance: DagsterInstance
) -> None:
    in_force.activate()
    in_force.play(0, watermark=False)
    assert isinstance(ask_tick_sensor(instance), RunRequest)
    landed = run_job(instance, in_force.services())
    assert materialized(landed) == {keys.TABLE[t]: {"rows": 1} for t in ("prices", "funding_rates", "open_interest")}
    waiting = ask_tick_sensor(instance)
    assert isinstance(waiting, SkipReason)
    assert "has no clock yet" in str(waiting.skip_message)


def test_the_sensor_survives_kafka_being_away(
    in_force: SmallWorld, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_force.activate()
    in_force.play(0)
    run_job(instance, in_force.services())
    monkeypatch.setenv("LIQ_KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    get_settings.cache_clear()
    assert isinstance(ask_tick_sensor(instance), SkipReason)


def test_nothing_is_polled_but_in_live_mode(in_force: SmallWorld, instance: DagsterInstance) -> None:
    answer = sensors.poll_when_due(build_sensor_context(instance=instance))
    assert isinstance(answer, SkipReason)
    assert "simulated mode" in str(answer.skip_message)


def test_a_retry_that_is_due_gets_a_delivery(in_force: SmallWorld, instance: DagsterInstance) -> None:
    assert isinstance(sensors.deliver_when_due(build_sensor_context(instance=instance)), SkipReason)
    with connect(in_force.database_url) as connection:
        connection.execute(
            "INSERT INTO outbox (outbox_id, world, topic, message_key, payload, due_at)"
            " VALUES (gen_random_uuid(), 'simulated/small', 'alerts', 'key', '{\"id\": 1}', clock_timestamp())"
        )
    assert isinstance(sensors.deliver_when_due(build_sensor_context(instance=instance)), RunRequest)
    result = run_job(instance, in_force.services(), "alert_delivery")
    assert result.success
    assert isinstance(sensors.deliver_when_due(build_sensor_context(instance=instance)), SkipReason)
