"""`liq model train --archive` on a generated archive in true format, served on loopback: time, memory, growth.

--coins=N (2), --years=N (3), --workers=N (2), --inputs=1 to publish premium and depth too and try all inputs (0: a day
of depth is more lines than all the rest). The baseline is the same training on the last year alone: growth from one
to three years should be close to three times.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from bench import _archive as generated
from liq_pipeline.evaluation.archive.inputs import GROUPS
from liq_pipeline.evaluation.archive.plan import LOOK_BACK, Plan
from liq_pipeline.evaluation.archive.run import Done, Manner, train
from liq_pipeline.scoring.probability import shipped_model
from liq_pipeline.settings import Settings, SourceSettings
from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.samples import SAMPLE_KINDS

NAMES = ("BTC", "ETH", "SOL", "DOGE", "WIF", "ARB", "AVAX")
LAST = generated.start_of("2026-01-01")
ROWS_PER_DAY = 2 * generated.PER_DAY
"""A line of metrics and a candle for each 5 minutes."""
TARGET_COINS, TARGET_YEARS, TARGET_MINUTES = 50, 3, 60


def main(arguments: list[str]) -> None:
    """Print the figures of one year and of all."""
    asked = {name.lstrip("-"): int(value) for name, _, value in (one.partition("=") for one in arguments) if value}
    coins, years, workers = asked.get("coins", 2), asked.get("years", 3), asked.get("workers", 2)
    besides, trial = (SAMPLE_KINDS.values(), tuple(GROUPS.values())) if asked.get("inputs", 0) else ((), ())
    symbols = tuple([*NAMES, *(f"COIN{number}" for number in range(coins))][:coins])
    first = LAST - timedelta(days=365 * years)
    begins = first - LOOK_BACK
    with tempfile.TemporaryDirectory(prefix="liq-archive-") as scratch:
        begun = time.process_time()
        files = sum(
            generated.publish(Path(scratch) / "archive", symbol, begins, (LAST - begins).days, besides)
            for symbol in symbols
        )
        print(f"generated: {files:,} files in {time.process_time() - begun:.0f} s of computing")
        with generated.served(Path(scratch) / "archive") as url:
            settings = Settings(sources=SourceSettings(urls={binance.NAME: url}))
            costs = {}
            for span in (1, years):
                plan = Plan(symbols, LAST - timedelta(days=365 * span), LAST, Path(scratch) / f"home-{span}")
                before = _cpu()
                manner = Manner(workers, 0, 1e6)
                done = train(plan, settings, shipped_model(), manner, say=lambda _text: None, trial=trial)
                costs[span] = _cpu() - before
                rows = coins * span * 365 * ROWS_PER_DAY
                _tell(span, coins, rows, costs[span], done)
    growth = costs[years] / costs[1]
    whole = costs[years] / (coins * years) * TARGET_COINS * TARGET_YEARS / 60.0
    print(f"growth from 1 to {years} years: {growth:.2f} times the computing (linear: {years})")
    print(
        f"{TARGET_COINS} coins x {TARGET_YEARS} years at this rate: {whole:.0f} min of computing, {whole / 2:.0f} min"
        f" on two cores (baseline: {TARGET_MINUTES} min)"
    )
    # Linux counts in kilobytes: this process (server, fit) and the largest of its workers.
    own, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"peak memory: {own:.0f} MB here, {worker:.0f} MB in the largest worker (baseline: 6000 MB)")
    sys.stdout.flush()


def _tell(years: int, coins: int, rows: int, cpu: float, done: Done) -> None:
    wall = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in done.seconds.items())
    together = done.report["walk_forward"]["4"]
    print(
        f"{coins} coins, {years} years: {rows:,} lines, {cpu:.0f} s of computing, {cpu / rows * 1e6:.1f} s per million"
        f" lines (by the clock: {wall}); {len(done.report['quarters'])} quarters judged, ROC-AUC within symbols"
        f" {together.get('roc_auc_within')}"
    )


def _cpu() -> float:
    return sum(
        of.ru_utime + of.ru_stime for of in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main(sys.argv[1:])
