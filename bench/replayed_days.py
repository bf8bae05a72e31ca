"""Two days of real cascades played again: how many of them were told while they ran.

Belongs here: serving the shared data as an archive, `liq replay`, the count. Does not: the pages themselves (replay/).
Needs the shared data (LIQ_SHARED_DATA, or shared/data beside the repository); the plain rule stands beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from liq_pipeline.evaluation.paging import desk
from liq_pipeline.replay import window
from liq_pipeline.replay.replay import replay
from liq_pipeline.replay.story import Story
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.archives import binance
from liq_pipeline_tests.conftest import REPOSITORY
from liq_pipeline_tests.live_support import venue_server
from liq_pipeline_tests.shared_archive import serve_days

COINS: Final = ("ARB", "AVAX", "BTC", "DOGE", "ETH", "SOL", "WIF")
DAYS: Final = (date(2026, 1, 31), date(2026, 2, 5))


def told_while_it_ran(story: Story) -> tuple[int, int, int]:
    """(cascades within 4 h with their onset in the day, those told by their own symbol from start to peak, pages)."""
    first, last = story.first.timestamp(), story.last.timestamp()
    events = [e for e in story.events[desk.DESK_HORIZON_HOURS] if first <= e.onset <= last]
    said = [m for m in story.told.messages if m.rule == "under_way" and m.kind != "resolved"]
    told = sum(any(e.symbol in m.symbols and e.start <= m.time.timestamp() <= e.peak for m in said) for e in events)
    return len(events), told, len(said)


def main(arguments: list[str]) -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(prog="python -m bench replayed_days", description=__doc__)
    parser.add_argument("--pages", type=Path, help="where the pages are kept")
    options, _ = parser.parse_known_args(arguments)
    data = Path(os.environ.get("LIQ_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not data.is_dir():
        print("\nreplayed days: no shared data here, nothing measured")
        return
    print("\nreplayed days, seven coins, as an archive in its true format")
    with tempfile.TemporaryDirectory(prefix="liq-days-") as folder, venue_server() as server:
        Path(folder).chmod(0o711)
        serve_days(server, data, COINS, DAYS[0] - timedelta(days=33), DAYS[-1] + timedelta(days=2))
        urls = {binance.NAME: server.url(binance.NAME)}
        settings = Settings(home=Path(folder) / "home", symbols=COINS, sources=SourceSettings(urls=urls))
        for day in DAYS:
            out = (options.pages or Path(folder)) / f"replay-{day}.html"
            story = replay(window.of_archive(day, COINS, settings, lambda done, total: None), settings, out)
            events, told, pages = told_while_it_ran(story)
            print(f"  {day}: {told} of {events} cascades within 4 h told while they ran, in {pages} messages")
