"""The asset graph is what we say it is: lineage from source to dashboard, owned, described, checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    BackfillPolicy,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    Definitions,
    HourlyPartitionsDefinition,
)
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.repository_definition import RepositoryDefinition

from liq_pipeline.definitions import build_definitions, defs
from liq_pipeline.defs import keys
from liq_pipeline.defs.live import tick as live
from liq_pipeline.defs.upkeep import checks

SNAPSHOT = Path(__file__).with_name("asset_graph.json")
HEAVY = ("ccxt", "sklearn", "matplotlib", "scipy", "apprise", "pyarrow", "alembic", "mako", "pygments", "rich", "typer")


@pytest.fixture(scope="module")
def repository() -> RepositoryDefinition:
    return defs.get_repository_def()


@pytest.fixture(scope="module")
def graph(repository: RepositoryDefinition) -> AssetGraph:
    return repository.asset_graph


def picture(graph: AssetGraph) -> dict[str, Any]:
    """The graph in words: what a person must agree to before it changes."""
    assets = {}
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assets[key.to_user_string()] = {
            "group": node.group_name,
            "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
            "kinds": sorted(node.kinds),
            "checks": sorted(check.name for check in node.check_keys),
            "materialised_by_us": node.is_executable,
            "has_freshness_policy": node.freshness_policy_or_from_metadata is not None,
        }
    return dict(sorted(assets.items()))


def test_definitions_load_and_are_valid() -> None:
    Definitions.validate_loadable(defs)


def test_the_graph_is_the_one_that_was_agreed_on(graph: AssetGraph) -> None:
    """After a change that is meant: UPDATE_SNAPSHOTS=1 writes the file anew, and the diff is the review."""
    now = picture(graph)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(now, indent=1) + "\n")
    assert now == json.loads(SNAPSHOT.read_text())


def test_every_dashboard_and_channel_can_be_traced_to_every_source(graph: AssetGraph) -> None:
    for end in (keys.DASHBOARD, keys.CHANNELS):
        seen, waiting = set(), [end]
        while waiting:
            key = waiting.pop()
            seen.add(key)
            waiting += [parent for parent in graph.get(key).parent_keys if parent not in seen]
        sources = {key for key in graph.get_all_asset_keys() if key.path[0] == "sources"}
        assert sources <= seen


def test_every_asset_says_what_it_is_and_whose(graph: AssetGraph) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners == [keys.OWNER], key
        assert node.kinds, key
        assert node.group_name != "default", key


def test_every_live_asset_has_a_freshness_policy_and_a_code_version(graph: AssetGraph) -> None:
    ours = [key for key in graph.get_all_asset_keys() if key.path[0] == "live"]
    assert len(ours) == 12
    for key in [*ours, keys.STORED_DATA]:
        assert graph.get(key).freshness_policy_or_from_metadata is not None, key
    for key in ours:
        assert graph.get(key).code_version, key


def test_thorough_checks_hang_on_nothing_that_a_tick_renews(graph: AssetGraph) -> None:
    """Dagster shows a check as not evaluated once its asset is materialised anew."""
    assert {spec.asset_key for spec in checks.SPECS} == {keys.STORED_DATA}
    assert keys.STORED_DATA not in {spec.key for spec in live.SPECS}
    assert {"live/prices", "live/signals", "live/alerts"} <= {
        parent.to_user_string() for parent in graph.get(keys.STORED_DATA).parent_keys
    }


def test_a_tick_makes_few_checks_and_the_thorough_ones_run_apart(repository: RepositoryDefinition) -> None:
    def checks_of(job_name: str) -> set[AssetCheckKey]:
        selected = repository.get_job(job_name).asset_layer.asset_graph.asset_check_keys
        return set(selected)

    tick, thorough = checks_of("live_tick"), checks_of("live_checks")
    assert {key.name for key in tick} == {spec.name for spec in live.CHECKS}
    assert {key.name for key in thorough} == {spec.name for spec in checks.SPECS}
    assert not tick & thorough
    assert len(tick) <= 4


def test_jobs_that_must_not_overlap_or_hang_say_so(repository: RepositoryDefinition) -> None:
    for job in repository.get_all_jobs():
        if job.name.startswith("__"):
            continue
        assert job.tags[keys.STREAM_TAG], job.name
        assert int(job.tags[keys.MAX_RUNTIME_TAG]) > 0, job.name
        assert job.executor_def.name == "in_process", job.name


def test_a_fresh_home_works_without_a_click(repository: RepositoryDefinition) -> None:
    for sensor in repository.sensor_defs:
        assert sensor.default_status == DefaultSensorStatus.RUNNING, sensor.name
    for schedule in repository.schedule_defs:
        assert schedule.default_status == DefaultScheduleStatus.RUNNING, schedule.name


def test_resources_can_be_replaced() -> None:
    replaced = build_definitions(resources={"services": "a plain object"})
    assert replaced.get_repository_def().get_top_level_resources()["services"].resource_fn(None) == "a plain object"


def test_importing_the_definitions_brings_no_heavy_library() -> None:
    code = f"import liq_pipeline.definitions, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_history_has_hours_of_its_own_and_one_run_serves_a_range(graph: AssetGraph) -> None:
    for key in (keys.HISTORY_OBSERVATIONS, keys.HISTORY_SIGNALS):
        node = graph.get(key)
        assert isinstance(node.partitions_def, HourlyPartitionsDefinition)
        assert node.partitions_def.timezone == "UTC"
        assert node.backfill_policy == BackfillPolicy.single_run()
    assert graph.get(keys.HISTORY_SIGNALS).parent_keys == {keys.HISTORY_OBSERVATIONS}
    assert not any(graph.get(key).partitions_def for key in graph.get_all_asset_keys() if key.path[0] != "history")


def test_unknown_keys_are_not_in_the_graph(graph: AssetGraph) -> None:
    assert not graph.has(AssetKey(["history", "prices"]))
