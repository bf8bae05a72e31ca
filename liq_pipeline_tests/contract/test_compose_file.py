"""docker-compose.yml against what the program really has: settings, commands, ports, files, roles.

No Docker runs here: what can be held without it is held, so that the file does not rot beside the program.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema.validators
import psycopg
import pytest
import yaml

from liq_pipeline.runtime.servers.kafka_jars import COORDINATES
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres, find_binaries
from liq_pipeline.settings import Settings
from liq_pipeline.store.schema.migrations import migrate
from liq_pipeline_tests.deployment_support import unknown_variables, variables_named_in, wrong_commands

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("liq_pipeline")}
SOURCES = {"collector", "player", "recording"}
EXAMPLE = (ROOT / ".env.example").read_text()
EXAMPLE_VALUES = dict(re.findall(r"^([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
SECRETS = {
    *("POSTGRES_PASSWORD", "DATABASE_PASSWORD", "WRITER_PASSWORD", "READER_PASSWORD", "DAGSTER_PASSWORD"),
    *("GRAFANA_ADMIN_PASSWORD", "KAFKA_CLUSTER_ID", "LIQ_WEB_TOKEN"),
}


def dagster_files() -> str:
    """Dagster's own files, as they are mounted."""
    return (ROOT / "dagster_home" / "dagster.yaml").read_text() + (ROOT / "docker" / "workspace.yaml").read_text()


def dagster_variables() -> set[str]:
    """Every environment variable that they read."""
    return variables_named_in(dagster_files())


def interpolate(text: str, values: dict[str, str]) -> str:
    """As compose does it for the forms that the file uses; KeyError with the message for a required one."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if values.get(name):
            return values[name]
        if kind == ":?":
            raise KeyError(f"{name}: {rest}")
        return rest or ""

    return re.sub(r"\$\{([A-Z_]+)(?:(:\?|:-)([^}]*))?\}", value, text)


def specification() -> jsonschema.protocols.Validator:
    """The Compose Specification's own JSON schema, as check-jsonschema brings it."""
    text = (
        importlib.resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    )
    schema = json.loads(text)
    made: jsonschema.protocols.Validator = jsonschema.validators.validator_for(schema)(schema)
    return made


def test_the_compose_specification_accepts_the_file() -> None:
    assert [error.message for error in specification().iter_errors(COMPOSE)] == []
    wrong = yaml.safe_load(TEXT)
    wrong["services"]["desk"]["comand"] = wrong["services"]["desk"].pop("command")
    assert any("comand" in error.message for error in specification().iter_errors(wrong))


def test_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode:
        pytest.skip("no Docker Compose here: the Compose Specification's schema stands in for it")
    values = {**EXAMPLE_VALUES, **dict.fromkeys(SECRETS, "x")}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    done = subprocess.run(
        [docker, "compose", "config", "--quiet"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_part_of_the_system_is_there() -> None:
    expected = {
        "kafka",
        "kafka-ui",
        "timescaledb",
        "grafana",
        "init",
        "webserver",
        "daemon",
        "code",
        "launcher",
        "desk",
    }
    assert expected | SOURCES <= set(SERVICES)


def test_our_variables_are_variables_that_the_program_reads() -> None:
    given = [name for service in OURS.values() for name in service["environment"]]
    assert given
    assert unknown_variables(given, dagster_files()) == []
    mentioned = set(re.findall(r"^#? ?((?:LIQ|COINGECKO|ETHERSCAN)_[A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert mentioned
    assert unknown_variables(mentioned, dagster_files()) == []


def test_all_that_dagster_s_files_need_is_given() -> None:
    for service in OURS.values():
        assert dagster_variables() | {"DAGSTER_HOME"} <= set(service["environment"])


def test_the_modes_offered_are_modes_and_each_starts_its_one_source() -> None:
    profiles = {profile: name for name in SOURCES for profile in SERVICES[name]["profiles"]}
    assert profiles == {"live": "collector", "simulated": "player", "recorded": "recording"}
    for mode, name in profiles.items():
        Settings(mode=mode)  # type: ignore[arg-type]
        command = SERVICES[name]["command"]
        assert command[:2] == ["liq", "collect"] or command[command.index("--mode") + 1] == mode
    assert EXAMPLE_VALUES["COMPOSE_PROFILES"] == EXAMPLE_VALUES["LIQ_MODE"] == "simulated"
    assert all(not service.get("profiles") for name, service in SERVICES.items() if name not in SOURCES)


def test_there_are_no_default_passwords() -> None:
    assert {name for name in EXAMPLE_VALUES if name in SECRETS} == SECRETS
    assert all(EXAMPLE_VALUES[name] == "" for name in SECRETS)
    for name in SECRETS:
        uses = re.findall(rf"\$\{{{name}[^}}]*\}}", TEXT)
        assert uses, name
        assert all(use.startswith(f"${{{name}:?") for use in uses)
    for service in SERVICES.values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name and value:
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), name


def test_our_containers_do_not_get_the_servers_own_passwords() -> None:
    """env_file hands them all of .env; what environment says stands above it."""
    ours = [service for service in SERVICES.values() if service["image"].startswith("liq_pipeline:")]
    assert len(ours) >= 8
    for service in ours:
        assert service["environment"]["POSTGRES_PASSWORD"] == ""
        assert service["environment"]["GRAFANA_ADMIN_PASSWORD"] == ""


@pytest.mark.parametrize("missing", sorted(SECRETS | {"LIQ_MODE"}))
def test_compose_refuses_to_start_while_a_secret_is_missing(missing: str) -> None:
    values = {**EXAMPLE_VALUES, **dict.fromkeys(SECRETS, "x"), missing: ""}
    with pytest.raises(KeyError, match=missing):
        interpolate(TEXT, values)
    assert "${" not in interpolate(TEXT, {**values, missing: "x"})


PROMISED = {
    "desk": 8000,
    "grafana": 3000,
    "webserver": 3001,
    "kafka-ui": 8080,
    "kafka": 9092,
    "timescaledb": 5432,
    "metrics": 9109,
}
"""The ports that people know. Grafana has 3000, so Dagster is at 3001 here (at 3000 where `liq up` starts it)."""


def test_everything_is_published_on_loopback_only_and_on_the_ports_people_know() -> None:
    published = {}
    for name, service in SERVICES.items():
        assert service.get("network_mode") != "host"
        for port in service.get("ports", []):
            host, outside, inside = re.fullmatch(r"([\d.]+):(\$\{.+\}):(\d+)", port).groups()  # type: ignore[union-attr]
            assert host == "127.0.0.1", name
            variable = re.search(r"\$\{([A-Z_]+)", outside).group(1)  # type: ignore[union-attr]
            published[name] = int(interpolate(outside, {}))
            assert int(EXAMPLE_VALUES[variable]) == published[name]
            assert interpolate(port, {variable: "12345"}) == f"127.0.0.1:12345:{inside}", "each can be moved"
            assert any(inside in word for word in service["healthcheck"]["test"]) or name in ("kafka", "timescaledb")
    assert published == PROMISED


def test_what_leads_from_one_part_to_another_leads_to_its_port() -> None:
    """Links in messages go to the desk, those in the dashboards to the desk and to Dagster."""
    moved = {"DESK_HOST_PORT": "8123"}
    assert {interpolate(service["environment"]["LIQ_ALERT_LINK_URL"], moved) for service in OURS.values()} == {
        "http://127.0.0.1:8123"
    }
    for path in (ROOT / "grafana" / "dashboards").glob("*.json"):
        variables = {each["name"]: each for each in json.loads(path.read_text())["templating"]["list"]}
        assert variables["desk_url"]["current"]["value"] == f"http://127.0.0.1:{PROMISED['desk']}"
        assert variables["dagster_url"]["current"]["value"] == f"http://127.0.0.1:{PROMISED['webserver']}"


def test_the_main_dashboard_is_grafana_s_first_page() -> None:
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    [folder] = [v.split(":")[0] for v in SERVICES["grafana"]["volumes"] if v.split(":")[1] == str(Path(home).parent)]
    assert json.loads((ROOT / folder / Path(home).name).read_text())["title"] == "Liquidation Cascade Monitor"


def test_the_documents_name_the_ports() -> None:
    told = (ROOT / "docs" / "compose.md").read_text()
    for name, port in PROMISED.items():
        assert f"127.0.0.1:{port}" in told, name


def test_the_code_server_listens_where_the_others_look() -> None:
    port = str(Settings().code_server_port)
    command = SERVICES["code"]["command"]
    assert command[command.index("-p") + 1] == port
    assert port in " ".join(SERVICES["code"]["healthcheck"]["test"])
    assert {service["environment"]["LIQ_CODE_SERVER_PORT"] for service in OURS.values()} == {port}
    [location] = yaml.safe_load((ROOT / "docker" / "workspace.yaml").read_text())["load_from"]
    assert location["grpc_server"]["host"] == "code"
    assert str(Settings().metrics_port) in " ".join(SERVICES["metrics"]["healthcheck"]["test"])


def test_every_command_is_one_that_exists() -> None:
    for name, service in OURS.items():
        assert list(wrong_commands(service["command"])) == [], name


DOCKERFILE = (ROOT / "Dockerfile").read_text()
BASE = re.search(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE).group(1)  # type: ignore[union-attr]


def test_images_are_pinned_and_kafka_is_the_release_that_is_embedded() -> None:
    images = {service["image"] for service in SERVICES.values()} | {BASE}
    for image in images:
        assert re.fullmatch(r"[a-z0-9_/-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*(@sha256:[0-9a-f]{64})?", image), image
    unpinned = {image.partition(":")[0] for image in images if "@" not in image}
    assert unpinned == {"liq_pipeline", "kafbat/kafka-ui", "timescale/timescaledb"}, "pin-digests.sh pins the others"
    [kafka] = [each for each in COORDINATES if "kafka_2.13" in each]
    assert SERVICES["kafka"]["image"].partition("@")[0].endswith(f":{kafka.rpartition(':')[2]}")


def test_the_image_is_built_in_stages_and_the_last_one_is_not_root() -> None:
    stages = re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[1:]
    names = [re.match(r"FROM (\S+) AS (\S+)", stage).groups() for stage in stages]  # type: ignore[union-attr]
    assert {base for base, _ in names} == {"${PYTHON}", "scratch"}
    runtime = stages[-1]
    assert "pip install" not in runtime, "what builds stays in the stages before"
    for source in re.findall(r"--from=(\S+)", DOCKERFILE):
        assert source in [name for _, name in names]
    user, group = re.findall(r"^USER (\d+):(\d+)$", runtime, re.MULTILINE)[-1]
    assert int(user) > 0 < int(group)
    assert f"useradd --system --uid {user} " in runtime
    inventory = next(stage for stage in stages if "cyclonedx" in stage)
    assert re.search(r"cyclonedx-bom==\d+\.\d+\.\d+ ", inventory)
    assert "/sbom.cdx.json" in runtime
    assert BASE.startswith("python:3.11.")


@pytest.mark.parametrize("answer", ["sha256:" + "ab" * 32, ""], ids=["a registry that answers", "one that does not"])
def test_the_digests_of_the_others_can_be_asked_for(tmp_path: Path, answer: str) -> None:
    """A stand-in for the registry, behind the docker command that the script calls."""
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "pin-digests.sh", tmp_path / "docker")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / "bin").mkdir()
    asked = tmp_path / "asked"
    (tmp_path / "bin" / "docker").write_text(
        f'#!/bin/sh\nfor last; do :; done\necho "$last" >> {asked}\necho "{answer}"\n'
    )
    (tmp_path / "bin" / "docker").chmod(0o755)
    done = subprocess.run(
        ["sh", str(tmp_path / "docker" / "pin-digests.sh")],
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    made = tmp_path / "docker-compose.digests.yml"
    if not answer:
        assert done.returncode == 2
        assert "named no digest for kafbat/kafka-ui" in done.stderr
        assert not made.exists()
        return
    assert done.returncode == 0, done.stderr
    unpinned = {name: s["image"] for name, s in SERVICES.items() if "@" not in s["image"] and name not in OURS}
    assert set(asked.read_text().split()) == set(unpinned.values())
    pinned = yaml.safe_load(made.read_text())
    assert pinned["services"] == {name: {"image": f"{image}@{answer}"} for name, image in unpinned.items()}
    assert [error.message for error in specification().iter_errors(pinned)] == []


def test_what_runs_for_long_has_a_health_check_and_what_waits_waits_for_one() -> None:
    for name, service in SERVICES.items():
        # The sources are judged by what arrives (metrics, `liq status`), not by their process.
        assert ("healthcheck" in service) == (name != "init" and name not in SOURCES), name
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
            else:
                assert (other, how["condition"]) == ("init", "service_completed_successfully")
    assert SERVICES["init"]["restart"] == "no"
    assert SERVICES["init"]["command"][-1] == "liq migrate && liq topics"


def test_every_volume_is_declared_and_every_mounted_file_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = interpolate(volume, {}).split(":")[0]
            if source.startswith("./"):
                assert source == "./recording" or (ROOT / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]


def test_grafana_gets_what_its_data_source_asks_for() -> None:
    asked = set(
        re.findall(r"\$\{([A-Z_]+)\}", (ROOT / "grafana/provisioning/datasources/timescaledb.yaml").read_text())
    )
    assert asked
    assert asked <= set(SERVICES["grafana"]["environment"])
    [provider] = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/liq_pipeline.yaml").read_text())["providers"]
    mounts = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts


def test_the_image_holds_all_that_the_program_needs_at_run_time() -> None:
    runtime = re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)[-1]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored

    def copied(text: str) -> set[str]:
        lines = re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        return {word for line in lines for word in line.split()[:-1]}

    for path in copied(DOCKERFILE):
        assert (ROOT / path).exists(), path
        assert f"!{path}" in ignored, f"{path} does not reach the build"
    assert {"liq_pipeline", "sql", "dagster_home"} <= copied(runtime)
    assert "constraints.txt" in copied(DOCKERFILE)


def test_new_env_fills_every_secret_once_and_for_its_owner_only(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "new-env.sh", tmp_path / "docker")
    shutil.copy(ROOT / ".env.example", tmp_path)
    command = ["sh", str(tmp_path / "docker" / "new-env.sh")]
    subprocess.run(command, check=True, capture_output=True)
    made = tmp_path / ".env"
    values = dict(re.findall(r"^([A-Z_]+)=(.*)$", made.read_text(), re.MULTILINE))
    assert made.stat().st_mode & 0o077 == 0
    assert set(values) == set(EXAMPLE_VALUES)
    for name in SECRETS:
        assert re.fullmatch(r"[A-Za-z0-9_-]{22,}", values[name]), f"{name} must fit into a URL as it is"
    assert len({values[name] for name in SECRETS}) == len(SECRETS)
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_the_database_roles_are_what_they_are_meant_to_be(postgres_server: EmbeddedPostgres) -> None:
    """The set-up script on a real server (names changed, the extension left out: it is the image's business)."""
    script = (ROOT / "docker" / "timescaledb" / "10-roles-and-databases.sh").read_text()
    script = script.replace("CREATE EXTENSION IF NOT EXISTS timescaledb;", "")
    script = re.sub(r"\bliq\b", "box_liq", script)
    script = re.sub(r"\bliq_(reader|writer|dagster)\b", r"box_\1", script)
    script = re.sub(r"\bDATABASE dagster\b", "DATABASE box_dagster", script)
    psql = find_binaries() / "psql"
    if not psql.exists():
        pytest.skip("this PostgreSQL has no psql")
    parts = psycopg.conninfo.conninfo_to_dict(postgres_server.url("postgres"))
    environment = {
        "PATH": f"{psql.parent}:{os.environ['PATH']}",
        "PGHOST": str(parts["host"]),
        "PGPORT": str(parts["port"]),
        "PGPASSWORD": str(parts["password"]),
        "POSTGRES_USER": str(parts["user"]),
        "DATABASE_PASSWORD": "owner'secret",
        "READER_PASSWORD": "reader-secret",
        "WRITER_PASSWORD": "writer-secret",
        "DAGSTER_PASSWORD": "dagster-secret",
    }
    try:
        done = subprocess.run(["sh"], input=script, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        place = f"{parts['host']}:{parts['port']}/box_liq"
        assert migrate(f"postgresql://box_liq:owner%27secret@{place}")
        dagster = f"postgresql://box_dagster:dagster-secret@{parts['host']}:{parts['port']}"
        with psycopg.connect(f"{dagster}/box_dagster") as connection:
            connection.execute("CREATE TABLE runs (a int)")
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(f"{dagster}/box_liq")
        with (
            psycopg.connect(f"postgresql://box_writer:writer-secret@{place}") as writer,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            writer.execute("CREATE TABLE mine (a int)")
        with psycopg.connect(f"postgresql://box_reader:reader-secret@{place}") as reader:
            assert reader.execute("SELECT count(*) FROM alerts").fetchone() == (0,)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                reader.execute("DELETE FROM alerts")
        with psycopg.connect(f"postgresql://box_reader:reader-secret@{place}") as reader:
            reader.execute("SET default_transaction_read_only = off")
            reader.commit()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute("DELETE FROM alerts")
    finally:
        with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
            for statement in (
                "DROP DATABASE IF EXISTS box_liq WITH (FORCE)",
                "DROP DATABASE IF EXISTS box_dagster WITH (FORCE)",
                "DROP ROLE IF EXISTS box_liq",
                "DROP ROLE IF EXISTS box_reader",
                "DROP ROLE IF EXISTS box_writer",
                "DROP ROLE IF EXISTS box_dagster",
            ):
                admin.execute(statement)
