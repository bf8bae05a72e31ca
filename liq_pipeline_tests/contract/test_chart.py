"""The chart under deploy/ against what Kubernetes and the program really have, and against mistakes made on purpose.

No cluster runs here: what can be held without one is held. helm lints and renders it; Kubernetes' own schemas, the
settings, the commands, the ports and Dagster's files are held against what came out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dagster._core.launcher import RunLauncher
from dagster._serdes import ConfigurableClassData

from liq_pipeline.bus.topics import IN_TOPICS, OUT_TOPICS, PARTITIONS, RETENTION_DAYS
from liq_pipeline.launcher.lanes import LaneRunLauncher
from liq_pipeline.runtime.servers.kafka_jars import COORDINATES
from liq_pipeline.settings import Settings
from liq_pipeline.sources.registry import VENUES
from liq_pipeline_tests.deployment_support import ROOT, unknown_variables, variables_named_in, wrong_commands
from liq_pipeline_tests.helm_program import HelmUnavailableError, helm_program

pytestmark = [pytest.mark.xdist_group("helm"), pytest.mark.timeout(1200)]

CHART = ROOT / "deploy" / "liq-pipeline"
KUBERNETES = ("1.27", "1.34")
LIVE = ("kafka.bootstrapServers=kafka.data:9092",)
EVERYTHING = (
    *("kafka.strimzi.enabled=true", "database.bundled.enabled=true", "backup.enabled=true", "mode=simulated"),
    *("secrets.settingsName=more", "kafka.partitions=6", "land.replicas=4", "desk.url=https://desk.example.org"),
    *("image.pullSecrets[0].name=registry", "desk.names={desk.example.org}", "heavy.concurrent=4"),
)
VALUES = {"live": LIVE, "everything": EVERYTHING}
Document = dict[str, Any]


@pytest.fixture(scope="module")
def helm() -> Path:
    try:
        return helm_program()
    except HelmUnavailableError as reason:
        pytest.skip(str(reason))


@dataclass(frozen=True)
class Rendered:
    """What helm makes of a chart."""

    documents: list[Document]

    def of(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def named(self, kind: str, name: str) -> Document:
        [found] = [document for document in self.of(kind) if document["metadata"]["name"] == name]
        return found

    def pods(self) -> Iterator[tuple[str, Document]]:
        """(name of what makes it, pod template)."""
        for document in self.documents:
            spec = document.get("spec", {})
            if document["kind"] == "CronJob":
                spec = spec["jobTemplate"]["spec"]
            if document["kind"] in ("Deployment", "StatefulSet", "Job", "CronJob"):
                yield document["metadata"]["name"], spec["template"]

    def containers(self) -> Iterator[tuple[str, Document]]:
        for name, pod in self.pods():
            for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
                yield f"{name}/{container['name']}", container

    def dagster_files(self) -> dict[str, str]:
        data: dict[str, str] = self.named("ConfigMap", "liq-dagster")["data"]
        return data


def render(helm: Path, chart: Path, values: tuple[str, ...], version: str = KUBERNETES[-1]) -> Rendered:
    command = [helm, "template", "liq", chart, "--namespace", "risk", "--kube-version", f"{version}.0"]
    done = subprocess.run(
        [*command, *(part for value in values for part in ("--set", value))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Rendered([document for document in yaml.safe_load_all(done.stdout) if document])


@pytest.fixture(scope="module", params=sorted(VALUES))
def rendered(request: pytest.FixtureRequest, helm: Path) -> Rendered:
    return render(helm, CHART, VALUES[request.param])


# -- what can be wrong with it ---------------------------------------------------------------------------------------


def problems(chart: Rendered) -> list[str]:
    """Everything that does not fit together, in words; an empty list for a chart that does."""
    return [*_variables(chart), *_commands(chart), *_ports(chart), *_names(chart), *_safety(chart), *_dagster(chart)]


def _is_ours(container: Document) -> bool:
    return bool(str(container["image"]).startswith("liq_pipeline:"))


def _environment(container: Document) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}


def _variables(chart: Rendered) -> Iterator[str]:
    files = "".join(chart.dagster_files().values())
    for name, container in chart.containers():
        given = _environment(container)
        if len(given) != len(container.get("env", [])):
            yield f"{name}: a variable is given twice"
        if not _is_ours(container):
            continue
        yield from (f"{name}: {variable} is read by nothing" for variable in unknown_variables(given, files))
        for needed in variables_named_in(files) | {"DAGSTER_HOME", "LIQ_DATABASE_URL", "LIQ_KAFKA_BOOTSTRAP_SERVERS"}:
            if needed not in given:
                yield f"{name}: {needed} is missing"
        for variable in ("LIQ_MODE", "LIQ_SYMBOLS"):
            if variable in given:
                Settings(**{variable.removeprefix("LIQ_").lower(): given[variable]})
        for variable, value in given.items():
            if re.search(r"URL$|TOKEN|PASSWORD|KEY$", variable) and isinstance(value, str) and "LINK" not in variable:
                yield f"{name}: {variable} is a secret and stands in the chart"


def _commands(chart: Rendered) -> Iterator[str]:
    for name, container in chart.containers():
        if _is_ours(container):
            yield from (f"{name}: {wrong}" for wrong in wrong_commands(container["command"]))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            command = container.get(probe, {}).get("exec", {}).get("command")
            if command and command[0] != "python":
                yield from (f"{name} {probe}: {wrong}" for wrong in wrong_commands(command))


def _ports(chart: Rendered) -> Iterator[str]:
    """Services lead to ports that exist, and to what the programs listen on; defaults are the program's own."""
    defaults = Settings()
    expected = {
        "liq-desk": defaults.web_port,
        "liq-dagster": defaults.dagster_port,
        "liq-metrics": defaults.metrics_port,
        "liq-code": defaults.code_server_port,
    }
    for service in chart.of("Service"):
        name, selector = service["metadata"]["name"], service["spec"]["selector"]
        targets = [pod for _, pod in chart.pods() if selector.items() <= pod["metadata"].get("labels", {}).items()]
        if len(targets) != 1:
            yield f"service {name}: {len(targets)} kinds of pods behind it"
            continue
        containers = targets[0]["spec"]["containers"]
        open_ports = {port["name"]: (port["containerPort"], c) for c in containers for port in c.get("ports", [])}
        for port in service["spec"].get("ports", []):
            number, container = open_ports.get(port["targetPort"], (None, None))
            if number is None or number != port["port"] or expected.get(name, number) != number:
                own = expected.get(name)
                yield f"service {name}: port {port['port']} leads to {number}, the program's own is {own}"
            elif container is not None and _is_ours(container) and str(number) not in container["command"]:
                yield f"service {name}: {' '.join(container['command'])} does not listen on {number}"
    addresses = {service["metadata"]["name"]: service["spec"].get("ports", []) for service in chart.of("Service")}
    for name, container in chart.containers():
        environment = _environment(container)
        for url in re.findall(r"http://([a-z-]+):(\d+)", " ".join(container.get("command", []))):
            if int(url[1]) not in [port["port"] for port in addresses.get(url[0], [])]:
                yield f"{name}: {url[0]}:{url[1]} is no service of this chart"
        host, port = environment.get("LIQ_CODE_SERVER_HOST"), environment.get("LIQ_CODE_SERVER_PORT")
        if host is not None and str(port) not in [str(p["port"]) for p in addresses.get(host, [])]:
            yield f"{name}: {host}:{port} is no service of this chart"


def _names(chart: Rendered) -> Iterator[str]:
    """Whatever is referred to by name is there."""
    known = {(document["kind"], document["metadata"]["name"]) for document in chart.documents}
    for name, pod in chart.pods():
        spec = pod["spec"]
        if spec.get("serviceAccountName") and ("ServiceAccount", spec["serviceAccountName"]) not in known:
            yield f"{name}: no service account {spec['serviceAccountName']}"
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        sets = [document for document in chart.of("StatefulSet") if document["metadata"]["name"] == name]
        claims = [claim for document in sets for claim in document["spec"].get("volumeClaimTemplates", [])]
        claimed = {claim["metadata"]["name"] for claim in claims}
        for volume in volumes.values():
            if "configMap" in volume and ("ConfigMap", volume["configMap"]["name"]) not in known:
                yield f"{name}: no config map {volume['configMap']['name']}"
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes.keys() | claimed:
                    yield f"{name}: no volume {mount['name']}"
    labels = [pod["metadata"].get("labels", {}) for _, pod in chart.pods()]
    for document in chart.documents:
        if document["kind"] == "PodDisruptionBudget":
            wanted = document["spec"]["selector"]["matchLabels"]
            if not any(wanted.items() <= given.items() for given in labels):
                yield f"{document['metadata']['name']}: protects no pod"


def _safety(chart: Rendered) -> Iterator[str]:
    """Non-root, bounded, without a token of the cluster unless it starts jobs, and nothing is open to everybody."""
    for name, pod in chart.pods():
        context = pod["spec"].get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{name}: may run as root"
        may_ask = pod["spec"].get("automountServiceAccountToken")
        if may_ask != (pod["spec"].get("serviceAccountName") is not None):
            yield f"{name}: a token of the cluster is given where none is needed, or missing where one is"
        for container in (*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]):
            security, resources = container.get("securityContext", {}), container.get("resources", {})
            if (
                security.get("allowPrivilegeEscalation") is not False
                or security.get("readOnlyRootFilesystem") is not True
                or security.get("capabilities") != {"drop": ["ALL"]}
            ):
                yield f"{name}/{container['name']}: has more rights than it needs"
            if "memory" not in resources.get("limits", {}) or not {"cpu", "memory"} <= set(
                resources.get("requests", {})
            ):
                yield f"{name}/{container['name']}: asks for no bounded memory and processor"
    policies = chart.of("NetworkPolicy")
    if not any(policy["spec"]["policyTypes"] == ["Ingress", "Egress"] for policy in policies):
        yield "no network policy closes what is not named"
    for service in chart.of("Service"):
        if service["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield f"{service['metadata']['name']}: is open beyond the cluster"


def _dagster(chart: Rendered) -> Iterator[str]:
    """Its files are those of dagster_home/, but for where runs start, where output goes and how many heavy runs go."""
    ours = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    theirs = yaml.safe_load(chart.dagster_files()["dagster.yaml"])
    differing = {"run_launcher", "compute_logs", "concurrency", "run_monitoring"}
    for name in ours.keys() | theirs.keys():
        if name not in differing and ours.get(name) != theirs.get(name):
            yield f"dagster.yaml: {name} is not that of dagster_home/"
    launcher = theirs["run_launcher"]
    [daemon] = [container for name, container in chart.containers() if name.endswith("-live/daemon")]
    config = _with_values(launcher["config"], _environment(daemon))
    try:
        data = ConfigurableClassData(launcher["module"], launcher["class"], yaml.safe_dump(config))
        made = data.rehydrate(as_type=RunLauncher)
    except Exception as error:
        yield f"dagster.yaml: the run launcher cannot be made: {error}"
        return
    if not isinstance(made, LaneRunLauncher):
        yield "dagster.yaml: the run launcher is not the one of a cluster"
    heavy = launcher["config"]["kubernetes"]
    if ("ServiceAccount", heavy["service_account_name"]) not in {
        (document["kind"], document["metadata"]["name"]) for document in chart.documents
    }:
        yield f"dagster.yaml: no service account {heavy['service_account_name']}"
    container = heavy["run_k8s_config"]["container_config"]
    files = "".join(chart.dagster_files().values())
    given = [entry["name"] for entry in container["env"]]
    yield from (f"a heavy run: {variable} is read by nothing" for variable in unknown_variables(given, files))
    for needed in ("LIQ_DATABASE_URL", "LIQ_KAFKA_BOOTSTRAP_SERVERS", "LIQ_DAGSTER_PG_URL"):
        if needed not in given:
            yield f"a heavy run: {needed} is missing"


def _with_values(config: Any, environment: dict[str, Any]) -> Any:
    """The configuration as the daemon reads it: {"env": NAME} is the variable's value."""
    if isinstance(config, dict):
        if set(config) == {"env"}:
            return environment.get(config["env"])
        return {name: _with_values(value, environment) for name, value in config.items()}
    return [_with_values(value, environment) for value in config] if isinstance(config, list) else config


# -- that it is right --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", sorted(VALUES))
def test_helm_finds_nothing_to_say(helm: Path, values: str) -> None:
    command = [helm, "lint", "--strict", CHART, "--kube-version", f"{KUBERNETES[-1]}.0"]
    done = subprocess.run(
        [*command, *(part for value in VALUES[values] for part in ("--set", value))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", sorted(VALUES))
def test_kubernetes_own_schemas_accept_every_object(helm: Path, values: str, version: str) -> None:
    checked = 0
    for document in render(helm, CHART, VALUES[values], version).documents:
        if not document["apiVersion"].startswith("kafka.strimzi.io/"):
            kubernetes_validate.validate(document, version, strict=True)
            checked += 1
    assert checked > 20


def test_everything_fits_together(rendered: Rendered) -> None:
    assert problems(rendered) == []


def test_every_part_of_the_system_is_there(helm: Path) -> None:
    live = dict(render(helm, CHART, LIVE).containers())
    everything = dict(render(helm, CHART, EVERYTHING).containers())
    parts = {f"liq-live/{name}" for name in ("launcher", "code", "daemon")}
    parts |= {"liq-dagster/dagster", "liq-desk/desk", "liq-metrics/metrics", "liq-land/land", "liq-init-1/init"}
    assert parts | {"liq-collect-a/collect", "liq-collect-b/collect"} <= set(live)
    assert parts | {"liq-player/player", "liq-backup/backup", "liq-timescaledb/timescaledb"} <= set(everything)
    assert not any("collect" in name for name in everything)


def test_the_shards_name_each_venue_once() -> None:
    shards = yaml.safe_load((CHART / "values.yaml").read_text())["collectors"]
    named = [venue for shard in shards for venue in shard["venues"]]
    assert sorted(named) == sorted(VENUES)


@pytest.mark.parametrize(("workers", "partitions"), [(1, 3), (2, 3), (3, 3), (4, 6), (6, 6)])
def test_the_landing_workers_share_out_the_partitions(
    helm: Path, workers: int, partitions: int, tmp_path: Path
) -> None:
    """The container's own command, with a `liq` that notes what it was asked for."""
    values = (*LIVE, f"land.replicas={workers}", f"kafka.partitions={partitions}")
    container = dict(render(helm, CHART, values).containers())["liq-land/land"]
    (tmp_path / "liq").write_text('#!/bin/sh\necho "$@" >> "$NOTES"\n')
    (tmp_path / "liq").chmod(0o755)
    landed: list[int] = []
    for ordinal in range(workers):
        environment = {name: value for name, value in _environment(container).items() if isinstance(value, str)}
        environment |= {"PATH": f"{tmp_path}:/usr/bin:/bin", "NOTES": str(tmp_path / "notes")}
        subprocess.run(container["command"], env=environment | {"POD_NAME": f"liq-land-{ordinal}"}, check=True)
    for line in (tmp_path / "notes").read_text().splitlines():
        command, option, numbers = line.split()
        assert (command, option) == ("land", "--partitions")
        landed += [int(number) for number in numbers.split(",")]
    assert sorted(landed) == list(range(partitions))


def test_more_landing_workers_than_partitions_are_refused(helm: Path) -> None:
    command = [helm, "template", "liq", CHART, "--kube-version", "1.34.0", "--set", "land.replicas=4", "--set", LIVE[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "land.replicas is larger than kafka.partitions" in done.stderr


def test_strimzi_s_cluster_has_the_program_s_topics_and_release(helm: Path) -> None:
    chart = render(helm, CHART, EVERYTHING)
    topics = {topic["spec"]["topicName"]: topic["spec"] for topic in chart.of("KafkaTopic")}
    assert set(topics) == {*IN_TOPICS, *OUT_TOPICS}
    for topic in topics.values():
        assert topic["partitions"] == 6 >= PARTITIONS
        assert topic["config"]["message.timestamp.type"] == "LogAppendTime"
        assert int(topic["config"]["retention.ms"]) == RETENTION_DAYS * 86_400_000
    [kafka] = chart.of("Kafka")
    [release] = [each.rpartition(":")[2] for each in COORDINATES if "kafka_2.13" in each]
    assert kafka["spec"]["kafka"]["version"] == release
    cluster = kafka["metadata"]["name"]
    assert {
        d["metadata"]["labels"]["strimzi.io/cluster"] for d in (*chart.of("KafkaTopic"), *chart.of("KafkaNodePool"))
    } == {cluster}
    addresses = {_environment(c).get("LIQ_KAFKA_BOOTSTRAP_SERVERS") for _, c in chart.containers() if _is_ours(c)}
    assert addresses == {f"{cluster}-kafka-bootstrap:9092"}


def test_the_bundled_database_is_set_up_as_compose_s_is(helm: Path) -> None:
    original = (ROOT / "docker" / "timescaledb" / "10-roles-and-databases.sh").read_text()
    assert (CHART / "files" / "10-roles-and-databases.sh").read_text() == original
    chart = render(helm, CHART, EVERYTHING)
    [script] = chart.named("ConfigMap", "liq-timescaledb")["data"].values()
    assert script.strip() == original.strip()
    container = dict(chart.containers())["liq-timescaledb/timescaledb"]
    asked = set(re.findall(r"\$\{?([A-Z_]+)", original))
    assert asked
    assert asked <= set(_environment(container))
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert container["image"] == compose["services"]["timescaledb"]["image"]


def test_only_who_migrates_maintains_or_copies_gets_the_owner_s_url(rendered: Rendered) -> None:
    holders = {name for name, container in rendered.containers() if "LIQ_DATABASE_OWNER_URL" in _environment(container)}
    assert holders - {"liq-backup/backup"} == {
        *("liq-init-1/init", "liq-live/launcher", "liq-live/code", "liq-live/daemon")
    }


# -- mistakes made on purpose ------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[str, str, str]] = {
    "a misspelt variable": ("_helpers.tpl", "name: LIQ_MODE,", "name: LIQ_MOOD,"),
    "a misspelt variable from a secret": ("_helpers.tpl", '"LIQ_DATABASE_READER_URL"', '"LIQ_DATABASE_READERS_URL"'),
    "a variable that is missing": ("_helpers.tpl", "- {name: LIQ_ZYGOTE_SOCKET, value: /run/liq/zygote.sock}\n", ""),
    "a mode that is none": ("_helpers.tpl", "{{ .Values.mode | quote }}", "livelier"),
    "a password in the open": (
        "web.yaml",
        '{{- include "liq.secret" (dict "root" $ "name" "LIQ_WEB_TOKEN" "key" "web-token") | nindent 12 }}',
        "- {name: LIQ_WEB_TOKEN, value: hunter2hunter2hunter2}",
    ),
    "another port of the desk": ("web.yaml", '.Values.desk.replicas "port" 8000', '.Values.desk.replicas "port" 8001'),
    "another port in the desk's command": ("web.yaml", '"--port" "8000"', '"--port" "8080"'),
    "another address of the health page": ("web.yaml", "http://%s-metrics:9109", "http://%s-metrics:9108"),
    "another port of the code server": ("live.yaml", "port: 4266", "port: 4267"),
    "a service that leads nowhere": ("live.yaml", "targetPort: grpc", "targetPort: http"),
    "a command that is none": ("sources.yaml", "[liq, collect]", "[liq, collects]"),
    "an option that is none": ("land.yaml", "liq land --partitions", "liq land --partition"),
    "a module that is none": ("live.yaml", "liq_pipeline.launcher.zygote,", "liq_pipeline.launcher.zygotes,"),
    "a command of the backup that is none": ("backup.yaml", "'liq backup ", "'liq back-up "),
    "a wrong run launcher": ("dagster-config.yaml", "class: LaneRunLauncher", "class: LanesRunLauncher"),
    "another event log": ("dagster-config.yaml", "liq_pipeline.launcher.storage", "liq_pipeline.launcher.stores"),
    "a launcher's setting that is none": ("dagster-config.yaml", "job_namespace:", "jobs_namespace:"),
    "another service account": (
        "service-accounts.yaml",
        "kind: ServiceAccount\nmetadata:\n  name: {{ $name }}-runs",
        "kind: ServiceAccount\nmetadata:\n  name: {{ $name }}-run",
    ),
    "root": ("_helpers.tpl", "runAsNonRoot: true", "runAsNonRoot: false"),
    "a writable image": ("_helpers.tpl", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"),
    "a volume that is none": ("_helpers.tpl", "- {name: tmp, emptyDir: {}}\n", ""),
    "a budget that protects nothing": ("disruption.yaml", '"part" "land"', '"part" "lander"'),
    "a service for everybody": ("web.yaml", "spec:\n  selector:", "spec:\n  type: LoadBalancer\n  selector:"),
}  # fmt: skip


@pytest.fixture
def mistaken(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """A copy of the chart with one text replaced; the text must be there."""

    def make(file: str, before: str, after: str) -> Path:
        copy = Path(shutil.copytree(CHART, tmp_path / "chart"))
        path = copy / "templates" / file
        text = path.read_text()
        assert before in text, f"{file} has no {before!r}: the mistake must be made anew"
        path.write_text(text.replace(before, after, 1))
        return copy

    return make


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_found(helm: Path, mistaken: Callable[[str, str, str], Path], mistake: str) -> None:
    values = EVERYTHING if "backup" in MISTAKES[mistake][0] else LIVE
    chart = render(helm, mistaken(*MISTAKES[mistake]), values)
    try:
        found = problems(chart)
    except ValueError as refused:  # the settings themselves refuse a mode that is none
        found = [str(refused)]
    assert found, f"{mistake} was not found"
