"""A hundred kills at random moments between a decision, its delivery and the record of it lose nobody's message.

Each round decides one alert in a world of its own and delivers what is due, in a process that is killed (SIGKILL) after
a random number of steps of its program: by the clock a busy machine would be hit in the same place each time. The next
round goes on from the tables alone.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from liq_pipeline.alerting.sending.delivery import deliver_due
from liq_pipeline.settings import Settings
from liq_pipeline.store.connection import connect
from liq_pipeline_tests.alert_receiver import Receiver, receiver
from liq_pipeline_tests.live_support import wait_until

KILLS = 100
WORKER = textwrap.dedent(
    """
    import os, signal, sys, threading

    from liq_pipeline.alerting.book import advance
    from liq_pipeline.alerting.sending.channels import is_address
    from liq_pipeline.alerting.sending.delivery import deliver_due
    from liq_pipeline.settings import Settings
    from liq_pipeline.store.connection import connect
    from liq_pipeline_tests.alert_support import VERSION, series, world

    url, settings = sys.argv[1], Settings()
    is_address(settings.alert_urls[0])  # loads the plugin

    def work(number):
        with connect(url) as conn:
            decided = {name for (name,) in conn.execute("SELECT DISTINCT world FROM alerts")}
            for missing in range(number + 1):
                if f"simulated/{missing}" not in decided:
                    advance(conn, world(f"simulated/{missing}"), series("BTC", [60.0]), settings, VERSION)
                    conn.commit()
        deliver_due(url, settings)

    def die_after(last):
        steps = 0

        def step(frame, event, argument):
            nonlocal steps
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)

        threading.setprofile(step)
        sys.setprofile(step)
        return lambda: steps

    print("ready", flush=True)
    for line in sys.stdin:
        number, last = map(int, line.split())
        child = os.fork()
        if child == 0:
            steps = die_after(last)
            work(number)
            sys.setprofile(None)
            print(steps(), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(-os.WTERMSIG(status), flush=True)
    """
)


def of_world(hook: Receiver) -> Counter[str]:
    """How often the message of each world arrived."""
    named = [re.search(r"\((simulated/\d+)\)", str(message)) for message in list(hook.messages)]
    return Counter(found[1] for found in named if found)


def test_no_message_is_lost_over_a_hundred_random_kills(database_url: str) -> None:
    random_ = random.Random(7)
    with receiver() as hook:
        hook.stall_seconds = 0.02
        settings = Settings(alert_urls=(SecretStr(hook.url),), alert_unreal=True, alert_hourly_ceiling=100_000)
        environment = {
            **os.environ,
            "LIQ_ALERT_URLS": hook.url,
            "LIQ_ALERT_UNREAL": "true",
            "LIQ_ALERT_HOURLY_CEILING": "100000",
            "LIQ_ALERT_TIMEOUT_SECONDS": "20",
        }
        with subprocess.Popen(
            [sys.executable, "-c", WORKER, database_url],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as worker:  # fmt: skip
            assert worker.stdin is not None
            assert worker.stdout is not None

            def round_of(number: int, last: int) -> int:
                """How many steps it took, or minus the signal that ended it."""
                print(number, last, file=worker.stdin, flush=True)
                assert worker.stdout is not None
                return int(worker.stdout.readline())

            assert worker.stdout.readline().strip() == "ready"
            steps = round_of(0, 0)
            assert steps > KILLS
            kills, number, moments = 0, 0, Counter[str]()
            while kills < KILLS:
                number += 1
                asked_before = len(hook.paths)
                ended = round_of(number, random_.randint(1, steps))
                assert ended > 0 or ended == -signal.SIGKILL
                if ended < 0:
                    kills += 1
                    moments[_moment(database_url, hook, number, asked_before)] += 1
                assert number < 3 * KILLS, "the process is hardly ever hit"
            worker.stdin.close()
        # Every kind of moment was hit, and more than once.
        assert min(moments[kind] for kind in ("undecided", "decided", "sent")) > 1, moments
        for _ in range(3):
            report = deliver_due(database_url, settings, datetime.now(UTC) + timedelta(hours=1))
        wait_until(lambda: sum(of_world(hook).values()) == len(hook.paths), 10, "a message was still on its way")
        arrived = of_world(hook)
    with connect(database_url) as conn:
        states = dict(
            conn.execute("SELECT state, count(*) FROM outbox WHERE topic = 'channels' GROUP BY state").fetchall()
        )
        worlds = {name for (name,) in conn.execute("SELECT DISTINCT world FROM alerts")}
    assert report.still_due == 0 or report.errors  # what is left waits for Kafka, which is not here
    assert states == {"done": len(worlds)}
    assert set(arrived) == worlds
    # At least once: whoever died between sending and recording sent again, and nobody else did.
    assert sum(arrived.values()) - len(worlds) <= moments["sent"] + moments["recorded"]


def _moment(database_url: str, hook: Receiver, number: int, asked_before: int) -> str:
    """Where the round was when it died. asked_before: requests that the receiver had seen when it began."""
    with connect(database_url) as conn:
        row = conn.execute(
            """
            SELECT (SELECT state FROM outbox WHERE world = %(w)s AND topic = 'channels') FROM alerts WHERE world = %(w)s
            """,
            {"w": f"simulated/{number}"},
        ).fetchone()
    if row is None:
        return "undecided"
    if row[0] == "done":
        return "recorded"
    return "sent" if len(hook.paths) > asked_before else "decided"
