"""The way through an archive training: months, partitions, fit, and inputs on trial where they are asked for; in worker
processes, with progress, resumable.

Belongs here: the order, the processes, what is told on the way. Does not: any step itself.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Final

import msgspec

from liq_pipeline.errors import LiqError
from liq_pipeline.evaluation.archive.features import features_are_kept, keep_features, months_of
from liq_pipeline.evaluation.archive.inputs import GROUPS, Group, inputs_are_kept, keep_inputs
from liq_pipeline.evaluation.archive.months import Pace, keep_month, month_is_kept
from liq_pipeline.evaluation.archive.plan import Plan, Quarter, next_month, write_whole
from liq_pipeline.evaluation.archive.samples import keep_samples, samples_are_kept
from liq_pipeline.scoring.probability import CascadeModel
from liq_pipeline.settings import Settings
from liq_pipeline.sources.access.http import SourceError
from liq_pipeline.sources.archives import binance
from liq_pipeline.sources.archives.files import ArchiveFiles
from liq_pipeline.sources.archives.samples import SAMPLE_KINDS

REQUESTS_PER_SECOND: Final = 20.0
"""Over all processes together: what the archive's other reader asks for, too."""
NICENESS: Final = 10
SAY_EVERY_SECONDS: Final = 5.0
MOST_RESTARTS: Final = 3
_SHOWN: Final = 3


@dataclass(frozen=True)
class Manner:
    """How it runs: processes, how far they step behind everything else, and requests a second over all of them."""

    workers: int
    niceness: int = NICENESS
    requests_per_second: float = REQUESTS_PER_SECOND


@dataclass(frozen=True)
class Done:
    """A finished training. seconds: by step."""

    model: CascadeModel
    candidate_file: Path
    report_file: Path
    report: dict[str, Any]
    seconds: dict[str, float]
    problems: tuple[str, ...]


def train(
    plan: Plan,
    settings: Settings,
    in_force: CascadeModel,
    manner: Manner,
    say: Callable[[str], None],
    trial: Sequence[Group] = (),
) -> Done:
    """Everything that is not there yet, then the fit. Raises LiqError; what was done until then stays done.

    trial: groups of inputs that the report judges besides; the candidate is the same with and without them.
    """
    from liq_pipeline.evaluation.archive.ablation import try_inputs
    from liq_pipeline.evaluation.archive.fit import fit_archive

    begun = time.monotonic()
    seconds: dict[str, float] = {}
    months = [(s, month) for month in plan.months for s in plan.symbols if not month_is_kept(plan, s, month)]
    problems = _all(plan, settings, manner, "month", months, say)
    seconds["months"] = time.monotonic() - begun
    begun = time.monotonic()
    partitions = [(s, q.name) for q in plan.quarters for s in plan.symbols if not features_are_kept(plan, s, q)]
    problems += _all(plan, settings, manner, "partition", partitions, say)
    seconds["features"] = time.monotonic() - begun
    begun = time.monotonic()
    problems += _all(plan, settings, manner, "input month", _input_months(plan, trial), say)
    wanted = [
        (s, (group.name, q.name))
        for q in plan.quarters for group in trial for s in plan.symbols if not inputs_are_kept(plan, group, s, q)
    ]  # fmt: skip
    problems += _all(plan, settings, manner, "input partition", wanted, say)
    seconds["inputs"] = time.monotonic() - begun
    begun = time.monotonic()
    model, report = fit_archive(plan, settings, in_force, say)
    seconds["fit"] = time.monotonic() - begun
    candidate = plan.folder / "candidates" / f"{model.model_id}.json"
    write_whole(candidate, (json.dumps(model.as_json(), indent=1) + "\n").encode())
    if trial:
        begun = time.monotonic()
        report["inputs"] = try_inputs(plan, trial, say)
        seconds["trial"] = time.monotonic() - begun
    told = candidate.with_suffix(".report.json")
    write_whole(told, (json.dumps(report, indent=1) + "\n").encode())
    return Done(model, candidate, told, report, seconds, tuple(problems))


def _input_months(plan: Plan, trial: Sequence[Group]) -> list[tuple[str, tuple[str, datetime]]]:
    """The months of series that only inputs on trial read, as far as they are not kept."""
    kinds = [group.samples for group in trial if group.samples is not None]
    return [
        (s, (kind.name, month))
        for kind in kinds for month in plan.months for s in plan.symbols
        if next_month(month) > kind.begins and not samples_are_kept(plan, kind, s, month)
    ]  # fmt: skip


def keep_partition(plan: Plan, settings: Settings, symbol: str, quarter: Quarter) -> dict[str, Any]:
    """One partition with the months that it needs, in this process: what Dagster's partitions run."""
    archive, files = _open(settings, REQUESTS_PER_SECOND)
    try:
        now = datetime.now(UTC)
        for month in months_of(quarter):
            if month < now and not month_is_kept(plan, symbol, month):
                keep_month(archive, plan, symbol, month, now)
    finally:
        files.close()
    if features_are_kept(plan, symbol, quarter):
        from liq_pipeline.evaluation.archive.months import facts_of

        return facts_of(plan.feature_file(symbol, quarter)) | {"was_kept": True}
    return keep_features(plan, symbol, quarter) | {"was_kept": False}


def _open(settings: Settings, per_second: float) -> tuple[binance.BinanceArchive, ArchiveFiles]:
    url = settings.sources.urls.get(binance.NAME) or binance.URL
    files = ArchiveFiles(binance.NAME, url, acquire=Pace(per_second))
    return binance.BinanceArchive(files), files


# -- worker processes ------------------------------------------------------------------------------------------------

_plan: Plan
_archive: binance.BinanceArchive


def _begin(plan: Plan, settings: Settings, per_second: float, niceness: int) -> None:
    global _plan, _archive
    os.nice(niceness)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    # The decoder's first use by several threads at once has ended a process: it is used once before they begin.
    with suppress(msgspec.DecodeError):
        msgspec.json.decode(b"no JSON")
    _plan = plan
    _archive, _ = _open(settings, per_second)


def _end_with_parent() -> None:
    """A worker of a parent that was killed would wait for its next task for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(kind: str, symbol: str, of: Any) -> tuple[list[str], str | None]:
    """(problems, why it failed). Failures come back as text: not every exception survives the way between processes."""
    try:
        if kind == "month":
            return list(keep_month(_archive, _plan, symbol, of, datetime.now(UTC))["problems"]), None
        if kind == "input month":
            series = SAMPLE_KINDS[of[0]]
            return list(keep_samples(_archive, _plan, series, symbol, of[1], datetime.now(UTC))["problems"]), None
        if kind == "input partition":
            keep_inputs(_plan, GROUPS[of[0]], symbol, Quarter.named(of[1]))
        else:
            keep_features(_plan, symbol, Quarter.named(of))
    except (SourceError, LiqError, OSError, ValueError) as error:
        return [], f"{symbol} {_named(of)}: {' '.join(str(error).split())}"
    return [], None


def _named(of: Any) -> str:
    if isinstance(of, tuple):
        return " ".join(map(_named, of))
    return f"{of:%Y-%m}" if isinstance(of, datetime) else str(of)


def _all(
    plan: Plan,
    settings: Settings,
    manner: Manner,
    kind: str,
    tasks: Sequence[tuple[str, Any]],
    say: Callable[[str], None],
) -> list[str]:
    if not tasks:
        return []
    begun = told = time.monotonic()
    problems: list[str] = []
    failed: list[str] = []
    left, ended = list(tasks), 0
    while left:
        made: set[tuple[str, Any]] = set()
        # Fresh processes: a fork would share sockets and threads.
        pace = manner.requests_per_second / manner.workers
        started = (plan, settings, pace, manner.niceness)
        with ProcessPoolExecutor(manner.workers, get_context("spawn"), _begin, started) as pool:
            waiting = {pool.submit(_do, kind, symbol, of): (symbol, of) for symbol, of in left}
            try:
                for one in as_completed(waiting):
                    found, why = one.result()
                    made.add(waiting[one])
                    problems += found
                    if why is not None:
                        failed.append(why)
                    now, number = time.monotonic(), len(tasks) - len(left) + len(made)
                    if now - told >= SAY_EVERY_SECONDS or number == len(tasks):
                        told = now
                        rest = (now - begun) / number * (len(tasks) - number)
                        say(f"{number} of {len(tasks)} {kind}s of coins, about {_duration(rest)} left")
            except BrokenProcessPool as error:
                ended += 1
                if ended > MOST_RESTARTS:
                    raise LiqError(
                        f"worker processes were ended from outside {ended} times (out of memory?), {len(made)} {kind}s"
                        " after the last: the same command goes on where this one stopped; --workers 1 needs least"
                    ) from error
                say("a worker process was ended from outside: what it had not finished is begun again")
        left = [task for task in left if task not in made]
    if failed:
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        raise LiqError(
            f"{len(failed)} {kind}s could not be made: {'; '.join(failed[:_SHOWN])}{more}; the same command again goes"
            " on where this one stopped"
        )
    return problems


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
