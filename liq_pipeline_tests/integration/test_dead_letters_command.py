"""`liq dead-letters` from end to end: a message dies, is listed, mended, sent again by the command, and lands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from liq_pipeline.bus.codec import encode
from liq_pipeline.store.connection import connect
from liq_pipeline.store.landing.lander import Lander
from liq_pipeline_tests.landing_support import RawProducer, liquidation, raw, select


@pytest.fixture
def liq(database_url: str, kafka_server: str, topic_prefix: str) -> Callable[..., str]:
    """Runs the command as a user would; gives what it printed."""
    environment = {
        **os.environ,
        "LIQ_DATABASE_URL": database_url,
        "LIQ_KAFKA_BOOTSTRAP_SERVERS": kafka_server,
        "LIQ_KAFKA_TOPIC_PREFIX": topic_prefix,
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "liq_pipeline.cli", *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_dead_letter_is_listed_sent_again_and_lands(
    liq: Callable[..., str], database_url: str, kafka_server: str, topic_prefix: str
) -> None:
    with connect(database_url) as conn:
        conn.execute("ALTER TABLE liquidations ADD CONSTRAINT sane CHECK (price_usd > 1e6)")
    with RawProducer(kafka_server, topic_prefix) as producer:
        producer.send("liquidations", encode(liquidation()), partition=1).get(30)
        producer.send("liquidations", raw(liquidation(1), quantity_base="two"), partition=1).get(30)
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        assert lander.land_to_end(60).dead == 2

        table = liq("dead-letters", "list")
        assert "liquidations[1]@0" in table
        assert "refused_by_database" in table
        letters = [json.loads(line) for line in liq("dead-letters", "list", "--json").splitlines()]
        assert {(letter["kafka_offset"], letter["reason_code"]) for letter in letters} == {
            (0, "refused_by_database"),
            (1, "invalid_field"),
        }

        with connect(database_url) as conn:
            conn.execute("ALTER TABLE liquidations DROP CONSTRAINT sane")
        assert liq("dead-letters", "resubmit", "--reason", "refused_by_database") == "1 messages were sent again.\n"
        assert lander.land_to_end(60).landed == {"liquidations": 1}

    assert select(database_url, "SELECT event_id, kafka_offset FROM liquidations") == [("liq-0", 2)]
    assert "refused_by_database" not in liq("dead-letters", "list")
    # What can never land dies again, as another message.
    assert liq("dead-letters", "resubmit") == "1 messages were sent again.\n"
    with Lander(database_url, kafka_server, topic_prefix) as lander:
        assert lander.land_to_end(60).dead == 1
