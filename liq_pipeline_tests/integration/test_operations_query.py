"""`liq sql` reads, and only reads."""

from __future__ import annotations

import json

import psycopg
import pytest

from liq_pipeline.errors import LiqError
from liq_pipeline.operations.query import json_lines, read_only_query

LABEL = "INSERT INTO wallet_label_lists (list_version, known_at) VALUES ('v1', '2026-01-01T00:00:00Z')"


def test_a_select_gives_columns_and_rows(database_url: str) -> None:
    result = read_only_query(database_url, "SELECT 1 AS one, 'two' AS two")
    assert result.columns == ("one", "two")
    assert result.rows == [(1, "two")]


def test_a_long_answer_is_cut_and_says_so(database_url: str) -> None:
    result = read_only_query(database_url, "SELECT generate_series(1, 5) AS n", limit=3)
    assert (len(result.rows), result.has_more) == (3, True)
    assert not read_only_query(database_url, "SELECT generate_series(1, 3) AS n", limit=3).has_more


def test_json_lines_lose_nothing(database_url: str) -> None:
    result = read_only_query(
        database_url,
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
def test_nothing_can_be_written(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO wallet_label_lists (list_version, known_at) VALUES ('v0', now())")
    with pytest.raises(LiqError) as caught:
        read_only_query(database_url, statement)
    assert "\n" not in str(caught.value)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT list_version FROM wallet_label_lists").fetchall() == [("v0",)]
        assert connection.execute("SELECT to_regclass('prices')").fetchone() == ("prices",)


def test_a_wrong_query_is_one_sentence(database_url: str) -> None:
    with pytest.raises(LiqError, match="nowhere") as caught:
        read_only_query(database_url, "SELECT * FROM nowhere")
    assert caught.value.exit_code == 2
