"""The line on one's own record: from stored outcomes, a page counted once, nothing judged later than the moment."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from liq_pipeline.alerting.aftermath import own_record
from liq_pipeline.alerting.telling import under_way as words
from liq_pipeline.alerting.telling.messages import chart_of
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.alert_support import START, play, point, policy, running, world
from liq_pipeline_tests.alert_support import Reading as Shown


def page(conn: Any, number: int, *outcomes: tuple[str, float | None, float | None], hours_ago: float = 48.0) -> None:
    """A told page with one alert per outcome: (verdict, further, adverse)."""
    page_id, at = uuid.uuid5(uuid.NAMESPACE_OID, f"page {number}"), START - timedelta(hours=hours_ago)
    for index, (verdict, further, adverse) in enumerate(outcomes):
        identity = uuid.uuid5(page_id, str(index))
        conn.execute(
            """
            INSERT INTO alerts (alert_id, page_id, world, rule, subject, side, severity, peak_severity, state,
                opened_at, raised_at, judged_at, last_seen_at, changed_at, component_shares, told_severity, told_at,
                first_told_at, resolved_at, resolved_because, score_version, receipt)
            VALUES (%(id)s, %(page)s, 'real', 'under_way', %(subject)s, 'long', 'WARNING', 'WARNING', 'resolved',
                %(at)s, %(at)s, %(at)s, %(at)s, %(at)s, '{}', 'WARNING', %(at)s, %(at)s, %(at)s, 'calm', 'v', '{}')
            """,
            {"id": identity, "page": page_id, "subject": f"C{number}-{index}", "at": at},
        )
        conn.execute(
            "INSERT INTO alert_outcomes (alert_id, label_version, outcome, further_move_1h, adverse_move_1h)"
            " VALUES (%s, 1, %s, %s, %s)",
            [identity, verdict, further, adverse],
        )


def test_pages_count_once_and_only_what_was_judged_then(database_url: str) -> None:
    with connect(database_url) as conn:
        assert own_record(conn, world(), START) is None
        for number in range(9):
            page(conn, number, ("right" if number < 6 else "false", 0.01, 0.004))
        page(conn, 9, ("false", 0.03, 0.001), ("right", 0.02, 0.009))
        page(conn, 10, ("open", None, None))
        page(conn, 11, ("right", 0.5, 0.5), hours_ago=2.0)
        record = own_record(conn, world(), START)
    assert record == {"pages": 10, "right": 7, "further_median": 0.01, "adverse_median": 0.004}
    assert words.own_record(record) == [
        "Here so far: of 10 pages of this rule 7 were right, 3 false; the next hour went 1.0 % further and 0.4 % back"
        " at the median."
    ]


def test_before_ten_nothing_is_said_and_from_twenty_on_a_share_with_its_interval() -> None:
    assert words.own_record(None) == []
    assert words.own_record({"pages": 9, "right": 9, "further_median": 0.1, "adverse_median": 0.1}) == []
    [line] = words.own_record({"pages": 31, "right": 23, "further_median": None, "adverse_median": None})
    assert line == "Here so far: of 31 pages of this rule 74 % were right (57 to 86 %)."


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)]
)
def test_wilson_s_interval(hits: int, of: int, low: float, high: float) -> None:
    assert words.wilson(hits, of) == pytest.approx((low, high), abs=1e-4)


def test_the_picture_is_of_the_symbol_that_went_furthest() -> None:
    further = running(excursion=-0.09)
    at = [point(0, {"BTC": Shown(0.0, under_way=running()), "ETH": Shown(0.0, under_way=further)})]
    [message] = play(at, policy(alert_policy="under_way")).messages
    receipts = {
        "BTC": {"under_way": {"excursion": -0.042, "started_at": "2025-10-10T11:25:00+00:00"}},
        "ETH": {"under_way": {"excursion": -0.09, "started_at": "2025-10-10T11:20:00+00:00"}},
    }
    assert chart_of(message.alert, {"members": receipts}) == {
        "symbol": "ETH",
        "started_at": "2025-10-10T11:20:00+00:00",
    }
    over = {"BTC": {"depth": 0.02, "started_at": "a"}, "ETH": {"depth": 0.01, "started_at": "b"}}
    assert chart_of(message.alert, {"members": {}, "what_happened": over}) == {"symbol": "BTC", "started_at": "a"}
