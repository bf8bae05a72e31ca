"""The only write of the desk: a person has seen an alert.

Belongs here: one short transaction with the writer's role. Does not: who may ask for it (desk/doors.py).
"""

from __future__ import annotations

import uuid
from typing import Final

import psycopg

from liq_pipeline.alerting.book import ack
from liq_pipeline.desk.api.asking import AskError
from liq_pipeline.desk.read.database import UnavailableError
from liq_pipeline.store.connection import connect

LONGEST_NAME: Final = 80


def name_of(text: str) -> str:
    """The name of who has seen it, fit to be kept. AskError if it is none."""
    name = " ".join(text.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise AskError(400, "bad_name", f"`by` must be a name of at most {LONGEST_NAME} characters")
    return name


def acknowledge(database_url: str, alert_id: uuid.UUID, by: str) -> None:
    """Mark it and those it speaks for. AskError if there is none, UnavailableError if the database is away."""
    try:
        with connect(database_url, application_name="liq serve: acknowledge") as conn:
            conn.execute("SET LOCAL lock_timeout = '3s'")
            if conn.execute("SELECT 1 FROM alerts WHERE alert_id = %s", [alert_id]).fetchone() is None:
                raise AskError(404, "unknown_alert", "there is no alert of that id; /api/v1/alerts lists them")
            ack(conn, str(alert_id), by)
            conn.commit()
    except psycopg.OperationalError as error:
        raise UnavailableError("the alert could not be marked, the database is busy or away: try again") from error
