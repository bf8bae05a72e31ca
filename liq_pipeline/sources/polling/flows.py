"""A chain's part of a polling round, in a thread beside the venues' and within the same bound.

Belongs here: when the chain is due, its budget, what a failure means for the next round. Does not: following it
(sources/chain/following.py), or a provider's endpoints (sources/chain/).
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Final

from liq_pipeline.settings import Settings
from liq_pipeline.sources import registry
from liq_pipeline.sources.access import limits
from liq_pipeline.sources.access.http import SourceError, ThrottledError
from liq_pipeline.sources.access.raw_log import RawLog
from liq_pipeline.sources.chain import wallet_lists
from liq_pipeline.sources.chain.following import FlowReading, read_flows
from liq_pipeline.sources.live.values import UNREADABLE
from liq_pipeline.sources.polling.ask import unreadable
from liq_pipeline.sources.polling.outcome import wait_after
from liq_pipeline.sources.polling.plan import is_due
from liq_pipeline.sources.polling.state import FeedKey, FeedState
from liq_pipeline.store.connection import connect

FLOWS: Final = "transfers"
"""The feed name of stablecoin transfers."""


class FlowTask:
    """Following one chain in a thread of its own, beside the venues and the other chains and within the same bound."""

    def __init__(
        self,
        source: str,
        database_url: str,
        settings: Settings,
        feeds: dict[FeedKey, FeedState],
        now: datetime,
        until: float,
        raw_log: RawLog | None,
    ) -> None:
        self._database_url = database_url
        self._settings = settings
        self._now = now
        self._until = until
        self._raw_log = raw_log
        self._source = source
        self._key = FeedKey(source, FLOWS)
        self._before = feeds.get(self._key)
        self.reading = FlowReading(read_at=now)
        self.changed: dict[FeedKey, FeedState] = {}
        self.failures: dict[str, str] = {}

    def run(self) -> None:
        """Read, if it is due. Its failure is in `changed` and `failures`."""
        cadence = self._settings.sources.flows_seconds
        if not is_due(self._before, cadence, self._now):
            return
        on_answer, on_chunk = (None, None) if self._raw_log is None else (self._raw_log.answer, self._raw_log.chunk)
        http = registry.flow_client(self._settings, self._source, on_answer=on_answer)
        budgets = limits.Budgets(self._database_url, registry.flow_limits(self._settings, self._source))
        before = self._before or FeedState(self._now, self._now)

        def acquire(costs: dict[str, int]) -> None:
            budgets.acquire(costs, timeout_seconds=max(0.0, self._until - time.monotonic()))

        try:
            with connect(self._database_url, application_name="liq flows") as conn:
                wallet_lists.ensure_shipped(conn, self._now)
                conn.commit()
                reader = registry.flow_reader(http, acquire, self._until)
                labels = wallet_lists.in_force(conn, self._now, reader.chain.name)
                knobs = self._settings.sources
                self.reading = read_flows(
                    reader, conn, labels, knobs, self._now, self._until, failures=before.failures, on_chunk=on_chunk
                )
            # Behind the chain, after an outage or at the first start: go on in the next round.
            due = self._now if self.reading.is_behind else self._now + timedelta(seconds=cadence)
            self.changed[self._key] = FeedState(due, self._now, self._now)
        except (SourceError, limits.BudgetError, *UNREADABLE) as problem:
            # Whatever is wrong with the chain's answers, the venues' must not be lost with them.
            known = isinstance(problem, (SourceError, limits.BudgetError))
            error = problem if known else unreadable(self._source, problem)
            reason = error.reason if isinstance(error, SourceError) else str(error)
            seconds, failures = wait_after(error, cadence, before.failures, self._settings)
            if isinstance(error, ThrottledError):
                budgets.block(list(registry.flow_limits(self._settings, self._source))[:1], seconds, reason)
            self.failures[self._source] = reason
            due = self._now + timedelta(seconds=seconds)
            self.changed[self._key] = FeedState(due, self._now, before.last_success, failures, reason)
        finally:
            http.close()
            budgets.close()
