"""What the children of `liq up` are called with, and where Dagster finds its files."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
import yaml

from liq_pipeline.errors import LiqError
from liq_pipeline.runtime import parts
from liq_pipeline.runtime.endpoints import Endpoints
from liq_pipeline.runtime.home import SUPERVISED_HOME, Home
from liq_pipeline.runtime.servers import dagster_home, kafka_jars
from liq_pipeline.runtime.supervisor import PLAYER_RANK, POSTGRES_RANK, Part

ENDPOINTS = Endpoints(
    database_url="postgresql://liq:secret@127.0.0.1:1/liq",
    kafka_bootstrap_servers="127.0.0.1:2",
    dagster_url="http://127.0.0.1:3",
    desk_url="http://127.0.0.1:5",
    dagster_storage_url="postgresql+psycopg2://x",
    code_server_port=4,
    mode="simulated",
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.prepare()
    return made


def environment(home: Home, record_dir: Path | None = None) -> dict[str, str]:
    return parts.environment(home, ENDPOINTS, record_dir=record_dir)


def command(part: Part) -> list[str]:
    return part.service._command  # type: ignore[attr-defined, no-any-return]


def test_children_get_every_address_by_environment(home: Home) -> None:
    given = environment(home)
    expected = {
        "LIQ_DATABASE_URL": ENDPOINTS.database_url,
        "LIQ_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:2",
        "LIQ_MODE": "simulated",
        "LIQ_HOME": str(home.path),
        "DAGSTER_HOME": str(home.path / "dagster"),
        SUPERVISED_HOME: str(home.path),
        "LIQ_ALERT_LINK_URL": str(ENDPOINTS.desk_url),
    }
    assert {name: given[name] for name in expected} == expected


def test_every_variable_that_dagster_s_files_name_is_given(home: Home) -> None:
    def names(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["env"]} if isinstance(value.get("env"), str) else set()
            return own.union(*(names(item) for item in value.values()))
        if isinstance(value, list):
            return set().union(*(names(item) for item in value))
        return set()

    dagster_home.prepare(home)
    wanted = set()
    for name in dagster_home.FILES:
        wanted |= names(yaml.safe_load((home.dagster / name).read_text()))
    assert wanted
    assert wanted <= set(environment(home))


def test_dagster_s_telemetry_is_off(home: Home) -> None:
    dagster_home.prepare(home)
    assert yaml.safe_load((home.dagster / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}
    assert environment(home)["DAGSTER_DISABLE_TELEMETRY"] == "yes"


def test_no_password_is_on_a_command_line(home: Home) -> None:
    given = environment(home)
    everything = parts.dagster_parts(home, given, {"dagster": 3, "code_server": 4})
    everything.append(parts.source_part(home, given, "live", recording=None, speed=1, once=False))
    for part in everything:
        assert "secret" not in " ".join(command(part))


@pytest.mark.parametrize(
    ("mode", "speed", "once", "expected"),
    [
        ("live", 1.0, False, "collect"),
        ("simulated", 1.0, False, "play --mode simulated --speed 1"),
        ("recorded", None, True, "play --mode recorded --speed max --recording /r --once"),
        ("recorded", 60.0, False, "play --mode recorded --speed 60 --recording /r"),
    ],
)
def test_the_source_of_each_mode(
    home: Home, mode: parts.EffectiveMode, speed: float | None, once: bool, expected: str
) -> None:
    recording = Path("/r") if mode == "recorded" else None
    part = parts.source_part(home, {}, mode, recording=recording, speed=speed, once=once)
    assert " ".join(command(part)).endswith(f"-m liq_pipeline.cli {expected}")
    assert part.rank == PLAYER_RANK < POSTGRES_RANK
    assert part.finishes is (mode == "recorded")


def test_recording_raw_answers_is_passed_on(home: Home, tmp_path: Path) -> None:
    assert "LIQ_SOURCE_RECORD_DIR" not in environment(home)
    assert environment(home, tmp_path)["LIQ_SOURCE_RECORD_DIR"] == str(tmp_path)


def test_numeric_libraries_run_on_one_thread_unless_told_otherwise(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    given = environment(home)
    assert (given["OMP_NUM_THREADS"], given["OPENBLAS_NUM_THREADS"]) == ("4", "1")


def test_the_launcher_s_socket_fits_the_kernel_s_limit_in_a_deep_home_too() -> None:
    shallow, deep = Home(Path("/var/lib/x")), Home(Path("/var/lib") / ("d" * 60) / ("e" * 60))
    assert dagster_home.zygote_socket(shallow).parent == shallow.path
    path = dagster_home.zygote_socket(deep)
    assert len(str(path)) <= dagster_home.LONGEST_SOCKET_PATH
    assert path == dagster_home.zygote_socket(deep)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.is_relative_to(tempfile.gettempdir())
    path.parent.rmdir()


# -- the broker's jars ---------------------------------------------------------------------------------------------


def test_every_jar_is_locked_once_by_coordinate_checksum_and_size() -> None:
    jars = kafka_jars.locked_jars()
    assert len({jar.file_name for jar in jars}) == len(jars) > 20
    assert all(len(jar.sha256) == 64 and jar.size_bytes > 0 for jar in jars)
    locked = {jar.coordinate for jar in jars}
    assert set(kafka_jars.COORDINATES) <= locked


def test_a_damaged_lock_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "kafka_jars.lock"
    damaged.write_text("# comment\norg.apache.kafka:kafka_2.13 nonsense\n")
    monkeypatch.setattr(kafka_jars, "LOCK", damaged)
    kafka_jars.locked_jars.cache_clear()
    try:
        with pytest.raises(LiqError, match="line 2 of"):
            kafka_jars.locked_jars()
    finally:
        kafka_jars.locked_jars.cache_clear()


def test_offline_without_the_jars_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy that nobody runs: every way out of this machine is closed.
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("M2_REPO", os.fspath(tmp_path / "empty"))
    with pytest.raises(LiqError, match="LIQ_KAFKA_BOOTSTRAP_SERVERS") as failure:
        kafka_jars.ensure_jars(tmp_path / "cache")
    assert "connect this machine once" in str(failure.value)
    assert list((tmp_path / "cache").glob("*.jar")) == []
