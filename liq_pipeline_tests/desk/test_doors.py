"""Who may come in: other names, other sites, missing tokens, floods and half-open doors are refused or harmless."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from liq_pipeline.desk import doors
from liq_pipeline_tests.desk.support import RunningDesk, desk

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


def test_a_body_that_declares_no_length_is_cut_where_one_that_does_is_refused(shared_desk: RunningDesk) -> None:
    address = f"/api/v1/alerts/{_open_alert(shared_desk)}/acknowledgement"
    size = doors.MOST_BODY_BYTES + 1
    assert shared_desk.ask(address, method="POST", data=b"x" * size, Content_Type="application/json").status == 413
    piece = b'{"by": "' + b"E" * size + b'"}'
    with socket.create_connection(("127.0.0.1", shared_desk.port), timeout=10) as one:
        one.sendall(
            f"POST {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{len(piece):x}\r\n".encode()
            + piece
            + b"\r\n0\r\n\r\n"
        )
        assert b" 400 " in one.recv(100)


def test_half_open_doors_hold_up_nobody_and_are_shut(shared_desk: RunningDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    try:
        for number in range(700):
            one = socket.create_connection(("127.0.0.1", shared_desk.port), timeout=10)
            if number % 2:
                one.sendall(b"GET / HTTP/1.1\r\nHost: 127.0")
            opened.append(one)
        begun = time.monotonic()
        assert shared_desk.ask("/").status == 200
        assert time.monotonic() - begun < 2.0
        opened[0].settimeout(doors.PATIENCE_SECONDS + 10)
        opened[1].settimeout(doors.PATIENCE_SECONDS + 10)
        assert opened[0].recv(10) == b""
        assert opened[1].recv(10) == b""
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
