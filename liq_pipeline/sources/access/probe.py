"""Which sources answer right now: what mode `auto` decides by at start-up.

Belongs here: one cheap request per source, all at once, within a bound. Does not: choosing the mode (runtime/).
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import SourceError
from liq_pipeline.sources.live.base import Source
from liq_pipeline.sources.registry import client, sources_in_force

PROBE_SECONDS = 5.0


@dataclass
class ProbeResult:
    """Names of the sources that answered, by what they bring, and one sentence for each that did not.

    A venue that answers counts on both sides: its mark prices are prices.
    """

    prices_ok: list[str] = field(default_factory=list)
    derivatives_ok: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def can_go_live(self) -> bool:
        """At least one price and one derivatives source answer (CONTRACTS: auto)."""
        return bool(self.prices_ok and self.derivatives_ok)


def probe_sources(settings: Settings, *, seconds: float = PROBE_SECONDS) -> ProbeResult:
    """Ask every source in force once, concurrently. Bounded by `seconds`; never raises for a source."""
    deadline = time.monotonic() + seconds
    result = ProbeResult()
    sources = sources_in_force(settings)
    executor = ThreadPoolExecutor(max_workers=len(sources), thread_name_prefix="probe")
    asked = {executor.submit(_ask, source, settings, deadline): source for source in sources}
    done, late = wait(asked, timeout=seconds)
    # A thread that hangs in name resolution cannot be stopped: it is left behind, not waited for.
    executor.shutdown(wait=False, cancel_futures=True)
    for future in late:
        result.failures[asked[future].name] = f"no answer within {seconds:g} s"
    for future in done:
        source = asked[future]
        reason = future.result()
        if reason is not None:
            result.failures[source.name] = reason
            continue
        topics = {topic for feed in source.feeds for topic in feed.topics}
        if "prices" in topics:
            result.prices_ok.append(source.name)
        if "open_interest" in topics:
            result.derivatives_ok.append(source.name)
    order = [source.name for source in sources]
    result.prices_ok.sort(key=order.index)
    result.derivatives_ok.sort(key=order.index)
    return result


def _ask(source: Source, settings: Settings, deadline: float) -> str | None:
    """None if the source answered, else why not."""
    http = client(source, settings)
    try:
        http.ask(source.probe, deadline=deadline, attempts=1)
    except SourceError as error:
        return error.reason
    finally:
        http.close()
    return None
