"""The launcher of a cluster: live runs start warm, heavy runs are handed to Kubernetes, with the chart's own settings.

Kubernetes is a local HTTP server that notes what it is asked for: the cluster is the outside world here.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from dagster import DagsterRunStatus
from dagster._core.launcher.base import LaunchRunContext

from liq_pipeline.launcher.coordinator import HEAVY_LANE, LANE_TAG, LIVE_LANE
from liq_pipeline.launcher.lanes import LaneRunLauncher
from liq_pipeline.launcher.run_launcher import worker_in_tags
from liq_pipeline.runtime.servers.postgres import EmbeddedPostgres
from liq_pipeline_tests.deployment_support import ROOT
from liq_pipeline_tests.helm_program import HelmUnavailableError, helm_program
from liq_pipeline_tests.launcher_support import JOBS_MODULE, Stack, running_stack

pytestmark = [pytest.mark.xdist_group("helm"), pytest.mark.timeout(1200)]


class Cluster(BaseHTTPRequestHandler):
    """Enough of the batch interface to make, read and delete a job."""

    jobs: ClassVar[dict[str, dict[str, Any]]] = {}
    deleted: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.jobs[job["metadata"]["name"]] = {**job, "path": self.path, "status": {"active": 1}}
        self._answer(job)

    def do_GET(self) -> None:
        job = self.jobs.get(self.path.split("/")[-1].removesuffix("?pretty=False").partition("?")[0])
        if job is None and "/jobs/" in self.path and self.path.endswith("/status"):
            job = self.jobs.get(self.path.split("/")[-2])
        self._answer({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []} if job is None else job)

    def do_DELETE(self) -> None:
        self.deleted.append(self.path.split("/")[-1].partition("?")[0])
        self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _answer(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    path = tmp_path_factory.mktemp("kube") / "config"
    place = {"cluster": {"server": f"http://127.0.0.1:{server.server_port}"}, "name": "local"}
    context = {"context": {"cluster": "local", "user": "me"}, "name": "local"}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "local",
                "clusters": [place],
                "contexts": [context],
                "users": [{"name": "me", "user": {}}],
            }
        )
    )
    yield path
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture(scope="module")
def stack(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(postgres_server, tmp_path_factory.mktemp("dagster")) as running:
        yield running


@pytest.fixture(scope="module")
def kubernetes(kubeconfig: Path) -> dict[str, Any]:
    """What the chart says about heavy runs, for this cluster."""
    try:
        helm = helm_program()
    except HelmUnavailableError as reason:
        pytest.skip(str(reason))
    command = [helm, "template", "liq", ROOT / "deploy" / "liq-pipeline", "--namespace", "risk"]
    command += ["--kube-version", "1.34.0", "--set", "kafka.bootstrapServers=kafka:9092"]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [files] = [
        document["data"]
        for document in yaml.safe_load_all(made)
        if document and document["kind"] == "ConfigMap" and "dagster.yaml" in document["data"]
    ]
    found: dict[str, Any] = yaml.safe_load(files["dagster.yaml"])["run_launcher"]["config"]["kubernetes"]
    return found | {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}


@pytest.fixture
def launcher(stack: Stack, kubernetes: dict[str, Any]) -> LaneRunLauncher:
    made = LaneRunLauncher(socket_path=str(stack.socket), module=JOBS_MODULE, kubernetes=kubernetes)
    made.register_instance(stack.instance)
    return made


def test_a_live_run_starts_warm_and_the_cluster_hears_nothing(stack: Stack, launcher: LaneRunLauncher) -> None:
    run_id = stack.create_run("quick", **{LANE_TAG: LIVE_LANE})
    before = len(Cluster.jobs)
    launcher.launch_run(LaunchRunContext(stack.run(run_id), workspace=None))
    stack.wait_status(run_id, DagsterRunStatus.SUCCESS, 60)
    assert worker_in_tags(stack.run(run_id))["pid"]
    assert len(Cluster.jobs) == before


def test_a_heavy_run_becomes_a_job_with_the_chart_s_settings(stack: Stack, launcher: LaneRunLauncher) -> None:
    run_id = stack.create_run("quick", **{LANE_TAG: HEAVY_LANE})
    launcher.launch_run(LaunchRunContext(stack.run(run_id), workspace=None))
    [job] = [job for name, job in Cluster.jobs.items() if run_id in name]
    assert "/apis/batch/v1/namespaces/risk/jobs" in job["path"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 86_400
    # What the chart's network policies know it by.
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/instance"] == "liq"
    assert labels["app.kubernetes.io/name"] == "liq-pipeline"
    assert labels["app.kubernetes.io/component"] == "heavy-run"
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "liq_pipeline:0.1.0"
    assert "execute_run" in container["args"]
    assert pod["serviceAccountName"] == "liq-runs"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"] == {"memory": "8Gi"}
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["LIQ_DATABASE_OWNER_URL"]["valueFrom"]["secretKeyRef"] == {
        "name": "liq-pipeline",
        "key": "database-owner-url",
    }
    assert environment["LIQ_KAFKA_BOOTSTRAP_SERVERS"]["value"] == "kafka:9092"
    assert "/var/lib/liq_pipeline" in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert not worker_in_tags(stack.run(run_id)), "no process of this machine was started for it"

    launcher.terminate(run_id)
    assert [name for name in Cluster.deleted if run_id in name]
