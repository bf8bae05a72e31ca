"""Who may come in: other names, other sites, missing tokens, floods and half-open doors are refused or harmless."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import psycopg
import pytest

from liq_pipeline.desk import doors
from liq_pipeline.desk.api.memory import MOST_PENDING
from liq_pipeline.desk.pace import Pace
from liq_pipeline_tests.desk.support import RunningDesk, desk
from liq_pipeline_tests.desk.test_stream import Stream

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "127.0.0.1.evil.example", "[::1", "a b"])
def test_only_known_names_are_answered(shared_desk: RunningDesk, host: str) -> None:
    for path in ("/", "/api/v1/symbols", "/static/x/desk.css"):
        reply = shared_desk.ask(path, Host=host)
        assert reply.status in (400, 421)
        assert b"BTC" not in reply.body


def _open_alert(running: RunningDesk) -> str:
    return str(running.get("/api/v1/alerts?limit=1")["data"][0]["alert_id"])


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example", "Content_Type": "application/json"},
        {"Origin": "null", "Content_Type": "application/json"},
        {"Sec_Fetch_Site": "cross-site", "Content_Type": "application/json"},
        {"Sec_Fetch_Site": "same-site", "Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "text/plain"},
    ],
)
def test_no_other_site_can_acknowledge(shared_desk: RunningDesk, headers: dict[str, str]) -> None:
    alert = _open_alert(shared_desk)
    for path, body in (("acknowledgement", b'{"by": "Eve"}'), ("acknowledge", b"by=Eve")):
        prefix = "/api/v1" if path == "acknowledgement" else ""
        reply = shared_desk.ask(f"{prefix}/alerts/{alert}/{path}", method="POST", data=body, **headers)
        assert (reply.status, reply.json()["error"]["code"]) == (403, "other_site")
    assert shared_desk.ask(f"/api/v1/alerts/{alert}/acknowledgement").status == 405
    assert shared_desk.get(f"/api/v1/alerts/{alert}")["data"]["alert"]["acknowledged_at"] is None


def test_a_page_of_ours_and_a_program_can_and_the_first_name_stays(own_url: str, tmp_path: Path) -> None:
    with desk(own_url, tmp_path) as running:
        first, second = (row["alert_id"] for row in running.get("/api/v1/alerts?limit=2")["data"])
        form = running.ask(
            f"/alerts/{first}/acknowledge", method="POST", data=b"by=Ada+L.", Origin=running.url,
            Content_Type="application/x-www-form-urlencoded",
        )  # fmt: skip
        assert (form.status, form.headers["Location"]) == (303, f"/alerts/{first}?acknowledged=1")
        assert "<b>Seen</b> by Ada L." in running.ask(f"/alerts/{first}").body.decode()
        for name in ("Grace", "Eve"):
            answer = running.ask(
                f"/api/v1/alerts/{second}/acknowledgement", method="POST", Content_Type="application/json",
                data=json.dumps({"by": name}).encode(),
            )  # fmt: skip
            assert answer.json()["data"]["alert"]["acknowledged_by"] == "Grace"
        empty = running.ask(
            f"/api/v1/alerts/{second}/acknowledgement",
            method="POST",
            Content_Type="application/json",
            data=b'{"by": " "}',
        )
        assert empty.status == 400


@pytest.mark.parametrize(
    ("site", "mode", "destination", "status"),
    [
        ("cross-site", "no-cors", "image", 403),
        ("cross-site", "cors", "empty", 403),
        ("same-site", "no-cors", "script", 403),
        ("cross-site", "navigate", "iframe", 403),
        ("cross-site", "navigate", "document", 200),
        ("same-origin", "cors", "empty", 200),
        ("none", "navigate", "document", 200),
    ],
)
def test_other_sites_may_link_here_but_load_nothing(
    shared_desk: RunningDesk, site: str, mode: str, destination: str, status: int
) -> None:
    for path in ("/", "/api/v1/symbols"):
        reply = shared_desk.ask(path, Sec_Fetch_Site=site, Sec_Fetch_Mode=mode, Sec_Fetch_Dest=destination)
        assert reply.status == status


def test_who_asks_too_often_is_told_to_wait_and_others_are_not() -> None:
    now = 0.0
    pace = Pace(lambda: now, per_second=10, burst=20)
    assert [pace.allows("a") for _ in range(21)] == [True] * 20 + [False]
    assert pace.allows("b")
    now = 1.0
    assert [pace.allows("a") for _ in range(11)] == [True] * 10 + [False]
    for number in range(5_000):
        assert pace.allows(f"other {number}")


def test_a_flood_of_questions_is_refused_before_it_waits(own_url: str, tmp_path: Path) -> None:
    """Two hundred different questions while the database stands still: some wait, the others hear so at once."""
    with desk(own_url, tmp_path) as running, psycopg.connect(own_url) as blocker:
        assert running.ask("/api/v1/alerts").status == 200
        blocker.execute("LOCK TABLE alerts IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(200) as pool:
            begun = time.monotonic()
            asked = [
                pool.submit(
                    lambda n: (running.ask(f"/api/v1/alerts?limit={n + 1}", timeout=60).status, time.monotonic()), n
                )
                for n in range(200)
            ]
            refused = 0
            while refused < 200 - MOST_PENDING - 8 and time.monotonic() < begun + 20:
                refused = sum(1 for one in asked if one.done() and one.result()[0] == 503)
                wait([one for one in asked if not one.done()], timeout=0.05, return_when=FIRST_COMPLETED)
            assert refused >= 200 - MOST_PENDING - 8
            assert running.ask("/healthz").status == 200
            blocker.rollback()
            assert {one.result()[0] for one in asked} == {200, 503}
        assert running.ask("/api/v1/alerts").status == 200


def test_with_a_token_nothing_is_told_without_it(filled_url: str, tmp_path: Path) -> None:
    with desk(filled_url, tmp_path, LIQ_WEB_TOKEN=TOKEN) as running:
        for path in ("/", "/api/v1/symbols", "/api/v1/stream", "/alerts", "/api/v1/openapi.json"):
            assert running.ask(path).status == 401
            assert running.ask(path, Authorization=f"Bearer {TOKEN[:-1]}x").status == 401
        assert running.ask("/healthz").status == 200
        assert running.ask("/", Authorization=f"Bearer {TOKEN}").status == 200
        assert running.ask("/login").status == 200
        form = "application/x-www-form-urlencoded"
        wrong = running.ask("/login", method="POST", data=b"token=wrong", Origin=running.url, Content_Type=form)
        assert wrong.status == 403
        right = running.ask(
            "/login", method="POST", data=f"token={TOKEN}".encode(), Origin=running.url, Content_Type=form
        )
        cookie = right.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
        assert running.ask("/", Cookie=cookie.partition(";")[0]).status == 200
        assert TOKEN.encode() not in running.ask("/api", Authorization=f"Bearer {TOKEN}").body


@pytest.mark.parametrize("more", [{}, {"LIQ_WEB_TOKEN": "short"}])
def test_off_loopback_there_is_no_server_without_a_token(more: dict[str, str], tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin", "LIQ_HOME": str(tmp_path), "LIQ_WEB_HOST": "0.0.0.0",  # noqa: S104
        "LIQ_DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "LIQ_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", **more,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }  # fmt: skip
    command = [sys.executable, "-m", "liq_pipeline.cli", "serve"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "LIQ_WEB_TOKEN" in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_answer_forbids_what_a_page_of_ours_never_does(shared_desk: RunningDesk) -> None:
    for path in ("/", "/api/v1/symbols", "/nothing", "/api/v1/nothing"):
        headers = shared_desk.ask(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in {name.lower() for name in headers}
    page = shared_desk.ask("/symbols/BTC").body.decode()
    assert "style=" not in page
    assert "onclick" not in page


@pytest.mark.parametrize("megabytes", [1, 10])
def test_a_giant_address_is_refused_while_others_are_served(shared_desk: RunningDesk, megabytes: int) -> None:
    with socket.create_connection(("127.0.0.1", shared_desk.port), timeout=10) as giant:
        try:
            giant.sendall(b"GET /?x=" + b"A" * (megabytes * 2**20) + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = giant.recv(200)
        except OSError:
            answer = b""  # closed in the middle of it
    assert answer == b"" or b" 400 " in answer or b" 414 " in answer
    assert shared_desk.ask(f"/?x={'A' * 3000}").status == 414
    assert shared_desk.ask("/").status == 200


HALF_OPEN = 2000


@pytest.fixture
def many_sockets() -> Iterator[None]:
    """As many as the test opens, whatever the shell allows to begin with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < HALF_OPEN + 500:
        pytest.skip(f"this machine allows {hard} open files to a process, {HALF_OPEN + 500} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HALF_OPEN + 500), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_half_open_doors_hold_up_nobody_and_are_shut(shared_desk: RunningDesk, many_sockets: None) -> None:
    """Two thousand: silent ones, ones with half a head, ones with a head and no body."""
    stream = Stream(shared_desk.url)
    stream.wait_for(lambda name, data: name == "signals")
    heads = (
        b"",
        b"GET / HTTP/1.1\r\nHost: 127.0",
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n",
    )
    opened = []
    try:
        for number in range(HALF_OPEN):
            one = socket.create_connection(("127.0.0.1", shared_desk.port), timeout=10)
            one.sendall(heads[number % len(heads)])
            opened.append(one)
        for path in ("/", "/api/v1/symbols", "/symbols/BTC", "/api/v1/alerts"):
            begun = time.monotonic()
            assert shared_desk.ask(path).status == 200
            assert time.monotonic() - begun < 2.0
        for one in opened:
            one.settimeout(doors.PATIENCE_SECONDS + 20)
        assert opened[0].recv(10) == b""
        assert opened[1].recv(10) == b""
        assert b" 408 " in opened[2].recv(100)
        assert opened[-1].recv(10) in (b"", b"HTTP/1.1 4")
        assert shared_desk.ask("/").status == 200
        assert Stream(shared_desk.url).wait_for(lambda name, data: name == "signals")
    finally:
        for one in opened:
            one.close()


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/x/..%2f..%2fapp.py", "/static/abc/NOTICE", "/%2e%2e/%2e%2e/etc/passwd"]
)
def test_no_file_but_the_page_s_own_can_be_had(shared_desk: RunningDesk, path: str) -> None:
    reply = shared_desk.ask(path)
    assert reply.status == 404
    assert b"import" not in reply.body
    assert b"root:" not in reply.body
