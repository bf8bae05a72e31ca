"""`liq sql` reads, and only reads."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from liq_pipeline.errors import LiqError
from liq_pipeline.operations.query import json_lines, read_only_query

LABEL = "INSERT INTO wallet_label_lists (list_version, known_at) VALUES ('v1', '2026-01-01T00:00:00Z')"


@pytest.fixture
def plain_url(database_url: str) -> Iterator[str]:
    """A role that may write rows and nothing more, as the pipeline's own: read-only is the transaction's doing."""
    role = f"r{uuid.uuid4().hex[:12]}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
        connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        yield make_url(database_url).set(username=role, password="p").render_as_string(hide_password=False)
        connection.execute(f"DROP OWNED BY {role}")
        connection.execute(f"DROP ROLE {role}")


def test_a_select_gives_columns_and_rows(plain_url: str) -> None:
    result = read_only_query(plain_url, "SELECT 1 AS one, 'two' AS two")
    assert result.columns == ("one", "two")
    assert result.rows == [(1, "two")]


def test_a_long_answer_is_cut_and_says_so(plain_url: str) -> None:
    result = read_only_query(plain_url, "SELECT generate_series(1, 5) AS n", limit=3)
    assert (len(result.rows), result.has_more) == (3, True)
    assert not read_only_query(plain_url, "SELECT generate_series(1, 3) AS n", limit=3).has_more


def test_json_lines_lose_nothing(plain_url: str) -> None:
    result = read_only_query(
        plain_url,
        "SELECT 0.1000000000000000055::numeric AS amount, '2026-01-01T00:00:00Z'::timestamptz AS time, NULL AS unknown",
    )
    (line,) = json_lines(result)
    row = json.loads(line)
    assert row["amount"] == "0.1000000000000000055"
    assert row["time"].startswith("2026-01-01T00:00:00")
    assert row["unknown"] is None


@pytest.mark.parametrize(
    "statement",
    [
        LABEL,
        "DROP TABLE prices",
        f"COMMIT; {LABEL}",
        f"SELECT 1; {LABEL}",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; " + LABEL,
        "WITH gone AS (DELETE FROM wallet_label_lists RETURNING *) SELECT * FROM gone",
    ],
)
def test_nothing_can_be_written(database_url: str, plain_url: str, statement: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO wallet_label_lists (list_version, known_at) VALUES ('v0', now())")
    with pytest.raises(LiqError) as caught:
        read_only_query(plain_url, statement)
    assert "\n" not in str(caught.value)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT list_version FROM wallet_label_lists").fetchall() == [("v0",)]
        assert connection.execute("SELECT to_regclass('prices')").fetchone() == ("prices",)


def test_a_wrong_query_is_one_sentence(plain_url: str) -> None:
    with pytest.raises(LiqError, match="nowhere") as caught:
        read_only_query(plain_url, "SELECT * FROM nowhere")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("might", ["superuser", "pg_execute_server_program", "pg_write_server_files"])
def test_whoever_could_run_programs_on_the_server_is_turned_away(
    database_url: str, plain_url: str, tmp_path: Path, might: str
) -> None:
    """COPY TO PROGRAM went through: to it a transaction is never read-only."""
    url, role = database_url, make_url(plain_url).username
    if might != "superuser":
        url = plain_url
        with psycopg.connect(database_url) as connection:
            connection.execute(f"GRANT {might} TO {role}")
    tmp_path.chmod(0o777)
    written = tmp_path / "written"
    with pytest.raises(LiqError, match="liq roles") as caught:
        read_only_query(url, f"COPY (SELECT 1) TO PROGRAM 'touch {written}'")
    assert "LIQ_DATABASE_READER_URL" in str(caught.value)
    assert caught.value.exit_code == 2
    assert not written.exists()
